//! What the tests of lowering share: processes of one thread, what the kernel shows of them, and threads to be covered. It
//! must not lower anything itself.
#![allow(dead_code, clippy::allow_attributes, reason = "every test file takes what it needs")]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Error as IoError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder as Thread;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};
use ringfence::{Error, Filter, Host, Lowered, Lowering, LoweringBuilder};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::support::{field, is_inside, rerun};

pub(crate) const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// Runs `body` in a process that has one thread and that nobody needs afterwards.
pub(crate) fn alone(name: &str, body: fn()) {
    if is_inside(name) {
        assert_eq!(forked(body), Ok(0), "{name}");
    } else {
        rerun(name, &["env"], "exec \"$@\"", &[]);
    }
}

/// The exit code of a copy of this process that runs `body`, or the signal that ended it.
pub(crate) fn forked(body: fn()) -> Result<i32, Signal> {
    // SAFETY: a re-run has no other thread that does anything.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            // One that hangs ends.
            alarm::set(120);
            let code = catch_unwind(AssertUnwindSafe(body)).map_or(1, |()| 0);
            // SAFETY: it only ends the process.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).expect("its end") {
            WaitStatus::Exited(_, code) => Ok(code),
            WaitStatus::Signaled(_, signal, _) => Err(signal),
            other @ (WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive) => panic!("{other:?}"),
        },
    }
}

pub(crate) fn abi() -> u32 {
    Host::probe().landlock_abi().unwrap_or(0)
}

pub(crate) fn apply(builder: LoweringBuilder) -> Lowered {
    try_apply(builder).unwrap_or_else(|error| panic!("{error:#}"))
}

pub(crate) fn try_apply(builder: LoweringBuilder) -> Result<Lowered, Error> {
    builder.build().unwrap_or_else(|error| panic!("{error:#}")).apply()
}

pub(crate) fn worker() -> LoweringBuilder {
    Lowering::builder().seccomp(Filter::worker())
}

/// Everything that a lowering could change, for each thread.
pub(crate) fn state() -> BTreeMap<String, Vec<String>> {
    let names = SETS.into_iter().chain(["NoNewPrivs", "Seccomp", "Seccomp_filters"]);
    let tasks = fs::read_dir("/proc/self/task").expect("tasks").map(|task| task.expect("a task").path());
    let state = tasks.map(|task| {
        let status = fs::read_to_string(task.join("status")).expect("status");
        (task.display().to_string(), names.clone().map(|name| field(&status, name).to_owned()).collect())
    });
    state.collect()
}

pub(crate) fn own(name: &str) -> String {
    field(&fs::read_to_string("/proc/thread-self/status").expect("status"), name).to_owned()
}

pub(crate) fn errno<T>(result: Result<T, IoError>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// What opening a file says: 0 or an errno.
pub(crate) fn opening() -> i32 {
    errno(File::open("/etc/passwd"))
}

/// Threads that wait, and do the same thing each time they are asked to.
pub(crate) struct Crew<T>(pub(crate) Vec<(Sender<()>, Receiver<T>)>);

impl<T: Send + 'static> Crew<T> {
    pub(crate) fn of(count: usize, work: fn() -> T) -> Self {
        let (ready, all) = channel();
        let member = |number: usize| {
            let ((go, wait), (tell, told), ready) = (channel(), channel(), ready.clone());
            let body = move || {
                ready.send(()).expect("the test listens");
                wait.iter().for_each(|()| tell.send(work()).expect("the test listens"));
            };
            Thread::new().name(format!("crew-{number}")).spawn(body).expect("a thread");
            // It has its name.
            all.recv().expect("it runs");
            (go, told)
        };
        Self((0..count).map(member).collect())
    }

    pub(crate) fn ask(&self) -> Vec<T> {
        self.0.iter().for_each(|(go, _)| go.send(()).expect("it waits"));
        self.0.iter().map(|(_, told)| told.recv().expect("it answers")).collect()
    }
}

/// A filter that this thread alone has.
pub(crate) fn filter_this_thread() {
    let arch = env::consts::ARCH.try_into().expect("an architecture");
    let filter =
        SeccompFilter::new(BTreeMap::new(), SeccompAction::Allow, SeccompAction::Trap, arch).expect("valid");
    let program: BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("seccomp");
}
