//! Launches that go on in Rust: no failure of a tail returns there, and the copy in between ends whatever it is answered.

use std::collections::BTreeMap;
use std::ffi::CString;

use super::super::Arrival;
use super::super::CloseRange;
use super::super::ClosureTail;
use super::super::Code;
use super::super::Controlling;
use super::super::ForkInput;
use super::super::LookedInto;
use super::super::Program;
use super::super::TailInput;
use super::super::Then;
use super::super::WindowInput;
use super::super::filter_errno;
use super::super::tail;
use super::super::window;
use crate::machine::isa::INSN_SIZE;
use crate::machine::isa::Insn;
use crate::machine::model::End;
use crate::machine::model::Model;
use crate::machine::model::World;
use crate::machine::segment::Bases;
use crate::plan::{Listing, Stream};
use crate::sys::CloneHow;

const BRIEF: u64 = 0x1_0000;
const CODE: u64 = 0x2_0000;
/// Where the window goes on.
const PLAN: u64 = 0x9_0000;
const STEPS: usize = 2_000;
const TID: i64 = 7;

/// A kernel that says yes to everything but one call.
struct Yes {
    memory: BTreeMap<u64, u8>,
    calls: Vec<(u32, [u64; 6])>,
    /// Which call fails, and how.
    fails: Option<(usize, i64)>,
    /// What a clone returns.
    clone: i64,
}

impl Yes {
    fn new(code: &Code) -> Self {
        let mut bytes = Vec::new();
        code.segment.link(&Bases { image: 0, brief: BRIEF, tail: CODE, window: CODE }, &mut bytes);
        let memory = (CODE..).zip(bytes).chain((BRIEF..BRIEF + 4096).map(|at| (at, 0))).collect();
        Self { memory, calls: Vec::new(), fails: None, clone: 77 }
    }

    fn bytes(&self, at: u64, count: u64) -> Option<Vec<u8>> {
        (at..at + count).map(|at| self.memory.get(&at).copied()).collect()
    }

    fn run(&mut self, code: &Code) -> End {
        let rows = CODE + code.segment.rows_at() as u64;
        Model::new(self, rows, BRIEF).run(STEPS)
    }

    fn last(&self) -> u32 {
        self.calls.last().map_or(0, |(nr, _)| *nr)
    }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("a small number")
}

impl World for Yes {
    fn call(&mut self, _: u64, nr: u32, args: [u64; 6]) -> Option<i64> {
        let index = self.calls.len();
        self.calls.push((nr, args));
        if nr == number(libc::SYS_exit_group) {
            return None;
        }
        if let Some((_, errno)) = self.fails.filter(|(at, _)| *at == index) {
            return Some(-errno);
        }
        if nr == number(libc::SYS_getcwd) {
            self.store(args[0], u64::from(b'/'));
        }
        Some(match i64::from(nr) {
            libc::SYS_gettid => TID,
            libc::SYS_clone | libc::SYS_clone3 => self.clone,
            _ => 0,
        })
    }

    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        Insn::from_bytes(&self.bytes(pc, INSN_SIZE as u64)?)
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(address, 8)?.try_into().ok()?))
    }

    fn half(&mut self, address: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(address, 4)?.try_into().ok()?))
    }

    fn store(&mut self, address: u64, value: u64) -> Option<()> {
        for (at, byte) in (address..).zip(value.to_le_bytes()) {
            *self.memory.get_mut(&at)? = byte;
        }
        Some(())
    }
}

fn closure() -> Code {
    let cwd = CString::new("/").expect("no NUL");
    let (brief, looked_into) = ((BRIEF, 4096), LookedInto::Never);
    let program = Program::Closure(ClosureTail { brief, filter: Some(vec![6, 6]), looked_into });
    let input = TailInput {
        program: &program,
        name: "closure".into(),
        cwd: &cwd,
        targets: &[3, 4],
        passed_at: 8,
        close_range: CloseRange::Here,
        limits: &[],
        filter: None,
        terminal: Controlling::No,
        arrival: Arrival::Window,
        streams: [Stream::Given; 3],
        listing: Listing::Kept,
    };
    tail(&input).0
}

#[test]
fn a_closure_begins_only_when_nothing_has_failed() {
    let code = closure();
    let mut world = Yes::new(&code);
    assert_eq!(world.run(&code), End::Returned(TID.cast_unsigned()));
    let made: Vec<u32> = world.calls.iter().map(|(nr, _)| *nr).collect();
    // The last three: nothing shared, no socket, the filter.
    let last = [libc::SYS_munmap, libc::SYS_close, libc::SYS_seccomp].map(number);
    assert_eq!(made[made.len() - 3..], last);
    for index in 0..made.len() {
        for errno in [libc::EPERM, libc::ENOMEM, libc::EINVAL] {
            let mut world = Yes::new(&code);
            world.fails = Some((index, i64::from(errno)));
            let end = world.run(&code);
            assert!(!matches!(end, End::Returned(_) | End::Fault(_)), "call {index}, {errno}: {end:?}");
        }
    }
}

#[test]
fn a_refused_filter_is_told_by_the_exit_code() {
    let code = closure();
    let mut world = Yes::new(&code);
    world.run(&code);
    let filter = world.calls.len() - 1;
    for errno in [libc::ENOMEM, libc::EACCES, 1, 125] {
        let mut world = Yes::new(&code);
        world.fails = Some((filter, i64::from(errno)));
        assert_eq!(world.run(&code), End::Stopped);
        let (nr, args) = world.calls[world.calls.len() - 1];
        assert_eq!(nr, number(libc::SYS_exit_group));
        let code = i32::try_from(args[0] & 0xff).expect("a byte");
        assert_eq!(filter_errno(code), Some(errno));
    }
    for code in [0, 1, 101, 125, 128] {
        assert_eq!(filter_errno(code), None, "{code}");
    }
}

#[test]
fn the_copy_in_between_reports_and_ends() {
    for how in [CloneHow::Clone, CloneHow::Clone3, CloneHow::Clone3Into(9)] {
        let then = Then::Fork { entry: PLAN, fork: ForkInput { how, flags: 0x1000_0000, report: 12 } };
        let place = [(10, 0), (11, 1), (12, 2)];
        let code = window(&WindowInput {
            place: &place,
            free: 8,
            close_range: CloseRange::Here,
            then,
            listing: Listing::Kept,
        });
        let mut world = Yes::new(&code);
        assert_eq!(world.run(&code), End::Stopped, "{how:?}");
        let made: Vec<u32> = world.calls.iter().map(|(nr, _)| *nr).collect();
        assert_eq!(made[1..], [libc::SYS_sendmsg, libc::SYS_exit_group].map(number), "{how:?}");
        // A clone that is refused is told, without a descriptor.
        let mut world = Yes::new(&code);
        world.fails = Some((0, i64::from(libc::ENOSPC)));
        assert_eq!(world.run(&code), End::Stopped, "{how:?}");
        let made: Vec<u32> = world.calls.iter().map(|(nr, _)| *nr).collect();
        assert_eq!(made[1..], [libc::SYS_sendto, libc::SYS_exit_group].map(number), "{how:?}");
        // The child goes on with the window and then with the plan, which is not in this world.
        let mut world = Yes::new(&code);
        world.clone = 0;
        assert_eq!(world.run(&code), End::Fault(PLAN), "{how:?}");
        assert_eq!(world.last(), number(libc::SYS_close_range));
        assert!(world.calls.iter().all(|(nr, _)| *nr != number(libc::SYS_sendmsg)), "{how:?}");
    }
}
