//! PID 1: the tail of the plan's own table. It reaps, forwards signals, passes on the exact wait status, and ends
//! everything when the program or the caller's process ends.

use super::asm::{Assembler, Call, Cell, Label, Operand, fd, null, num, sym};
use super::capability;
use super::context::{Context, u64_of};
use super::gate::pollfd;
use super::seccomp;
use crate::error::{Result, Step};
use crate::host::Features;
use crate::machine::layout::{
    DETACHED, FD_CALLER, FD_END, FD_SANDBOX, FD_SCRATCH, INIT_PROGRESS, PROGRAM_PID, PROGRESS, RUSAGE,
    STATUS, STATUS_VALID,
};
use crate::policy::{Namespaces, Tether};

/// Offset of revents in the second word half of a pollfd: bits 16 to 31.
const REVENTS: u64 = 0xffff_0000;
const SIGINFO_SIZE: usize = 128;

/// Forks init and the program. Behind these rows only the program goes on.
pub(super) fn split(context: &mut Context<'_>) -> Result<()> {
    if !context.forks() {
        return Ok(());
    }
    context.asm.step(Step::Init, "");
    prepare(context);
    let own = context.asm.cell("own");
    context.asm.call(Call::new(libc::SYS_getpid, "getpid").into(own));
    let (program, pid) = (context.asm.label(), Cell::brief(PROGRAM_PID, "program"));
    let child = context.asm.cell("child");
    let chld = sym(u64_of(libc::SIGCHLD), "SIGCHLD");
    let call = Call::new(libc::SYS_clone, "clone").arg(chld).arg(num(0)).arg(num(0)).arg(num(0)).arg(num(0));
    // Before there are two, so that init, however late it runs, never writes to the record of the program's half.
    context.asm.progress(Cell::brief(INIT_PROGRESS, "init_progress"));
    context.asm.call(call.into(child));
    context.asm.if_equal(&child.word(), u64::MAX, num(0), program);
    context.asm.set(pid, &child.word(), &num(0));
    confine(context);
    seccomp::attach_to_init(context)?;
    serve(context, pid);
    context.asm.bind(program);
    context.asm.step(Step::Init, "program");
    context.asm.progress(Cell::brief(PROGRESS, "progress"));
    if !context.joins() {
        // The caller reads back what holds of this process, and may want to trace it; nothing runs inside yet.
        dumpable(context, 1);
    }
    // Without a pid namespace init's end would not end the program.
    let option = sym(u64_of(libc::PR_SET_PDEATHSIG), "PR_SET_PDEATHSIG");
    let kill = sym(u64_of(libc::SIGKILL), "SIGKILL");
    context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(kill));
    let parent = context.asm.cell("parent");
    context.asm.call(Call::new(libc::SYS_getppid, "getppid").into(parent));
    // In the sandbox's pid namespace a parent outside of it is 0 (getppid(2)).
    let outside = context.joins() && context.in_set(Namespaces::PID);
    let wanted = if outside { num(0) } else { own.word() };
    context.asm.assert_equal(&parent.word(), u64::MAX, wanted, "init is gone");
    Ok(())
}

fn dumpable(context: &mut Context<'_>, value: i64) {
    let option = sym(u64_of(libc::PR_SET_DUMPABLE), "PR_SET_DUMPABLE");
    context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(num(value)));
}

/// What both need before there are two: signals that are readable, and no way for one to look into the other.
fn prepare(context: &mut Context<'_>) {
    let asm = &mut context.asm;
    let every = asm.words(&[u64::MAX], "~[]");
    let set = sym(u64_of(libc::SIG_SETMASK), "SIG_SETMASK");
    let call = Call::new(libc::SYS_rt_sigprocmask, "rt_sigprocmask").arg(set).arg(every.clone());
    asm.call(call.arg(null()).arg(num(8)));
    let (signals, flags) = (asm.cell("signals"), sym(u64_of(libc::SFD_CLOEXEC), "SFD_CLOEXEC"));
    let call = Call::new(libc::SYS_signalfd4, "signalfd4").arg(num(-1)).arg(every).arg(num(8)).arg(flags);
    asm.call(call.into(signals));
    let cloexec = sym(u64_of(libc::O_CLOEXEC), "O_CLOEXEC");
    let call = Call::new(libc::SYS_dup3, "dup3").arg(signals.word()).arg(fd(FD_SCRATCH, "signals"));
    asm.call(call.arg(cloexec));
    // The program may have init's ids: it must not be able to trace it (ptrace(2), "Ptrace access mode checking"). An exec
    // makes the program dumpable again.
    dumpable(context, 0);
    if !context.in_set(Namespaces::PID) {
        let option = sym(u64_of(libc::PR_SET_CHILD_SUBREAPER), "PR_SET_CHILD_SUBREAPER");
        context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(num(1)));
        context
            .notes
            .push("orphans that leave init's tree are not ended with it: there is no pid namespace".into());
    }
}

/// Init has two descriptors, no capability, and a name; who attends to a program in a living sandbox has a third.
fn confine(context: &mut Context<'_>) {
    capability::none(context);
    context.asm.step(Step::Init, "descriptors");
    let name: &[u8] = if context.joins() { b"ringfence-wait" } else { b"ringfence-init" };
    let asm = &mut context.asm;
    let name = asm.string(name);
    let option = sym(u64_of(libc::PR_SET_NAME), "PR_SET_NAME");
    asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(name));
    close_all_others(context);
}

