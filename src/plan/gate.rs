//! Waiting for the caller, and telling it things: never without looking whether it lives.

use super::asm::{Assembler, Call, Cell, fd, null, num, sym};
use crate::machine::layout::{FD_CALLER, FD_SOCKET, MESSAGE};
use crate::machine::wire::{MESSAGE_SIZE, Message};

const POLLIN: u64 = 1;
/// `struct pollfd`: descriptor, events, revents.
pub(super) const fn pollfd(number: i32) -> u64 {
    number.cast_unsigned() as u64 | POLLIN << 32
}

/// Waits for a message of the caller; ends if the caller's process is gone. Holding a socket's other end is no proof of
/// life, as any fork of the caller holds it too: so the pidfd is watched beside it.
pub(super) fn wait_for(asm: &mut Assembler, message: Message) {
    let fds = asm.cell_with("gate", &[pollfd(FD_SOCKET), pollfd(FD_CALLER)]);
    let buffer = Cell::brief(MESSAGE, "message");
    asm.set(buffer, &num(0), &num(0));
    poll_both(asm, fds);
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
