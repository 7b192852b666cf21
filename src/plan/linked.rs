//! A plan as the child would run it, for who wants to run it without a kernel: memory, entry, and what the caller would have
//! put into the brief. For tests and fuzzing only; it must not decide anything.

use super::{ActKind, Plan, SourceHow};
use crate::machine::isa::{Insn, Opcode};
use crate::machine::layout::{
    BRIEF_BASE, FD_END, FREE_FD, IMAGE_BASE, SOURCE_ABSENT, SOURCE_DIRECTORY, SOURCE_FILE, SOURCE_SYMLINK,
    SUPERVISED, TAIL_ENTRY,
};
use crate::machine::segment::Bases;
use crate::machine::wire::Message;
use crate::policy::Source;

/// Beyond every number of the caller's descriptors.
const TABLE_END: u64 = 64;

/// What the caller found at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A directory.
    Directory,
    /// Anything else that can be bound.
    File,
    /// A symlink that is to be made again.
    Symlink,
}

/// Something that the caller opens for the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedSource {
    /// The path, or that it is a descriptor.
    pub name: String,
    /// Whether it may be absent.
    pub optional: Optional,
    /// The number of the detached tree that the caller passes, its `MOUNT_ATTR_*`, and whether it has what is below.
    pub tree: Option<(i32, u64, bool)>,
    at: u64,
}

/// Whether a source may be absent, or a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Optional {
    /// It has to be there.
    No,
    /// It may be absent.
    Absent,
    /// It may be absent or a symlink.
    AbsentOrSymlink,
}

/// A plan in memory, with a tail that returns [`Linked::TAIL`].
#[derive(Clone, Debug)]
pub struct Linked {
    /// Pieces of memory by their addresses.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// The first row of the set-up, as an image enters it.
    pub entry: u64,
    /// Where progress is recorded at first.
    pub progress: u64,
    /// In the plan's order.
    pub sources: Vec<LinkedSource>,
    /// What the ids inside will be.
    pub ids: (u32, u32),
    /// What the caller sets of the confined program, and what the tail sets: limits by their kernel number.
    pub limits: Vec<u32>,
    /// The nice value that the caller sets.
    pub nice: Option<i32>,
    /// The score that the caller sets.
    pub oom_score: Option<i32>,
    /// Whether the tail attaches a filter.
    pub filtered: bool,
}

impl Linked {
    /// What a run that reaches the tail returns.
    pub const TAIL: u64 = 0x7a11;
    /// The word that lets a waiting child go on.
    #[must_use]
    pub fn go() -> [u8; 8] {
        Message::Go.to_bytes()
    }

    /// The plan in memory.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let bases = Bases {
            image: IMAGE_BASE,
            brief: BRIEF_BASE,
            tail: BRIEF_BASE + u64::from(plan.tail_at),
            window: 0,
        };
        let mut image = Vec::new();
        plan.code.segment.link(&bases, &mut image);
        let mut brief = vec![0; usize::try_from(plan.tail_at).unwrap_or(0)];
        let back = Insn {
            opcode: Opcode::Return as u8,
            flags: 0,
            kinds: 0,
            nr: 0,
            jump: 0,
            fine: [0; 4],
            result: 0,
            args: [Self::TAIL, 0, 0, 0, 0, 0],
        };
        brief.extend(back.to_bytes());
        let sources = plan.sources.iter().map(|source| LinkedSource {
            name: match &source.source {
                Source::Path(path) => path.display().to_string(),
                Source::Fd(_) => "a descriptor".to_owned(),
            },
            optional: match source.how {
                SourceHow::Required | SourceHow::Device { .. } => Optional::No,
                SourceHow::IfExists => Optional::Absent,
                SourceHow::Mirror => Optional::AbsentOrSymlink,
            },
            tree: source.tree.map(|tree| (tree.fd, tree.attributes, tree.recursive.flag().0 != 0)),
            at: BRIEF_BASE + u64::from(source.facts),
        });
        let late = plan.late_limits.iter().map(|late| late.limit.resource.number().0);
        let acts = plan.acts.iter().map(|act| act.what);
        let by_caller = acts.clone().filter_map(|act| match act {
            ActKind::Limit { resource, .. } => Some(resource),
            ActKind::Nice(_) | ActKind::OomScore(_) => None,
        });
        let entry = IMAGE_BASE + plan.code.segment.rows_at() as u64;
        let mut linked = Self {
            entry,
            progress: BRIEF_BASE,
            sources: sources.collect(),
            ids: (plan.ids.uid, plan.ids.gid),
            limits: late.chain(by_caller).collect(),
            nice: acts.clone().find_map(|act| if let ActKind::Nice(nice) = act { Some(nice) } else { None }),
            oom_score: acts
                .clone()
                .find_map(|act| if let ActKind::OomScore(score) = act { Some(score) } else { None }),
            filtered: plan.filter.is_some(),
            memory: vec![(IMAGE_BASE, image), (BRIEF_BASE, brief)],
        };
        let free = u64::from(plan.passed_at.cast_unsigned());
        for (offset, value) in
            [(TAIL_ENTRY, bases.tail), (FREE_FD, free), (FD_END, TABLE_END), (SUPERVISED, 1)]
        {
            linked.put(BRIEF_BASE + u64::from(offset), value);
        }
        linked
    }

    fn put(&mut self, address: u64, value: u64) {
        let found = self.memory.iter_mut().find_map(|(base, bytes)| {
            let at = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get_mut(at..at.checked_add(8)?)
        });
        if let Some(place) = found {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Says what the caller found at the source with this number: inode and device are `identity`.
    pub fn find(&mut self, index: usize, found: Found, identity: (u64, u64)) {
        let Some(at) = self.sources.get(index).map(|source| source.at) else { return };
        let kind = match found {
            Found::Absent => SOURCE_ABSENT,
            Found::Directory => SOURCE_DIRECTORY,
            Found::File => SOURCE_FILE,
            Found::Symlink => SOURCE_SYMLINK,
        };
        self.put(at, kind);
        self.put(at + 8, identity.0);
        self.put(at + 16, identity.1);
    }
}
