//! What the parts of the compiler share: the assembler, the policy, the host, and what the caller has to do at a launch.

use std::fmt::{self, Display, Formatter};
use std::os::fd::AsRawFd;

use super::asm::{Assembler, Call, Cell, Operand, cwd, fd, num, sym};
use super::cgroup::GroupPlan;
use super::facts;
use super::join::Entry;
use super::landlock::LandlockPlan;
use super::tail::LateLimit;
use crate::error::{Object, Step};
use crate::host::{Features, Host};
use crate::machine::image::EARLY_SIZE;
use crate::machine::layout::{FD_FIRST_FREE, SOURCE_SIZE, SOURCES};
use crate::machine::segment::Place;
use crate::policy::{Init, Namespaces, Need, Policy, Source};

/// What the caller opens for the child at each launch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourcePlan {
    pub(crate) source: Source,
    pub(crate) how: SourceHow,
    /// Offset in the brief of what the caller found (kind, inode, device).
    pub(crate) facts: u32,
    /// Offset in the brief of the path that the caller found a descriptor to lead to, where the child has to open it.
    pub(crate) path_at: Option<u32>,
    /// The tree that the caller clones and passes, where it can; else the child opens the path itself.
    pub(crate) tree: Option<TreePlan>,
    /// The object for errors.
    pub(crate) object: Object,
}

/// A detached tree that the caller makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreePlan {
    /// The number that the child finds it under.
    pub(crate) fd: i32,
    /// `MOUNT_ATTR_*` set on it and what is below.
    pub(crate) attributes: u64,
    /// Whether submounts come along.
    pub(crate) recursive: Recursive,
}

/// Whether a mount call covers what is mounted below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recursive {
    Yes,
    No,
}

impl Recursive {
    pub(crate) fn flag(self) -> (u64, &'static str) {
        match self {
            Self::Yes => (0x8000, "|AT_RECURSIVE"),
            Self::No => (0, ""),
        }
    }
}

/// What the caller makes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceHow {
    /// It has to exist.
    Required,
    /// Left out where it is absent.
    IfExists,
    /// Likewise; a symlink is recreated.
    Mirror,
    /// A character device with this number.
    Device { major: u32, minor: u32 },
}

impl Display for SourcePlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Path(path) => write!(f, "{path:?}")?,
            Source::Fd(fd) => write!(f, "descriptor {}", fd.as_raw_fd())?,
        }
        match self.how {
            SourceHow::Required => {}
            SourceHow::IfExists => f.write_str(" if it exists")?,
            SourceHow::Mirror => f.write_str(" if it exists, as a symlink if it is one")?,
            SourceHow::Device { major, minor } => {
                write!(f, " if it is the character device {major}:{minor}")?;
            }
        }
        match self.tree {
            Some(tree) => write!(f, " and passes a detached tree as {}", tree.fd),
            None => f.write_str(" to compare"),
        }
    }
}

/// What the caller does to the confined program before it runs: rights over the machine's own resources do not come with a
/// user namespace (capabilities(7), "Interaction with user namespaces").
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Act {
    pub(crate) what: ActKind,
    pub(crate) need: Need,
    pub(crate) object: Object,
}

/// Which attribute of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActKind {
    Nice(i32),
    OomScore(i32),
    Limit { resource: u32, soft: u64, hard: u64 },
}

/// A preferred item: where its outcome stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) step: Step,
    pub(crate) object: Object,
    /// Offset in the brief: errno, address of the failed call, 1 if it is missing. For a ladder: the rung taken.
    pub(crate) outcome: u32,
    pub(crate) kind: ItemKind,
}

/// What an item's outcome means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ItemKind {
    /// Missing or not.
    Preferred,
    /// Which of these was taken, counted from 1.
    Ladder(Vec<&'static str>),
}

/// The compiler in the middle of a plan.
pub(crate) struct Context<'a> {
    pub(crate) asm: Assembler,
    pub(crate) policy: &'a Policy,
    pub(crate) host: &'a Host,
    pub(crate) set: Namespaces,
    pub(crate) entry: Entry,
    pub(crate) sources: Vec<SourcePlan>,
    pub(crate) items: Vec<Item>,
    pub(crate) notes: Vec<String>,
    pub(crate) late_limits: Vec<LateLimit>,
    pub(crate) acts: Vec<Act>,
    pub(crate) landlock: Option<LandlockPlan>,
    pub(crate) group: Option<GroupPlan>,
    pub(crate) brief_next: u32,
    pub(crate) trees: i32,
    /// The new root.
    pub(crate) root: Cell,
    /// The program's uid and gid, where it takes them only after the tree stands: what is its own is given to it.
    pub(crate) owner: Option<(Operand, Operand)>,
    /// What masks are made of.
    pub(crate) blank: Option<Cell>,
    /// Path of the place that the new root was mounted at, for mount(2).
    pub(crate) place: Cell,
    pub(crate) target: Cell,
    pub(crate) tree: Cell,
    pub(crate) fs: Cell,
    pub(crate) stat: Cell,
}

