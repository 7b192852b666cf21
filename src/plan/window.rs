//! The few calls between the clone and the image: descriptors to their numbers, capabilities kept over the exec, the exec.
//! They run in the caller's memory, so they change nothing that the memory's owner could notice.

use super::asm::{Assembler, Call, Cell, Code, num, sym};
use super::context::u64_of;
use super::fork::{self, ForkInput};
use super::text::Listing;
use crate::error::Step;
use crate::machine::layout::PROGRESS;
use crate::machine::segment::Place;

/// What the window needs to know of one launch.
#[derive(Debug)]
pub(crate) struct WindowInput<'a> {
    /// Descriptors of the caller and the numbers that the child finds them under.
    pub(crate) place: &'a [(i32, i32)],
    /// First number that nothing of the child's uses.
    pub(crate) free: i32,
    /// Whether `close_range` is there.
    pub(crate) close_range: CloseRange,
    pub(crate) then: Then,
    pub(crate) listing: Listing,
}

/// How what the child does not need is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseRange {
    Here,
    /// Later, one by one.
    Later,
}

/// What follows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// The image is executed, with these capabilities carried over.
    Image { fd: i32, carried: u64, argv: u64, envp: u64 },
    /// The table goes on at this address, in a copy of the caller.
    Copy { entry: u64 },
    /// The same, in a child of the caller that a copy of it makes first.
    Fork { entry: u64, fork: ForkInput },
}

pub(crate) fn window(input: &WindowInput<'_>) -> Code {
    let mut asm = Assembler::new(Place::Window, 0).with_listing(input.listing);
    if let Then::Fork { fork, .. } = &input.then {
        fork::split(&mut asm, fork);
        asm.progress(Cell::brief(PROGRESS, "progress"));
    }
    asm.step(Step::Window, "descriptors");
    let image_at = input.free;
    let mut place = input.place.to_vec();
    if let Then::Image { fd, .. } = input.then {
        place.push((fd, image_at));
    }
    descriptors(&mut asm, &place, input);
    match input.then {
        Then::Image { carried, argv, envp, .. } => {
            carry(&mut asm, carried);
            asm.step(Step::Start, "image");
            let empty = asm.string(b"");
            let flags = sym(u64_of(libc::AT_EMPTY_PATH), "AT_EMPTY_PATH");
            let call = Call::new(libc::SYS_execveat, "execveat").arg(num(i64::from(image_at))).arg(empty);
            asm.call(call.arg(sym(argv, "argv")).arg(sym(envp, "envp")).arg(flags));
            asm.fail("the image did not take over");
        }
        Then::Copy { entry } | Then::Fork { entry, .. } => {
            asm.step(Step::Start, "copy");
            asm.progress(Cell::brief(PROGRESS, "progress"));
            asm.jump_to(&sym(entry, "the plan"));
        }
    }
    asm.finish()
}

/// First every descriptor goes above all numbers in use, then down to its own: so none overwrites another.
fn descriptors(asm: &mut Assembler, place: &[(i32, i32)], input: &WindowInput<'_>) {
    let image = i32::from(matches!(input.then, Then::Image { .. }));
    let above = input.free + image;
    let parked: Vec<Cell> = place.iter().map(|_| asm.cell("parked")).collect();
    for ((from, _), cell) in place.iter().zip(&parked) {
        let command = sym(u64_of(libc::F_DUPFD_CLOEXEC), "F_DUPFD_CLOEXEC");
        let call = Call::new(libc::SYS_fcntl, "fcntl").arg(num(i64::from(*from))).arg(command);
        asm.call(call.arg(num(i64::from(above))).into(*cell));
    }
    for ((_, to), cell) in place.iter().zip(&parked) {
        let cloexec = image == 1 && *to == input.free;
        let flags = if cloexec { sym(u64_of(libc::O_CLOEXEC), "O_CLOEXEC") } else { num(0) };
        asm.call(Call::new(libc::SYS_dup3, "dup3").arg(cell.word()).arg(num(i64::from(*to))).arg(flags));
    }
    if input.close_range == CloseRange::Here {
        let last = num(i64::from(u32::MAX));
        let call = Call::new(libc::SYS_close_range, "close_range").arg(num(i64::from(above))).arg(last);
        asm.call(call.arg(num(0)));
    }
}

/// Capabilities survive an exec by a uid without rights only in the ambient set, which holds only what is inheritable
/// (capabilities(7), "Transformation of capabilities during execve"). Ids need no map yet for that.
fn carry(asm: &mut Assembler, carried: u64) {
    if carried == 0 {
        return;
    }
    asm.step(Step::Window, "capabilities");
    let header = asm.words(&[0x2008_0522], "{_LINUX_CAPABILITY_VERSION_3, 0}");
    let (low, high) = (carried & 0xffff_ffff, carried >> 32);
    let data = [low | low << 32, low | high << 32, high | high << 32];
    let data = asm.words(&data, format!("{{all {carried:#x}}}"));
    asm.call(Call::new(libc::SYS_capset, "capset").arg(header).arg(data));
    for number in (0..64).filter(|number| carried >> number & 1 == 1) {
        let option = sym(u64_of(libc::PR_CAP_AMBIENT), "PR_CAP_AMBIENT");
        let raise = sym(u64_of(libc::PR_CAP_AMBIENT_RAISE), "PR_CAP_AMBIENT_RAISE");
        let call = Call::new(libc::SYS_prctl, "prctl").arg(option).arg(raise);
        asm.call(call.arg(num(number)).arg(num(0)).arg(num(0)));
    }
}
