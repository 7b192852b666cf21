//! A clone by a copy of the caller that libc's fork has made: the new process is the caller's own child (`CLONE_PARENT`), and
//! the copy hands its pidfd over and ends. It must not know what the new process will be.

use super::asm::{Assembler, Call, Cell, fd, num, sym};
use super::context::u64_of;
use crate::error::Step;
use crate::machine::segment::Arg;
use crate::sys::CloneHow;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CMSG_LEN` and `CMSG_SPACE` of one descriptor (cmsg(3)).
const CONTROL_LENGTH: i64 = 20;
const CONTROL_SPACE: usize = 24;
/// Where the descriptor's number stands in a control message.
const NUMBER_AT: u32 = 16;

/// What that clone needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkInput {
    pub(crate) how: CloneHow,
    /// Namespaces.
    pub(crate) flags: u64,
    /// Number of the socket to the caller.
    pub(crate) report: i32,
}

/// Behind these rows only the new process goes on. The caller hears the new pid with its pidfd, or a negative errno.
pub(super) fn split(asm: &mut Assembler, input: &ForkInput) {
    asm.step(Step::Clone, "by a copy of the caller");
    let (pid, control) = (asm.cell("pid"), asm.cell_of("control", CONTROL_SPACE));
    let (failed, end, new) = (asm.label(), asm.label(), asm.label());
    let call = clone(asm, input, control);
    asm.call(call.into(pid).otherwise(failed));
    asm.if_equal(&pid.word(), u64::MAX, num(0), new);
    let rights = u64_of(libc::SOL_SOCKET) | u64_of(libc::SCM_RIGHTS) << 32;
    let kind = Cell { address: control.address.plus(8), name: "kind" };
    asm.set(control, &num(CONTROL_LENGTH), &num(0));
    asm.set(kind, &sym(rights, "SOL_SOCKET, SCM_RIGHTS"), &num(0));
    let vector = asm.table(&[pid.pointer().arg, Arg::Value(8)], "{&pid}");
    let (none, space) = (Arg::Value(0), Arg::Value(u64::try_from(CONTROL_SPACE).unwrap_or(0)));
    let header = [none, none, vector.arg, Arg::Value(1), control.pointer().arg, space, none];
    let header = asm.table(&header, "{pid, pidfd}");
    let quiet = sym(u64_of(libc::MSG_NOSIGNAL), "MSG_NOSIGNAL");
    let call = Call::new(libc::SYS_sendmsg, "sendmsg").arg(fd(input.report, "caller")).arg(header);
    asm.call(call.arg(quiet.clone()));
    asm.goto(end);
    asm.bind(failed);
    let call = Call::new(libc::SYS_sendto, "sendto").arg(fd(input.report, "caller")).arg(pid.pointer());
    asm.call(call.arg(num(8)).arg(quiet));
    asm.bind(end);
    asm.call(Call::new(libc::SYS_exit_group, "exit_group").arg(num(0)));
    asm.bind(new);
}

/// The new process is the caller's child, and its end is told as the copy's own is (clone(2), `CLONE_PARENT`).
fn clone(asm: &mut Assembler, input: &ForkInput, control: Cell) -> Call {
    let pidfd = control.address.plus(NUMBER_AT);
    let both = u64_of(libc::CLONE_PIDFD | libc::CLONE_PARENT);
    let flags = input.flags | both;
    let (group, into, size) = match input.how {
        CloneHow::Clone3Into(group) => (u64::from(group.cast_unsigned()), CLONE_INTO_CGROUP, 88),
        CloneHow::Clone3 => (0, 0, 64),
        CloneHow::Clone => {
            let call = Call::new(libc::SYS_clone, "clone").arg(sym(flags, format!("{flags:#x}")));
            return call.arg(num(0)).arg(Cell { address: pidfd, name: "pidfd" }.pointer());
        }
    };
    let mut words = [Arg::Value(0); 11];
    words[0] = Arg::Value(flags | into);
    words[1] = Arg::Pointer(pidfd);
    words[10] = Arg::Value(group);
    let args = asm.table(&words, format!("{{{:#x}}}", flags | into));
    Call::new(libc::SYS_clone3, "clone3").arg(args).arg(num(size))
}
