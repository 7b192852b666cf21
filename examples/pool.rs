//! Serves many small jobs from a pool of sandboxes that wait, and prints how long each took as a histogram.
//!
//! ```text
//! cargo run --release --example pool -- --jobs 1000 --threads 2 --size 8
//! ```
//!
//! Each job is a program of its own behind a fence of its own: it squares its number. A latency counts from the command to
//! the reaped child, with the output read. Answers are checked; the exit status is 1 where one is wrong.
#![expect(clippy::print_stdout, reason = "the histogram is what this program is for")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use ringfence::{Pool, PoolStats, Sandbox};

/// Serves jobs from a pool of sandboxes.
#[derive(Debug, Parser)]
struct Options {
    /// Jobs to serve.
    #[arg(long, default_value_t = 1_000)]
    jobs: u32,
    /// Threads that ask for them.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Sandboxes that wait; 0 launches each job's directly, for comparison.
    #[arg(long, default_value_t = 8)]
    size: usize,
    /// Milliseconds between two jobs of a thread: a server is not always busy.
    #[arg(long, default_value_t = 0)]
    pause: u64,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    let sandbox = Sandbox::builder().system_read_only().wall_time(Duration::from_secs(10)).build()?;
    let pool = if options.size == 0 { None } else { Some(Pool::new(&sandbox, options.size)?) };
    if let Some(pool) = &pool {
        pool.wait_until_full(Duration::from_secs(10));
    }
    let begun = Instant::now();
    let (mut times, wrong) = serve(&options, &sandbox, pool.as_ref())?;
    let taken = begun.elapsed();
    times.sort_unstable();
    println!("{} jobs by {} threads in {taken:.2?}", times.len(), options.threads);
    print!("{}", histogram(&times));
    if let Some(PoolStats { hits, misses, failures, lost, .. }) = pool.as_ref().map(Pool::stats) {
        println!("from the pool {hits}, launched directly {misses}, failed refills {failures}, lost {lost}");
    }
    println!("wrong answers: {wrong}");
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How long each job took, and how many answers were wrong.
fn serve(
    options: &Options,
    sandbox: &Sandbox,
    pool: Option<&Pool>,
) -> Result<(Vec<Duration>, u32), Box<dyn Error>> {
    let (next, wrong) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = || -> ringfence::Result<Vec<Duration>> {
        let mut times = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.jobs {
                return Ok(times);
            }
            let begun = Instant::now();
            let answer = square(sandbox, pool, u64::from(number))?;
            times.push(begun.elapsed());
            if answer != format!("{}\n", u64::from(number).pow(2)).as_bytes() {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(options.pause));
        }
    };
    let lists = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")).collect::<Vec<_>>()
    });
    let mut times = Vec::new();
    for list in lists {
        times.extend(list??);
    }
    Ok((times, wrong.into_inner()))
}

fn square(sandbox: &Sandbox, pool: Option<&Pool>, number: u64) -> ringfence::Result<Vec<u8>> {
    let mut command = sandbox.command("sh");
    command.args(["-c", "echo $(($1 * $1))", "sh", &number.to_string()]);
    let outcome = match pool {
        Some(pool) => pool.output(&command),
        None => command.output(),
    }?;
    Ok(outcome.stdout)
}

/// A line for each doubling of time that occurs, and percentiles.
fn histogram(sorted: &[Duration]) -> String {
    let mut text = String::new();
    let class = |time: &Duration| time.as_micros().max(1).ilog2();
    let most = sorted.chunk_by(|a, b| class(a) == class(b)).map(<[_]>::len).max().unwrap_or(1);
    for chunk in sorted.chunk_by(|a, b| class(a) == class(b)) {
        let from = Duration::from_micros(1 << chunk.first().map_or(0, class));
        let bar = "#".repeat((60 * chunk.len()).div_ceil(most));
        text.push_str(&format!("{:>9} to {:>9} {:>6} {bar}\n", shown(from), shown(2 * from), chunk.len()));
    }
    for percent in [50, 90, 99, 100] {
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        let time = sorted.get(at).copied().unwrap_or_default();
        text.push_str(&format!("{percent:>3} %: {}\n", shown(time)));
    }
    text
}

fn shown(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