impl<'a> Context<'a> {
    pub(crate) fn new(policy: &'a Policy, host: &'a Host, set: Namespaces) -> Self {
        let mut asm = Assembler::new(Place::Image, EARLY_SIZE);
        let [root, place, target, tree, fs] =
            ["root", "place", "target", "tree", "fs"].map(|name| asm.cell(name));
        let stat = asm.cell_of("stat", 256);
        Self {
            asm,
            policy,
            host,
            set,
            entry: Entry::New,
            sources: Vec::new(),
            items: Vec::new(),
            notes: Vec::new(),
            late_limits: Vec::new(),
            acts: Vec::new(),
            landlock: None,
            group: None,
            brief_next: SOURCES,
            trees: 0,
            root,
            owner: None,
            blank: None,
            place,
            target,
            tree,
            fs,
            stat,
        }
    }

    pub(crate) fn has(&self, feature: Features) -> bool {
        facts::has(self.host, feature)
    }

    /// Whether somebody waits beside the program: init, or who attends to a program that joins a living sandbox.
    pub(crate) fn forks(&self) -> bool {
        self.policy.init == Init::Reaper || self.joins()
    }

    /// Whether the child comes into a sandbox in which something runs.
    pub(crate) fn joins(&self) -> bool {
        matches!(self.entry, Entry::Living(_))
    }

    pub(crate) fn in_set(&self, namespace: Namespaces) -> bool {
        self.set.contains(namespace)
    }

    /// Memory of the brief, zero at each launch.
    pub(crate) fn brief(&mut self, name: &'static str, bytes: u32) -> Cell {
        let at = self.brief_next;
        self.brief_next += bytes.next_multiple_of(8);
        Cell::brief(at, name)
    }

    /// A source with its place in the brief. Where the caller can clone trees it passes one.
    pub(crate) fn source(
        &mut self,
        source: Source,
        how: SourceHow,
        object: Object,
        tree: (u64, Recursive),
    ) -> usize {
        let facts = self.brief("source", SOURCE_SIZE).address.offset;
        let tree = facts::has(self.host, Features::CLONE_TREES).then(|| {
            let fd = FD_FIRST_FREE + self.trees;
            self.trees += 1;
            TreePlan { fd, attributes: tree.0, recursive: tree.1 }
        });
        self.sources.push(SourcePlan { source, how, facts, path_at: None, tree, object });
        self.sources.len() - 1
    }

    /// Rows of an item that may be preferred.
    pub(crate) fn item(
        &mut self,
        step: Step,
        object: impl Into<Object>,
        need: Need,
        rows: impl FnOnce(&mut Self),
    ) {
        let object = object.into();
        self.asm.step(step, object.clone());
        if need == Need::Required {
            return rows(self);
        }
        let outcome = Cell::brief(self.outcome(step, object), "outcome");
        let (failed, done) = self.asm.enter_preferred();
        rows(self);
        self.asm.leave_preferred(failed, done, outcome);
    }

    /// A place where a preferred item leaves word.
    pub(crate) fn outcome(&mut self, step: Step, object: Object) -> u32 {
        let outcome = self.brief("outcome", 24).address.offset;
        self.items.push(Item { step, object, outcome, kind: ItemKind::Preferred });
        outcome
    }

    /// `close($cell)`: what failed to close is closed by the last step, and EBADF cannot be.
    pub(crate) fn close(&mut self, cell: Cell) {
        self.asm.call(Call::new(libc::SYS_close, "close").arg(cell.word()).fine(&[libc::EINTR]));
    }

    /// Opens, writes and closes a file of `/proc`, found from the host's root.
    pub(crate) fn write_file(&mut self, path: &str, text: &str) {
        let asm = &mut self.asm;
        let file = self.fs;
        let name = asm.string(path.as_bytes());
        let flags = sym(u64_of(libc::O_WRONLY | libc::O_CLOEXEC), "O_WRONLY|O_CLOEXEC");
        asm.call(Call::new(libc::SYS_openat, "openat").arg(cwd()).arg(name).arg(flags).into(file));
        let bytes = asm.string(text.as_bytes());
        let length = num(i64::try_from(text.len()).unwrap_or(0));
        asm.call(Call::new(libc::SYS_write, "write").arg(file.word()).arg(bytes).arg(length));
        self.close(file);
    }
}

/// A flag of libc as the machine's word.
pub(crate) fn u64_of(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// A tree that the caller passes.
pub(crate) fn tree_fd(plan: TreePlan) -> Operand {
    fd(plan.fd, "tree")
}