fn close_all_others(context: &mut Context<'_>) {
    let last = if context.joins() { FD_SANDBOX } else { FD_SCRATCH };
    if context.has(Features::CLOSE_RANGE) {
        close_range(context, 0, i64::from(FD_CALLER) - 1);
        close_range(context, i64::from(last) + 1, i64::from(u32::MAX));
        return;
    }
    for number in 0..FD_CALLER {
        let call = Call::new(libc::SYS_close, "close").arg(fd(number, ""));
        context.asm.call(call.fine(&[libc::EBADF, libc::EINTR]));
    }
    close_from(&mut context.asm, &num(i64::from(last) + 1));
}

fn close_range(context: &mut Context<'_>, first: i64, last: i64) {
    let call = Call::new(libc::SYS_close_range, "close_range").arg(num(first)).arg(num(last));
    context.asm.call(call.arg(num(0)));
}

/// Closes one by one, up to what the caller's table could hold: for hosts without `close_range`.
pub(super) fn close_from(asm: &mut Assembler, first: &Operand) {
    close_until(asm, first, &Cell::brief(FD_END, "fd_end").word());
}

/// Closes one by one, from `first` to the number before `end`.
pub(super) fn close_until(asm: &mut Assembler, first: &Operand, end: &Operand) {
    let (next, again) = (asm.cell("next"), asm.label());
    asm.set(next, first, &num(0));
    asm.bind(again);
    let call =
        Call::new(libc::SYS_close, "close").arg(next.word()).fine(&[libc::EBADF, libc::EINTR, libc::EIO]);
    asm.call(call);
    asm.set(next, &next.word(), &num(1));
    asm.if_less(&next.word(), end.clone(), again);
}

/// Waits for signals and for the caller's end.
fn serve(context: &mut Context<'_>, pid: Cell) {
    context.asm.step(Step::Init, "serve");
    let (tether, joins) = (context.policy.hardening.tether, context.joins());
    let mut watched = vec![pollfd(FD_SCRATCH), pollfd(FD_CALLER)];
    if joins {
        watched.push(pollfd(FD_SANDBOX));
    }
    let asm = &mut context.asm;
    let polled = asm.cell_with("polled", &watched);
    let info = asm.cell_of("siginfo", SIGINFO_SIZE);
    let (again, end, reap) = (asm.label(), asm.label(), asm.label());
    asm.bind(again);
    let count = num(i64::try_from(watched.len()).unwrap_or(2));
    let call = Call::new(libc::SYS_ppoll, "ppoll").arg(polled.pointer()).arg(count);
    asm.call(call.arg(null()).arg(null()).arg(num(8)));
    let orphaned = asm.label();
    if joins {
        // The program's own end is told first, as it is the way in which most of them end with their sandbox.
        let told = asm.label();
        asm.if_differs(&polled.half(4), REVENTS, num(0), told);
        asm.if_differs(&polled.half(20), REVENTS, num(0), end);
        asm.bind(told);
    }
    asm.if_differs(&polled.half(12), REVENTS, num(0), orphaned);
    // Most often it is the program's end, and then nothing is left to read: its caller waits for this process's own.
    let read = asm.label();
    reap_all(asm, pid, read, end);
    asm.bind(read);
    let call = Call::new(libc::SYS_read, "read").arg(fd(FD_SCRATCH, "signals")).arg(info.pointer());
    asm.call(call.arg(num(128)));
    asm.if_equal(&info.half(0), 0xffff_ffff, num(i64::from(libc::SIGCHLD)), reap);
    // A signal for the program; it may be gone already.
    let call = Call::new(libc::SYS_kill, "kill").arg(pid.word()).arg(info.half(0));
    asm.call(call.fine(&[libc::ESRCH, libc::EPERM]));
    asm.goto(again);
    // Who ended since the look before this signal was taken is found by another.
    asm.bind(reap);
    reap_all(asm, pid, again, end);
    context.asm.bind(orphaned);
    if tether == Tether::UntilDetached {
        orphan(&mut context.asm, polled, again);
    }
    context.asm.bind(end);
    let call = Call::new(libc::SYS_exit_group, "exit_group").arg(num(0));
    context.asm.call(call);
}

/// The caller is gone. If it had said before that this may be so, nothing is to be heard of it any more, and init goes on.
fn orphan(asm: &mut Assembler, polled: Cell, again: Label) {
    const NOBODY: i64 = (1 << 32) | 0xffff_ffff;
    let (said, stay) = (Cell::brief(DETACHED, "detached"), asm.label());
    asm.if_differs(&said.word(), u64::MAX, num(1), stay);
    let caller = Cell { address: polled.address.plus(8), name: "polled" };
    asm.set(caller, &sym(NOBODY.cast_unsigned(), "{-1, POLLIN}"), &num(0));
    asm.goto(again);
    asm.bind(stay);
}

/// One SIGCHLD can stand for many children.
fn reap_all(asm: &mut Assembler, pid: Cell, again: Label, end: Label) {
    // The last one to be reaped is the program: what is counted of those before it is overwritten.
    let (status, ended, usage) = (asm.cell("status"), asm.cell("ended"), Cell::brief(RUSAGE, "usage"));
    let (more, other) = (asm.label(), asm.label());
    asm.bind(more);
    let hang = sym(u64_of(libc::WNOHANG), "WNOHANG");
    let call = Call::new(libc::SYS_wait4, "wait4").arg(num(-1)).arg(status.pointer()).arg(hang);
    asm.call(call.arg(usage.pointer()).into(ended).fine(&[libc::ECHILD]));
    asm.if_less(&ended.word(), num(1), again);
    asm.if_equal(&ended.word(), u64::MAX, pid.word(), other);
    asm.goto(more);
    asm.bind(other);
    asm.set(Cell::brief(STATUS, "status"), &status.half(0), &num(0));
    asm.set(Cell::brief(STATUS_VALID, "status_valid"), &num(1), &num(0));
    asm.goto(end);
}
