//! A hundred thousand spawns from 32 threads, of mixed policies and with mixed failures, then a thousand sandboxes alive at
//! once: how fast, and what is left. Exits with 1 if anything is.
//!
//! ```text
//! cargo bench --bench endurance
//! cargo bench --bench endurance -- SPAWNS THREADS ALIVE
//! ```
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[path = "../tests/support/endurance.rs"]
mod endurance;

use std::env;
use std::fs;
use std::process::ExitCode;

use endurance::traces::{Traces, as_float};
use endurance::{Crowd, Failure, Storm, crowd, storm};

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let test = arguments.iter().any(|argument| argument == "--test" || argument == "--list");
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let wanted = if test { [32, 4, 4] } else { [100_000, 32, 1_000] };
    let number = |index: usize| numbers.get(index).copied().unwrap_or(wanted[index]);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("Linux {}", kernel.trim());
    let storm = storm(number(0), number(1))?;
    tell_storm(&storm, number(1));
    let crowd = crowd(number(2))?;
    tell_crowd(&crowd, number(2));
    let faults = [storm.faults(), crowd.faults()].concat();
    for fault in &faults {
        println!("FAULT {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_storm(storm: &Storm, threads: usize) {
    let seconds = storm.took.as_secs_f64();
    let each = as_float(storm.spawns) / seconds;
    println!("{} spawns from {threads} threads in {seconds:.1} s: {each:.0}/s", storm.spawns);
    for (kind, count) in &storm.kinds {
        println!("  {count:>7}  {kind}");
    }
    for (kind, why) in &storm.left_out {
        println!("  left out: {kind}: {why}");
    }
    let (first, last) = storm.memory.ends();
    println!(
        "  memory of the caller: {first} KiB at first, {last} KiB at last, {:+} KiB from the second quarter to the last \
         ({:+.2} bytes a spawn)",
        storm.memory.growth(),
        storm.memory.bytes_each()
    );
    tell_traces(&storm.before, &storm.after);
}

fn tell_crowd(crowd: &Crowd, wanted: usize) {
    println!(
        "{} sandboxes alive at once (of {wanted}): launched in {:.2} s, ended in {:.2} s",
        crowd.alive,
        crowd.launch.as_secs_f64(),
        crowd.end.as_secs_f64()
    );
    println!(
        "  for each: {:.1} descriptors and {:.1} KiB of the caller, {:.0} KiB of its own two processes",
        crowd.fds_each, crowd.caller_each, crowd.own_each
    );
    tell_traces(&crowd.before, &crowd.after);
}

fn tell_traces(before: &Traces, after: &Traces) {
    let list = [
        ("descriptors", before.fds, after.fds),
        ("threads", before.threads, after.threads),
        ("zombies", before.zombies, after.zombies),
        ("children", before.children, after.children),
        ("control groups", before.groups, after.groups),
        ("mounts", before.mounts, after.mounts),
        ("files", before.files, after.files),
    ];
    let text: Vec<String> =
        list.iter().map(|(what, before, after)| format!("{what} {before} -> {after}")).collect();
    println!("  before and after: {}", text.join(", "));
}
