//! Tiny processes that stand beside sandboxes while the caller lives: one that keeps a scope of systemd, one that ends a frozen
//! sandbox with its caller. They must hold nothing of the caller's: no file, no directory, no terminal.

use super::asm::{Assembler, Call, Code, fd, null, num, sym};
use super::context::u64_of;
#[cfg(any(test, feature = "systemd"))]
use super::gate;
use super::gate::pollfd;
use super::init::close_until;
use super::window::CloseRange;
use crate::error::Step;
use crate::machine::image::EARLY_SIZE;
use crate::machine::layout::{FD_CALLER, FD_FIRST_FREE, FD_SCRATCH, FD_SCRATCH_TARGET};
use crate::machine::segment::Place;

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// A scope needs a process when it is made, and goes with its last one: without this one it would go with each sandbox,
    /// before the caller has read what that one used. It ends with the caller, or with the other end of its socket.
    #[cfg(any(test, feature = "systemd"))]
    Keep,
    /// With the caller's end it kills what is at [`FD_SCRATCH`], a pidfd, and writes this to the file at
    /// [`FD_SCRATCH_TARGET`], so that what a freezer holds can die.
    Ward(&'static str),
}

/// What the table needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aide {
    pub(crate) duty: Duty,
    pub(crate) close_range: CloseRange,
    /// One past every descriptor that the caller could have, for hosts without `close_range`.
    pub(crate) fd_end: i64,
}

/// The table, for an image or a copy: no row looks at the brief.
pub(crate) fn aide(input: Aide) -> Code {
    let mut asm = Assembler::new(Place::Image, EARLY_SIZE);
    asm.step(Step::Cgroup, "aide");
    let name = match input.duty {
        #[cfg(any(test, feature = "systemd"))]
        Duty::Keep => asm.string(b"ringfence-keep"),
        Duty::Ward(_) => asm.string(b"ringfence-ward"),
    };
    let option = sym(u64_of(libc::PR_SET_NAME), "PR_SET_NAME");
    asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(name));
    if input.close_range == CloseRange::Later {
        close_until(&mut asm, &num(i64::from(FD_FIRST_FREE)), &num(input.fd_end));
    }
    // What the terminal sends to the caller's group is not meant for it; and it holds no directory.
    asm.call(Call::new(libc::SYS_setsid, "setsid").fine(&[libc::EPERM]));
    let root = asm.string(b"/");
    asm.call(Call::new(libc::SYS_chdir, "chdir").arg(root));
    match input.duty {
        #[cfg(any(test, feature = "systemd"))]
        Duty::Keep => keep(&mut asm),
        Duty::Ward(text) => ward(&mut asm, text),
    }
    asm.call(Call::new(libc::SYS_exit_group, "exit_group").arg(num(0)));
    asm.fail("it goes on");
    asm.finish()
}

#[cfg(any(test, feature = "systemd"))]
fn keep(asm: &mut Assembler) {
    // Whoever stops the scope ends it.
    let none = asm.words(&[0], "[]");
    let set = sym(u64_of(libc::SIG_SETMASK), "SIG_SETMASK");
    let call = Call::new(libc::SYS_rt_sigprocmask, "rt_sigprocmask").arg(set).arg(none);
    asm.call(call.arg(null()).arg(num(8)));
    // Nothing is ever sent: what is heard is the end of the caller, or of its wish for the scope.
    gate::wait_for_any(asm);
}

/// It is told to go by SIGKILL alone, and every other signal stays blocked: the socket of a caller that dies closes before its
/// pidfd says so, and would look like a wish.
fn ward(asm: &mut Assembler, text: &str) {
    let caller = asm.cell_with("caller", &[pollfd(FD_CALLER)]);
    let call = Call::new(libc::SYS_ppoll, "ppoll").arg(caller.pointer()).arg(num(1));
    asm.call(call.arg(null()).arg(null()).arg(num(8)));
    let kill = sym(u64_of(libc::SIGKILL), "SIGKILL");
    let call =
        Call::new(libc::SYS_pidfd_send_signal, "pidfd_send_signal").arg(fd(FD_SCRATCH, "init")).arg(kill);
    asm.call(call.arg(null()).arg(num(0)).fine(&[libc::ESRCH]));
    let length = num(i64::try_from(text.len()).unwrap_or(0));
    let text = asm.string(text.as_bytes());
    // Gone is as good.
    let call = Call::new(libc::SYS_write, "write").arg(fd(FD_SCRATCH_TARGET, "freezer")).arg(text);
    asm.call(call.arg(length).fine(&[libc::ENODEV]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(duty: Duty, close_range: CloseRange) -> Vec<&'static str> {
        let code = aide(Aide { duty, close_range, fd_end: 100 });
        let calls = code.ops.iter().filter(|op| !["set", "if", "fail", "goto"].contains(&op.name));
        calls.map(|op| op.name).collect()
    }

    #[test]
    fn an_aide_does_its_duty_and_nothing_else() {
        let keep = ["prctl", "setsid", "chdir", "rt_sigprocmask", "ppoll", "exit_group"];
        assert_eq!(names(Duty::Keep, CloseRange::Here), keep);
        let ward = ["prctl", "setsid", "chdir", "ppoll", "pidfd_send_signal", "write", "exit_group"];
        assert_eq!(names(Duty::Ward("1"), CloseRange::Here), ward);
        assert_eq!(names(Duty::Ward("1"), CloseRange::Later)[1], "close");
    }
}
