//! A child that waits for its command is filtered before it waits, where the filter allows that. It must not decide so for a
//! filter that refuses a call which is left to make, nor for one that has to know the launch's own exec.

use super::super::asm::{Cell, num};
use super::super::context::Context;
use super::NATIVE;
use super::attach::{Attach, attach};
use crate::error::Step;
use crate::machine::layout::WAITS;
use crate::policy::{Action, Filter, LaunchCalls};

/// What a child that waits calls until its exec, or its end where that fails: `gate.rs`, `arrive.rs`, `tail.rs`.
pub(in crate::plan) const LEFT: [&str; 19] = [
    "ppoll",
    "recvfrom",
    "recvmsg",
    "sendto",
    "dup3",
    "fcntl",
    "close",
    "close_range",
    "chdir",
    "getcwd",
    "setsid",
    "prlimit64",
    "faccessat",
    "rt_sigprocmask",
    "gettid",
    "set_robust_list",
    "execve",
    "execveat",
    "exit_group",
];

/// Whether the filter lets a child through to its command: whatever the arguments, but for the one call whose arguments are
/// known.
pub(super) fn lets_command_come(filter: &Filter) -> bool {
    let terminal = [0, libc::TIOCSCTTY, 0, 0, 0, 0];
    let ioctl = NATIVE.calls().find_map(|(name, number)| (name == "ioctl").then_some(number));
    let controls =
        ioctl.is_some_and(|number| filter.answer(NATIVE, NATIVE.audit(), number, &terminal) == Action::Allow);
    filter.launch == LaunchCalls::ByRule && controls && LEFT.iter().all(|call| filter.lets_through(call))
}

/// The rows that attach it, passed over by a child whose command is known.
pub(crate) fn attach_to_waiting(context: &mut Context<'_>, filter: Option<&Attach>) {
    let Some(filter) = filter.filter(|filter| filter.precedes_command()) else { return };
    let asm = &mut context.asm;
    let known = asm.label();
    asm.step(Step::Seccomp, "filter of a child that waits");
    asm.if_differs(&Cell::brief(WAITS, "waits").word(), u64::MAX, num(1), known);
    attach(asm, filter);
    asm.bind(known);
}
