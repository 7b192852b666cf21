//! Into the namespaces of a living sandbox, and word of where the child is then. It must not hold anything of the host where
//! what runs inside can see the child.

use std::fmt::{self, Display, Formatter};

use super::asm::{Call, Cell, Operand, cwd, fd, num, sym};
use super::context::{Context, u64_of};
use crate::error::Step;
use crate::host::Features;
use crate::machine::layout::{FD_FIRST_FREE, FD_SANDBOX};
use crate::policy::Namespaces;

/// Offset of `stx_ino` in `struct statx`.
const INODE: u32 = 32;

/// One by one: first the user namespace, which gives the right to join the others (setns(2)), and the mount namespace last.
const ONE_BY_ONE: [Namespaces; 8] = [
    Namespaces::USER,
    Namespaces::CGROUP,
    Namespaces::IPC,
    Namespaces::UTS,
    Namespaces::NET,
    Namespaces::PID,
    Namespaces::TIME,
    Namespaces::MOUNT,
];

/// How the child comes into its namespaces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    /// It is made in new ones.
    New,
    /// It joins those of a sandbox in which something runs.
    Living(JoinPlan),
}

/// How a child joins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct JoinPlan {
    /// Namespaces whose descriptors the caller passes, from the first free number on.
    pub(crate) passed: Vec<Namespaces>,
    /// Offset in the brief of the inode of each namespace that the child finds itself in.
    pub(crate) seen: Vec<(Namespaces, u32)>,
    /// For each path of a Landlock rule the offset of what the program's own rule was made for: inode and device, as the
    /// caller tells them, and what was found now.
    pub(crate) rules: Vec<u32>,
}

impl Display for JoinPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# the caller passes a pidfd of the sandbox's first process as {FD_SANDBOX}")?;
        for (number, kind) in (FD_FIRST_FREE..).zip(&self.passed) {
            writeln!(f, "# the caller passes the namespace {kind} as {number}")?;
        }
        f.write_str("# the caller puts the child into the sandbox's groups\n")
    }
}

fn name(kind: Namespaces) -> &'static str {
    Namespaces::NAMES.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

/// From here on until exec nobody without rights over the caller's user namespace can look into this process: its memory is
/// of that namespace, as the image was executed there (ptrace(2), "Ptrace access mode checking").
pub(super) fn untraceable(context: &mut Context<'_>) {
    context.asm.step(Step::Join, "PR_SET_DUMPABLE");
    let option = sym(u64_of(libc::PR_SET_DUMPABLE), "PR_SET_DUMPABLE");
    context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(num(0)));
}

/// What is passed for this set: everything where each is joined alone; a time namespace in any case, as the sandbox's first
/// process has it only for its children.
fn passed(context: &Context<'_>) -> Vec<Namespaces> {
    let alone = !context.has(Features::SETNS_PIDFD);
    let wanted = |kind: &Namespaces| context.in_set(*kind) && (alone || *kind == Namespaces::TIME);
    ONE_BY_ONE.into_iter().filter(wanted).collect()
}

/// Joins them. The child's root and directory are then the sandbox's (setns(2), "mount namespace").
pub(super) fn namespaces(context: &mut Context<'_>) -> JoinPlan {
    let passed = passed(context);
    context.trees = i32::try_from(passed.len()).unwrap_or(0);
    let own = context.asm.cell("own_namespaces");
    open_own(context, own);
    let together = context.set.difference(Namespaces::TIME);
    if context.has(Features::SETNS_PIDFD) && !together.is_empty() {
        context.asm.step(Step::Join, format!("namespaces {together}"));
        setns(context, fd(FD_SANDBOX, "sandbox"), together);
    }
    for (number, kind) in (FD_FIRST_FREE..).zip(&passed) {
        context.asm.step(Step::Join, format!("namespace {kind}"));
        setns(context, fd(number, name(*kind)), *kind);
    }
    let seen = look(context, own);
    context.asm.step(Step::Join, "descriptors");
    context.close(own);
    for number in (FD_FIRST_FREE..).take(passed.len()) {
        let call = Call::new(libc::SYS_close, "close").arg(fd(number, "")).fine(&[libc::EINTR]);
        context.asm.call(call);
    }
    JoinPlan { passed, seen, rules: Vec::new() }
}

fn setns(context: &mut Context<'_>, to: Operand, which: Namespaces) {
    let flags = sym(u64::from(which.bits()), which.to_string());
    context.asm.call(Call::new(libc::SYS_setns, "setns").arg(to).arg(flags));
}

/// This process's own directory in the host's `/proc`, which is out of reach afterwards.
fn open_own(context: &mut Context<'_>, own: Cell) {
    context.asm.step(Step::Join, "/proc/self/ns");
    let path = context.asm.string(b"/proc/self/ns");
    let flags =
        sym(u64_of(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC), "O_PATH|O_DIRECTORY|O_CLOEXEC");
    context.asm.call(Call::new(libc::SYS_openat, "openat").arg(cwd()).arg(path).arg(flags).into(own));
}

/// What the kernel says of where the child, and what it forks, is now: the caller compares.
fn look(context: &mut Context<'_>, own: Cell) -> Vec<(Namespaces, u32)> {
    let mut seen = Vec::new();
    let set = context.set;
    for kind in ONE_BY_ONE.into_iter().filter(|kind| set.contains(*kind)) {
        let file = if kind == Namespaces::PID { "pid_for_children" } else { name(kind) };
        context.asm.step(Step::Join, format!("namespace {kind}"));
        let cell = context.brief("joined", 8);
        let stat = context.stat;
        let path = context.asm.string(file.as_bytes());
        let mask = sym(u64::from(libc::STATX_INO), "STATX_INO");
        let call = Call::new(libc::SYS_statx, "statx").arg(own.word()).arg(path).arg(num(0)).arg(mask);
        context.asm.call(call.arg(stat.pointer()));
        context.asm.set(cell, &stat.word_at(INODE), &num(0));
        seen.push((kind, cell.address.offset));
    }
    seen
}
