//! Descriptors that come over the socket, for a child that was launched before it had a command. It must not decide what
//! becomes of them: behind these rows they lie where the window of an ordinary launch puts them.

use super::asm::{Assembler, Call, Cell, Operand, fd, num, sym};
use super::context::u64_of;
use super::gate;
use super::tail::{Program, Stream, TailInput};
use crate::error::{Object, Step};
use crate::machine::layout::FD_SOCKET;
use crate::machine::segment::Arg;
use crate::machine::wire::{MESSAGE_SIZE, Message};

/// Descriptors of one message, below the kernel's most (unix(7), `SCM_RIGHTS`: 253).
pub(crate) const BATCH: usize = 250;
/// Bytes before the numbers in a control message: length, level, type (cmsg(3)).
const CONTROL_HEAD: usize = 16;
/// Offset of `msg_flags` in `struct msghdr`.
const FLAGS_AT: u32 = 48;

/// How a command's descriptors reach the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// At their numbers, through the window.
    Window,
    /// With messages, in the place of the last `Go`.
    Messages,
}

/// Takes them in and puts them to 0, 1, 2 and from `passed_at` on.
pub(super) fn receive(asm: &mut Assembler, input: &TailInput<'_>) {
    let program = usize::from(*input.program == Program::Fd);
    let passed = input.targets.len() + program;
    // Standard streams come first.
    let given = || (0_i32..).zip(input.streams).filter(|(_, stream)| *stream == Stream::Given);
    let count = given().count();
    if count + passed == 0 {
        asm.step(Step::Gate, "command");
        gate::receive(asm, Message::Go);
        return;
    }
    let arrived = messages(asm, count + passed);
    let (streams, passed) = arrived.split_at(count);
    for ((number, _), arrived) in given().zip(streams) {
        // Where they arrived is above: 0, 1 and 2 are open.
        asm.step(Step::Descriptors, Object::Fd(number));
        let call = Call::new(libc::SYS_dup3, "dup3").arg(arrived.clone()).arg(fd(number, ""));
        asm.call(call.arg(num(0)));
    }
    place(asm, input, passed);
}

/// First above all numbers in use, then down to their own: so none overwrites another.
fn place(asm: &mut Assembler, input: &TailInput<'_>, passed: &[Operand]) {
    let above = i64::from(input.passed_at) + i64::try_from(passed.len()).unwrap_or(0);
    let objects: Vec<Object> =
        input.targets.iter().map(|target| Object::Fd(*target)).chain(["program".into()]).collect();
    let parked: Vec<Cell> = passed.iter().map(|_| asm.cell("parked")).collect();
    for ((arrived, cell), object) in passed.iter().zip(&parked).zip(&objects) {
        asm.step(Step::Descriptors, object.clone());
        let command = sym(u64_of(libc::F_DUPFD_CLOEXEC), "F_DUPFD_CLOEXEC");
        let call = Call::new(libc::SYS_fcntl, "fcntl").arg(arrived.clone()).arg(command);
        asm.call(call.arg(num(above)).into(*cell));
    }
    for ((number, cell), object) in (input.passed_at..).zip(&parked).zip(&objects) {
        asm.step(Step::Descriptors, object.clone());
        let cloexec = sym(u64_of(libc::O_CLOEXEC), "O_CLOEXEC");
        let call = Call::new(libc::SYS_dup3, "dup3").arg(cell.word()).arg(fd(number, ""));
        asm.call(call.arg(cloexec));
    }
}

/// One message for each batch; the numbers under which they arrived.
fn messages(asm: &mut Assembler, count: usize) -> Vec<Operand> {
    let mut arrived = Vec::new();
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        asm.step(Step::Descriptors, "from the caller");
        // The first is what the child was woken by.
        if left < count {
            gate::wait_for_any(asm);
        }
        arrived.extend(message(asm, batch));
        left -= batch;
    }
    arrived
}

/// `recvmsg`: whole, with as many descriptors as were sent, or not at all.
fn message(asm: &mut Assembler, count: usize) -> Vec<Operand> {
    let size = CONTROL_HEAD + 4 * count;
    let room = size.next_multiple_of(8);
    let (buffer, control) = (asm.cell("message"), asm.cell_of("control", room));
    let word = |value: usize| Arg::Value(u64::try_from(value).unwrap_or(0));
    let vector = asm.table(&[buffer.pointer().arg, word(MESSAGE_SIZE)], "{&message}");
    // struct msghdr: name, its length, vectors, their number, control, its length, flags.
    let none = Arg::Value(0);
    let header = [none, none, vector.arg, Arg::Value(1), control.pointer().arg, word(room), none];
    let header = asm.table(&header, format!("{{{count} descriptors}}"));
    let flags = u64_of(libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
    let call = Call::new(libc::SYS_recvmsg, "recvmsg").arg(fd(FD_SOCKET, "socket")).arg(header.clone());
    asm.call(call.arg(sym(flags, "MSG_DONTWAIT|MSG_CMSG_CLOEXEC")));
    let Arg::Pointer(header) = header.arg else { return Vec::new() };
    let said = Cell { address: header.plus(FLAGS_AT), name: "msg_flags" };
    let cut = u64_of(libc::MSG_CTRUNC | libc::MSG_TRUNC);
    let why = "not every descriptor arrived: RLIMIT_NOFILE of the caller may be too low";
    asm.assert_equal(&said.word(), cut, num(0), why);
    let length = num(i64::try_from(size).unwrap_or(0));
    asm.assert_equal(&control.word(), u64::MAX, length, why);
    let rights = u64_of(libc::SOL_SOCKET) | u64_of(libc::SCM_RIGHTS) << 32;
    let kind = control.word_at(8);
    asm.assert_equal(&kind, u64::MAX, sym(rights, "SOL_SOCKET, SCM_RIGHTS"), "they are no descriptors");
    let wanted = u64::from_le_bytes(Message::Descriptors.to_bytes());
    let text = format!("{:?}", Message::Descriptors);
    asm.assert_equal(&buffer.word(), u64::MAX, sym(wanted, text), "the caller said something else");
    let numbers = (0_u32..).map(|index| control.half(16 + 4 * index));
    numbers.take(count).collect()
}
