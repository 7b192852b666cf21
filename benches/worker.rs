//! What a worker of a fork server costs beside a full launch in the same sandbox, from the request to the reaped child: a
//! function that returns at once, and `/bin/true`. And what a call of a closure costs.
//!
//! ```text
//! cargo bench --bench worker
//! ```
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::env;
use std::error::Error;
use std::fs;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use ringfence::{Sandbox, WorkerIo};

/// What is wanted: the ratio of medians.
const TARGET: f64 = 1.0 / 3.0;
const PAIRS: usize = 400;
const WARM_UP: usize = 10;
/// What the host still does for the run before: mounts are torn down.
const PAUSE: Duration = Duration::from_millis(4);

type Failure = Box<dyn Error>;

fn nothing(_io: &mut WorkerIo) -> i32 {
    0
}

fn main() -> Result<(), Failure> {
    let test = env::args().any(|arg| arg == "--test" || arg == "--list");
    let pairs = if test { 2 } else { PAIRS };
    let sandbox = Sandbox::builder().system_read_only().build()?;
    let server = sandbox.fork_server().function("nothing", nothing).start()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("request to reaped child; Linux {}, {} CPUs to run on", kernel.trim(), available_parallelism()?);
    let worker = || -> Result<(), Failure> {
        let outcome = server.worker("nothing").spawn()?.wait()?;
        if outcome.success() { Ok(()) } else { Err(outcome.verdict().to_string().into()) }
    };
    let launch = || -> Result<(), Failure> {
        let outcome = sandbox.command("/bin/true").status()?;
        if outcome.success() { Ok(()) } else { Err(outcome.verdict().to_string().into()) }
    };
    let call = || -> Result<(), Failure> {
        // The fork server's clock and other threads of the crate are no others.
        sandbox.call(|_| ()).map_err(|failure| failure.to_string().into())
    };
    let (workers, launches) = paired(pairs, worker, launch)?;
    let ratio = workers.as_secs_f64() / launches.as_secs_f64();
    let met = if ratio < TARGET { "met" } else { "MISSED" };
    println!(
        "worker {workers:.0?} beside launch {launches:.0?}: {ratio:.2} (below {TARGET:.2} is wanted: {met})"
    );
    let (calls, launches) = paired(pairs, call, launch)?;
    let ratio = calls.as_secs_f64() / launches.as_secs_f64();
    println!("call   {calls:.0?} beside launch {launches:.0?}: {ratio:.2}");
    Ok(())
}

/// Medians of the two, turn by turn; who is first changes, so that neither always finds the caches warm.
fn paired(
    pairs: usize,
    one: impl Fn() -> Result<(), Failure>,
    other: impl Fn() -> Result<(), Failure>,
) -> Result<(Duration, Duration), Failure> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for pair in 0..pairs + WARM_UP {
        let timed =
            |list: &mut Vec<Duration>, job: &dyn Fn() -> Result<(), Failure>| -> Result<(), Failure> {
                sleep(PAUSE);
                let begun = Instant::now();
                job()?;
                if pair >= WARM_UP {
                    list.push(begun.elapsed());
                }
                Ok(())
            };
        if pair % 2 == 0 {
            timed(&mut ones, &one)?;
            timed(&mut others, &other)?;
        } else {
            timed(&mut others, &other)?;
            timed(&mut ones, &one)?;
        }
    }
    Ok((median(ones), median(others)))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
