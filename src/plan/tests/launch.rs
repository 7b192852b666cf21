//! One launch for the model: window, plan and tail linked into one memory, descriptors as the caller hands them over.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr;

use super::super::Arrival;
use super::super::CloseRange;
use super::super::Code;
use super::super::Controlling;
use super::super::Entry;
use super::super::Op;
use super::super::Plan;
use super::super::Program;
use super::super::SourceHow;
use super::super::TailInput;
use super::super::Then;
use super::super::WindowInput;
use super::super::tail;
use super::super::window;
use super::kernel::DEVICE;
use super::kernel::INODE;
use super::world::Fd;
use super::world::Over;
use super::world::Role;
use super::world::Script;
use super::world::Scripted;
use super::world::What;
use crate::host::Features;
use crate::host::Host;
use crate::machine::isa::INSN_SIZE;
use crate::machine::layout::BRIEF_BASE;
use crate::machine::layout::FD_BRIEF;
use crate::machine::layout::FD_CALLER;
use crate::machine::layout::FD_END;
use crate::machine::layout::FD_FIRST_FREE;
use crate::machine::layout::FD_SCRATCH;
use crate::machine::layout::FD_SCRATCH_TARGET;
use crate::machine::layout::FD_SOCKET;
use crate::machine::layout::FREE_FD;
use crate::machine::layout::IMAGE_BASE;
use crate::machine::layout::SOURCE_ABSENT;
use crate::machine::layout::SOURCE_DIRECTORY;
use crate::machine::layout::SOURCE_FILE;
use crate::machine::layout::SOURCE_SYMLINK;
use crate::machine::layout::SUPERVISED;
use crate::machine::layout::TAIL_ENTRY;
use crate::machine::layout::WAITS;
use crate::machine::model::End;
use crate::machine::model::Model;
use crate::machine::segment::Bases;
use crate::plan::{Listing, Stream};
use crate::policy::Policy;

const WINDOW_BASE: u64 = 0x3000_0000;
/// The image's descriptor in the caller.
const IMAGE_FD: i32 = 130;
/// Beyond every number of the caller's table.
const TABLE_END: u64 = 200;
/// Far more steps than any run needs: the longest closes a table of descriptors one by one.
const STEPS: usize = 20_000;
/// Labels of what the command passes.
pub(super) const PASSED: u64 = 1000;
const PROGRAM: u64 = 2000;
/// Label of the first stream of a child that has no command yet.
const WAITING: u64 = 3000;

/// What the caller found at its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Directories,
    Files,
    /// What may be absent is, or is a symlink.
    Little,
}

/// Image or copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Image,
    Copy,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The program runs.
    Exec,
    /// Init ended as it should.
    Exit,
    GaveUp,
    /// More steps than there can be.
    Endless,
    Fault(u64),
    Returned,
}

/// What varies from launch to launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) found: Found,
    pub(super) how: How,
    pub(super) role: Role,
    /// Numbers at which the command wants what it passes.
    pub(super) targets: &'static [i32],
    /// The program is an open file.
    pub(super) by_fd: bool,
    /// Standard input is to be its terminal.
    pub(super) terminal: Controlling,
    /// What the command passes comes after the clone.
    pub(super) arrival: Arrival,
}

pub(super) struct Launch<'a> {
    pub(super) plan: &'a Plan,
    pub(super) policy: &'a Policy,
    pub(super) host: &'a Host,
    pub(super) variant: Variant,
    pub(super) world: Scripted,
    tail: Code,
    window: Code,
    bases: Bases,
}

fn kind(how: SourceHow, found: Found, index: usize) -> u64 {
    match (how, found) {
        (SourceHow::Device { .. }, _) => SOURCE_FILE,
        (SourceHow::Mirror, Found::Little) if index.is_multiple_of(2) => SOURCE_SYMLINK,
        (SourceHow::Mirror | SourceHow::IfExists, Found::Little) => SOURCE_ABSENT,
        (_, Found::Files) => SOURCE_FILE,
        (_, Found::Directories | Found::Little) => SOURCE_DIRECTORY,
    }
}

fn rows_at(base: u64, code: &Code) -> u64 {
    base + code.segment.rows_at() as u64
}

