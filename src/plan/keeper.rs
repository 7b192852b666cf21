//! The process that a scope of systemd is made with: it keeps the scope while its caller lives, and does nothing else. It must
//! hold nothing of the caller's: no file, no directory, no terminal.
//!
//! A scope needs a process when it is made, and goes with its last one. Without a keeper it would go with each sandbox, before
//! the caller has read what that one used.

use super::asm::{Assembler, Call, Code, null, num, sym};
use super::context::u64_of;
use super::gate;
use super::init::close_until;
use super::window::CloseRange;
use crate::error::Step;
use crate::machine::image::EARLY_SIZE;
use crate::machine::layout::{FD_FIRST_FREE, FD_SOCKET};
use crate::machine::segment::Place;

/// What the keeper's table needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeper {
    pub(crate) close_range: CloseRange,
    /// One past every descriptor that the caller could have, for hosts without `close_range`.
    pub(crate) fd_end: i64,
}

/// The table, for an image or a copy: no row looks at the brief.
pub(crate) fn keeper(input: Keeper) -> Code {
    let mut asm = Assembler::new(Place::Image, EARLY_SIZE);
    asm.step(Step::Cgroup, "keeper");
    let name = asm.string(b"ringfence-keep");
    let option = sym(u64_of(libc::PR_SET_NAME), "PR_SET_NAME");
    asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(name));
    if input.close_range == CloseRange::Later {
        close_until(&mut asm, &num(i64::from(FD_FIRST_FREE)), &num(input.fd_end));
    }
    // What the terminal sends to the caller's group is not meant for it; and it holds no directory.
    asm.call(Call::new(libc::SYS_setsid, "setsid").fine(&[libc::EPERM]));
    let root = asm.string(b"/");
    asm.call(Call::new(libc::SYS_chdir, "chdir").arg(root));
    // Whoever stops the scope ends it.
    let none = asm.words(&[0], "[]");
    let set = sym(u64_of(libc::SIG_SETMASK), "SIG_SETMASK");
    let call = Call::new(libc::SYS_rt_sigprocmask, "rt_sigprocmask").arg(set).arg(none);
    asm.call(call.arg(null()).arg(num(8)));
    // Nothing is ever sent: what is heard is the end of the caller, or of its wish for the scope.
    gate::wait_for_any(&mut asm);
    asm.call(Call::new(libc::SYS_exit_group, "exit_group").arg(num(0)));
    asm.fail("it goes on");
    asm.finish()
}

const _: () = assert!(FD_SOCKET < FD_FIRST_FREE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_does_nothing_but_wait() {
        let names = |close_range| {
            let code = keeper(Keeper { close_range, fd_end: 100 });
            let calls = code.ops.iter().filter(|op| !["set", "if", "fail", "goto"].contains(&op.name));
            calls.map(|op| op.name).collect::<Vec<_>>()
        };
        let bare = ["prctl", "setsid", "chdir", "rt_sigprocmask", "ppoll", "exit_group"];
        assert_eq!(names(CloseRange::Here), bare);
        assert_eq!(names(CloseRange::Later)[1], "close");
    }
}
