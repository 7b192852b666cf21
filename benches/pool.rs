//! What a program costs that runs in a child from a pool, beside std's `Command` without any fence: `/bin/true`, from the
//! command to the reaped child.
//!
//! ```text
//! cargo bench --bench pool
//! ```
//!
//! The background's share is shown, not hidden: in the first part no child is made meanwhile, in the second the pool
//! refills whenever it likes to, in the third there is no pause between jobs, so that in the end every child has to be made
//! while the jobs run. `taskset -c 1` keeps everything on one CPU.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use ringfence::{Pool, Sandbox};

const PROGRAM: &str = "/bin/true";
/// What is wanted: the ratio of medians.
const TARGET: f64 = 1.3;
const PAIRS: usize = 400;
const WARM_UP: usize = 10;
/// Jobs without a pause.
const JOBS: usize = 300;
const SIZE: usize = 8;
/// What the host still does for the run before: mounts are torn down, caches settle.
const PAUSE: Duration = Duration::from_millis(4);

type Failure = Box<dyn Error>;
type Job<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

fn main() -> Result<(), Failure> {
    let test = env::args().any(|arg| arg == "--test" || arg == "--list");
    let (pairs, jobs) = if test { (2, 2) } else { (PAIRS, JOBS) };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = available_parallelism()?;
    println!("{PROGRAM}, command to reaped child; Linux {}, {cpus} CPUs to run on", kernel.trim());
    let sandbox = Sandbox::builder().system_read_only().build()?;
    let control = paired(pairs, &mut || Ok(()), &mut || Ok(()), &mut unfenced)?;
    println!("std beside std (the control):            {control}");
    made_before(&sandbox, pairs)?;
    from_a_pool(&sandbox, pairs)?;
    without_pause(&sandbox, jobs)
}

fn unfenced() -> Result<(), Failure> {
    let null = Stdio::null;
    let status = Command::new(PROGRAM).stdin(null()).stdout(null()).stderr(null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{PROGRAM}: {status}").into()) }
}

/// Pairs of a job and std's, turn by turn; what gets ready is not counted.
fn paired(pairs: usize, ready: Job<'_>, settle: Job<'_>, job: Job<'_>) -> Result<Ratio, Failure> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..pairs + WARM_UP {
        let mut timed = |list: &mut Vec<Duration>, job: Job<'_>| -> Result<(), Failure> {
            settle()?;
            sleep(PAUSE);
            let begun = Instant::now();
            job()?;
            if pair >= WARM_UP {
                list.push(begun.elapsed());
            }
            Ok(())
        };
        ready()?;
        // Who is first changes, so that neither always finds the caches warm.
        if pair % 2 == 0 {
            timed(&mut ours, job)?;
            timed(&mut theirs, &mut unfenced)?;
        } else {
            timed(&mut theirs, &mut unfenced)?;
            timed(&mut ours, job)?;
        }
    }
    Ok(Ratio { ours: Times::of(ours), theirs: Times::of(theirs) })
}

/// A child for each run is made before the clock starts.
fn made_before(sandbox: &Sandbox, pairs: usize) -> Result<(), Failure> {
    let waiting = RefCell::new(None);
    let ratio = paired(
        pairs,
        &mut || {
            *waiting.borrow_mut() = Some(sandbox.hold()?);
            Ok(())
        },
        &mut || Ok(()),
        &mut || {
            let idle = waiting.borrow_mut().take().ok_or("no child waits")?;
            let outcome = idle.spawn(&sandbox.command(PROGRAM))?.wait()?;
            if outcome.success() { Ok(()) } else { Err(outcome.verdict().to_string().into()) }
        },
    )?;
    println!("a child made before, nothing else runs:  {ratio}{}", ratio.verdict());
    Ok(())
}

/// Before each run the pool is full; what it does from then on is its own affair.
fn from_a_pool(sandbox: &Sandbox, pairs: usize) -> Result<(), Failure> {
    let pool = Pool::new(sandbox, SIZE)?;
    let full = || {
        let full = pool.wait_until_full(Duration::from_secs(10));
        if full { Ok(()) } else { Err(Failure::from("the pool does not get full")) }
    };
    let ratio = paired(pairs, &mut || Ok(()), &mut || full(), &mut || job(&pool, sandbox))?;
    println!("from a pool of {SIZE} that was full:         {ratio}{}", ratio.verdict());
    println!("  {:?}", pool.stats());
    Ok(())
}

fn job(pool: &Pool, sandbox: &Sandbox) -> Result<(), Failure> {
    let outcome = pool.spawn(&sandbox.command(PROGRAM))?.wait()?;
    if outcome.success() { Ok(()) } else { Err(outcome.verdict().to_string().into()) }
}

/// One job after the other: all that a child costs is paid in here.
fn without_pause(sandbox: &Sandbox, jobs: usize) -> Result<(), Failure> {
    let per_job = |job: Job<'_>| -> Result<Duration, Failure> {
        let begun = Instant::now();
        for _ in 0..jobs {
            job()?;
        }
        Ok(begun.elapsed() / u32::try_from(jobs)?)
    };
    let pool = Pool::new(sandbox, SIZE)?;
    let pooled = per_job(&mut || job(&pool, sandbox))?;
    let direct = per_job(&mut || {
        let outcome = sandbox.command(PROGRAM).status()?;
        if outcome.success() { Ok(()) } else { Err(outcome.verdict().to_string().into()) }
    })?;
    let plain = per_job(&mut unfenced)?;
    let times = |time: Duration| time.as_secs_f64() / plain.as_secs_f64();
    println!("{jobs} jobs without a pause, refill included, each:");
    println!("  std {plain:.0?}; from the pool {pooled:.0?} ({:.2} of std)", times(pooled));
    println!("  launched directly {direct:.0?} ({:.2} of std)", times(direct));
    println!("  {:?}", pool.stats());
    Ok(())
}

struct Ratio {
    ours: Times,
    theirs: Times,
}

impl Ratio {
    fn value(&self) -> f64 {
        self.ours.median.as_secs_f64() / self.theirs.median.as_secs_f64()
    }

    fn verdict(&self) -> String {
        let met = if self.value() <= TARGET { "met" } else { "MISSED" };
        format!(" (at most {TARGET} is wanted: {met})")
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} of std; {} beside {}", self.value(), self.ours, self.theirs)
    }
}

struct Times {
    median: Duration,
    tenth: Duration,
    ninetieth: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        Self { median: at(50), tenth: at(10), ninetieth: at(90) }
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let us = |time: Duration| time.as_micros();
        write!(f, "{} µs ({} to {})", us(self.median), us(self.tenth), us(self.ninetieth))
    }
}
