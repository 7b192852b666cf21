//! What a filter costs: attaching an allow-list of 300 calls, ours beside the plain program of seccompiler; and calls under
//! the default filter beside the same without a filter, and beside the least that any filter costs.
//!
//! ```text
//! cargo bench --bench filter
//! ```
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(unsafe_code, reason = "a filter is attached in a child made by fork, and calls are made raw")]

#[path = "filter/calls.rs"]
mod calls;

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::thread;
use std::time::Instant;

use ringfence::internals::compile_filter;
use ringfence::{Action, Architecture, Argument, Filter};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter, sock_filter};

const ON: Architecture = if cfg!(target_arch = "x86_64") {
    Architecture::X86_64
} else if cfg!(target_arch = "aarch64") {
    Architecture::Aarch64
} else {
    Architecture::Riscv64
};
const PAIRS: usize = 301;
/// What no call has as its sixth argument.
const UNLIKELY: u64 = 0x5eed_0000_0000_0001;

/// 300 calls by number; what is left out is spread over the table, and what a thread needs to end is in.
fn names() -> Vec<&'static str> {
    let mut calls: Vec<_> = ON.calls().collect();
    calls.sort_by_key(|(_, number)| *number);
    let needed = [
        "exit",
        "exit_group",
        "execve",
        "munmap",
        "madvise",
        "futex",
        "sigaltstack",
        "rt_sigprocmask",
        "write",
        "getppid",
        "prctl",
        "seccomp",
        "mmap",
        "clone",
        "clone3",
        "clock_gettime",
        "gettid",
        "brk",
    ];
    let mut names: Vec<&str> =
        calls.iter().map(|(name, _)| *name).filter(|name| needed.contains(name)).collect();
    let others: Vec<&str> =
        calls.iter().map(|(name, _)| *name).filter(|name| !needed.contains(name)).collect();
    let wanted = 300_usize.saturating_sub(names.len());
    names.extend((0..wanted).filter_map(|index| others.get(index * others.len() / wanted)));
    names
}

fn ours(names: &[&'static str]) -> Result<BpfProgram, Box<dyn Error>> {
    program(&Filter::allow_list().allow(names.iter().copied()))
}

fn program(filter: &Filter) -> Result<BpfProgram, Box<dyn Error>> {
    let code = compile_filter(filter)?;
    Ok(code.into_iter().map(|(code, jt, jf, k)| sock_filter { code, jt, jf, k }).collect())
}

fn plain(names: &[&'static str]) -> Result<BpfProgram, Box<dyn Error>> {
    let rules: BTreeMap<i64, _> =
        names.iter().filter_map(|name| ON.number(name)).map(|number| (i64::from(number), vec![])).collect();
    let arch = env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Errno(38), SeccompAction::Allow, arch)?.try_into()?)
}

/// Microseconds for attaching it, in a thread that ends then: a filter is a thread's.
fn attach(program: &BpfProgram) -> f64 {
    let program = program.clone();
    let measured = thread::spawn(move || {
        let begin = Instant::now();
        let done = apply_filter(&program);
        let taken = begin.elapsed();
        done.map(|()| taken.as_secs_f64() * 1e6)
    });
    measured.join().ok().and_then(Result::ok).unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn paired(name: &str, pairs: usize, mut a: impl FnMut() -> f64, mut b: impl FnMut() -> f64) {
    let mut rows = Vec::new();
    for index in 0..pairs {
        // Whoever is first may find the caches cold: they take turns.
        rows.push(if index % 2 == 0 {
            let a = a();
            (a, b())
        } else {
            let b = b();
            (a(), b)
        });
    }
    let ratio = median(rows.iter().map(|(a, b)| a / b).collect());
    let (a, b) =
        (median(rows.iter().map(|row| row.0).collect()), median(rows.iter().map(|row| row.1).collect()));
    println!("{name}: {a:.1} beside {b:.1}, paired ratio {ratio:.3} ({pairs} pairs, medians)");
}

fn main() -> Result<(), Box<dyn Error>> {
    let names = names();
    let (ours, plain) = (ours(&names)?, plain(&names)?);
    println!("{} calls: {} instructions, seccompiler {}", names.len(), ours.len(), plain.len());
    paired("attach, µs, ours beside seccompiler", PAIRS, || attach(&ours), || attach(&plain));
    paired("attach, µs, control: ours beside ours", PAIRS, || attach(&ours), || attach(&ours));
    let baseline = program(&Filter::baseline())?;
    let watched = [Argument::long(5).not_equal(UNLIKELY)];
    let asked = Filter::baseline().forget(["getppid"]).rule("getppid", watched, Action::Allow);
    calls::each_call(&baseline)?;
    calls::getppid(&[
        ("no filter", vec![]),
        ("one instruction, that allows", vec![calls::floor()]),
        ("the baseline", vec![baseline.clone()]),
        ("the allow-list of 300", vec![ours]),
        ("seccompiler's allow-list of 300", vec![plain]),
        ("the baseline, 16 times", vec![baseline; 16]),
        ("the baseline, with a condition on getppid", vec![program(&asked)?]),
    ])
}
