//! Waiting for the caller, and telling it things: never without looking whether it lives.

use super::asm::{Assembler, Call, Cell, fd, null, num, sym};
use crate::machine::layout::{FD_CALLER, FD_SCRATCH, FD_SOCKET, MESSAGE, TAIL_ENTRY, WAITS};
use crate::machine::wire::{MESSAGE_SIZE, Message};

const POLLIN: u64 = 1;
/// `struct pollfd`: descriptor, events, revents.
pub(super) const fn pollfd(number: i32) -> u64 {
    number.cast_unsigned() as u64 | POLLIN << 32
}

/// Waits for a message of the caller; ends if the caller's process is gone. Holding a socket's other end is no proof of
/// life, as any fork of the caller holds it too: so the pidfd is watched beside it.
pub(super) fn wait_for(asm: &mut Assembler, message: Message) {
    wait_for_any(asm);
    receive(asm, message);
}

/// Takes a message that has come; ends if another one has, or the caller is gone.
pub(super) fn receive(asm: &mut Assembler, message: Message) {
    let buffer = Cell::brief(MESSAGE, "message");
    asm.set(buffer, &num(0), &num(0));
    let flags = sym(u64::from(libc::MSG_DONTWAIT.cast_unsigned()), "MSG_DONTWAIT");
    let size = num(i64::try_from(MESSAGE_SIZE).unwrap_or(8));
    asm.call(
        Call::new(libc::SYS_recvfrom, "recvfrom")
            .arg(fd(FD_SOCKET, "socket"))
            .arg(buffer.pointer())
            .arg(size)
            .arg(flags)
            .fine(&[libc::EAGAIN, libc::ECONNRESET]),
    );
    let word = u64::from_le_bytes(message.to_bytes());
    let wanted = sym(word, format!("{message:?}"));
    asm.assert_equal(&buffer.word(), u64::MAX, wanted, "the caller is gone or said something else");
}

/// The same for a child that may be told its command first: what tells it is received by the tail. Without one, or with half of
/// one, it was woken by the caller's end: where the tail begins is written last.
pub(super) fn wait_for_command_or(asm: &mut Assembler, message: Message) {
    let (waits, told) = (asm.label(), asm.label());
    asm.if_equal(&Cell::brief(WAITS, "waits").word(), u64::MAX, num(1), waits);
    wait_for(asm, message);
    asm.goto(told);
    asm.bind(waits);
    wait_for_any(asm);
    asm.if_differs(&Cell::brief(TAIL_ENTRY, "tail").word(), u64::MAX, num(0), told);
    asm.fail("the caller is gone");
    asm.bind(told);
}

/// What a child that waits needs no more is closed before it waits, and not at the cost of its command's time.
pub(super) fn close_before_waiting(asm: &mut Assembler) {
    let told = asm.label();
    asm.if_differs(&Cell::brief(WAITS, "waits").word(), u64::MAX, num(1), told);
    let call = Call::new(libc::SYS_close_range, "close_range").arg(num(i64::from(FD_SCRATCH)));
    // What is left then is closed behind the command, which cannot go on without.
    asm.call(call.arg(num(i64::from(u32::MAX))).arg(num(0)).fine(&[libc::ENOSYS, libc::EPERM]));
    asm.bind(told);
}

/// Waits until there is something to receive, or the caller is gone.
pub(super) fn wait_for_any(asm: &mut Assembler) {
    let fds = asm.cell_with("gate", &[pollfd(FD_SOCKET), pollfd(FD_CALLER)]);
    poll_both(asm, fds);
}

fn poll_both(asm: &mut Assembler, fds: Cell) {
    asm.call(
        Call::new(libc::SYS_ppoll, "ppoll")
            .arg(fds.pointer())
            .arg(num(2))
            .arg(null())
            .arg(null())
            .arg(num(8)),
    );
}

/// Sends a message to the caller.
pub(super) fn tell(asm: &mut Assembler, message: Message) {
    tell_through(asm, FD_SOCKET, message);
}

/// Sends a message over the socket at this number.
pub(super) fn tell_through(asm: &mut Assembler, socket: i32, message: Message) {
    let bytes = asm.bytes(&message.to_bytes(), format!("{message:?}"));
    let flags = sym(u64::from(libc::MSG_NOSIGNAL.cast_unsigned()), "MSG_NOSIGNAL");
    let size = num(i64::try_from(MESSAGE_SIZE).unwrap_or(8));
    asm.call(Call::new(libc::SYS_sendto, "sendto").arg(fd(socket, "socket")).arg(bytes).arg(size).arg(flags));
}

/// Ends if the caller's process is gone, without waiting.
pub(super) fn check_caller(asm: &mut Assembler) {
    let fds = asm.cell_with("tether", &[pollfd(FD_CALLER)]);
    let now = asm.words(&[0, 0], "{0}");
    let ready = asm.cell("ready");
    asm.call(
        Call::new(libc::SYS_ppoll, "ppoll")
            .arg(fds.pointer())
            .arg(num(1))
            .arg(now)
            .arg(null())
            .arg(num(8))
            .into(ready),
    );
    asm.assert_equal(&ready.word(), u64::MAX, num(0), "the caller is gone");
}