impl<'a> Launch<'a> {
    pub(super) fn new(plan: &'a Plan, (policy, host): (&'a Policy, &'a Host), variant: Variant) -> Self {
        let close_range = if host.features().contains(Features::CLOSE_RANGE) {
            CloseRange::Here
        } else {
            CloseRange::Later
        };
        let tail = tail_of(plan, variant, close_range);
        let bases = Bases {
            image: IMAGE_BASE,
            brief: BRIEF_BASE,
            tail: BRIEF_BASE + u64::from(plan.tail_at),
            window: WINDOW_BASE,
        };
        let (mut fds, place) = descriptors(plan, variant);
        fds.insert(IMAGE_FD, Fd { what: What::Other, serial: 0, cloexec: true });
        let free = place.iter().map(|(_, to)| to + 1).max().unwrap_or(0).max(plan.passed_at);
        let entry = rows_at(bases.image, &plan.code) + (plan.copy_entry * INSN_SIZE) as u64;
        let then = match variant.how {
            How::Image => Then::Image { fd: IMAGE_FD, carried: plan.carried, argv: 1, envp: 2 },
            How::Copy => Then::Copy { entry },
        };
        let window = window(&WindowInput { place: &place, free, close_range, then, listing: Listing::Kept });
        let memory = memory(plan, &tail, &window, &bases);
        let ids = (plan.ids.uid, plan.ids.gid);
        let mode = if variant.found == Found::Directories { 0o040_755 } else { 0o100_644 };
        let script = Script { role: variant.role, mode, ids, caller_dies: false };
        let mut world = Scripted::new(memory, fds, script);
        fill(&mut world, plan, variant, (rows_at(bases.tail, &tail), free));
        world.progress = BRIEF_BASE;
        if variant.arrival == Arrival::Messages {
            world.coming = labels(variant);
        }
        Self { plan, policy, host, variant, world, tail, window, bases }
    }

    /// Where a launch starts.
    pub(super) fn entry(&self) -> u64 {
        rows_at(self.bases.window, &self.window)
    }

    /// The code and row at an address.
    pub(super) fn row(&self, pc: u64) -> Option<(&Code, usize)> {
        let codes = [
            (&self.window, self.bases.window),
            (&self.plan.code, self.bases.image),
            (&self.tail, self.bases.tail),
        ];
        codes.into_iter().find_map(|(code, base)| {
            let row = usize::try_from(pc.checked_sub(rows_at(base, code))?).ok()? / INSN_SIZE;
            (row < code.ops.len()).then_some((code, row))
        })
    }

    pub(super) fn op(&self, pc: u64) -> Option<&Op> {
        self.row(pc).and_then(|(code, row)| code.ops.get(row))
    }

    /// A row as a person finds it in the dry run.
    pub(super) fn named(&self, pc: u64) -> String {
        match self.row(pc) {
            Some((code, row)) => {
                let op = &code.ops[row];
                format!("{} {}: row {row} {}{}", op.step, code.objects[op.object], op.name, op.text)
            }
            None => format!("{pc:#x}"),
        }
    }

    fn in_window(&self, pc: u64) -> bool {
        self.row(pc).is_some_and(|(code, _)| ptr::eq(code, &raw const self.window))
    }

    /// Runs the table from `pc` to its end, over the exec of the image.
    pub(super) fn run(&self, world: &mut Scripted, pc: u64) -> Finish {
        let progress = world.progress;
        let end = Model::new(world, pc, progress).run(STEPS);
        let last = world.last().map_or(0, |event| event.pc);
        match (end, world.over) {
            (End::Stopped, Some(Over::Exec)) if self.in_window(last) => {
                world.over = None;
                world.fds.retain(|_, fd| !fd.cloexec);
                self.run(world, rows_at(self.bases.image, &self.plan.code))
            }
            (End::Stopped, Some(Over::Exec)) => Finish::Exec,
            (End::Stopped, Some(Over::Exit)) => Finish::Exit,
            (End::Stopped, None) => Finish::Endless,
            (End::Stopped, Some(Over::Refused)) | (End::GaveUp, _) => Finish::GaveUp,
            (End::Returned(_), _) => Finish::Returned,
            (End::Fault(address), _) => Finish::Fault(address),
        }
    }
}

fn tail_of(plan: &Plan, variant: Variant, close_range: CloseRange) -> Code {
    let paths = ["/nowhere/program", "/bin/program"].map(|path| CString::new(path).expect("no NUL"));
    let program = if variant.by_fd { Program::Fd } else { Program::Paths(paths.to_vec()) };
    let cwd = CString::new("/tmp").expect("no NUL");
    let input = TailInput {
        program: &program,
        name: "program".into(),
        cwd: &cwd,
        targets: variant.targets,
        passed_at: plan.passed_at,
        close_range,
        limits: &plan.late_limits,
        filter: plan.filter.as_ref(),
        terminal: variant.terminal,
        arrival: variant.arrival,
        streams: [Stream::Given; 3],
        listing: Listing::Kept,
    };
    tail(&input).0
}

fn memory(plan: &Plan, tail: &Code, window: &Code, bases: &Bases) -> Vec<(u64, Vec<u8>)> {
    let linked = |code: &Code| {
        let mut bytes = Vec::new();
        code.segment.link(bases, &mut bytes);
        bytes
    };
    let mut brief = vec![0; usize::try_from(plan.tail_at).expect("a small number")];
    brief.extend(linked(tail));
    vec![(bases.image, linked(&plan.code)), (bases.brief, brief), (bases.window, linked(window))]
}

fn fill(world: &mut Scripted, plan: &Plan, variant: Variant, (tail, free): (u64, i32)) {
    let mut set = |offset: u32, value: u64| {
        assert!(
            world.put(BRIEF_BASE + u64::from(offset), &value.to_le_bytes()),
            "{offset:#x} is in the brief"
        );
    };
    set(TAIL_ENTRY, tail);
    set(FREE_FD, u64::from(free.cast_unsigned()));
    set(FD_END, TABLE_END);
    set(SUPERVISED, 1);
    set(WAITS, u64::from(variant.arrival == Arrival::Messages));
    if let Entry::Living(join) = &plan.entry {
        for at in &join.rules {
            set(*at, INODE);
            set(*at + 8, DEVICE);
        }
    }
    for (index, source) in plan.sources.iter().enumerate() {
        set(source.facts, kind(source.how, variant.found, index));
        set(source.facts + 8, INODE);
        set(source.facts + 16, DEVICE);
    }
}

/// The caller's table, and what goes where.
fn descriptors(plan: &Plan, variant: Variant) -> (BTreeMap<i32, Fd>, Vec<(i32, i32)>) {
    let mut fds = BTreeMap::new();
    let mut place = Vec::new();
    // Of the caller's own: its stdio, one that leaks through an exec, one that does not.
    for (number, cloexec) in [(0, false), (1, false), (2, false), (50, false), (51, true)] {
        fds.insert(number, Fd { what: What::Given(99), serial: 0, cloexec });
    }
    let mut give = |label: u64, to: i32| {
        let from = 60 + i32::try_from(place.len()).unwrap_or(0);
        fds.insert(from, Fd { what: What::Given(label), serial: 0, cloexec: true });
        place.push((from, to));
    };
    // As `spawn/parent.rs` does it; the scratch numbers are taken too.
    // A child that waits for its command has other streams until then.
    let late = variant.arrival == Arrival::Messages;
    let streams = if late { WAITING } else { 0 };
    for (label, to) in
        (streams..).zip([0, 1, 2, FD_SOCKET, FD_BRIEF, FD_CALLER, FD_SCRATCH, FD_SCRATCH_TARGET])
    {
        give(label, to);
    }
    for (index, source) in plan.sources.iter().enumerate() {
        let kind = kind(source.how, variant.found, index);
        if let (Some(tree), SOURCE_DIRECTORY | SOURCE_FILE) = (source.tree, kind) {
            give(500, tree.fd);
        }
    }
    if let Entry::Living(join) = &plan.entry {
        for (_, to) in join.passed.iter().zip(FD_FIRST_FREE..) {
            give(600, to);
        }
    }
    if !late {
        for (label, to) in labels(variant).into_iter().skip(3).zip(plan.passed_at..) {
            give(label, to);
        }
    }
    (fds, place)
}

/// What belongs to the command: its streams, what it passes, its program.
fn labels(variant: Variant) -> Vec<u64> {
    let program = variant.by_fd.then_some(PROGRAM);
    (0..3).chain((PASSED..).take(variant.targets.len())).chain(program).collect()
}
