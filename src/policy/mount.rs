//! The mount tree as data: what stands where, in the user's order. It must not look whether a source exists.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::wanted::Need;

/// What the program may do with a bound tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read, and execute programs. The default. Covers submounts.
    #[default]
    ReadOnly,
    /// Read, write and execute, as far as the ids inside are allowed to.
    ReadWrite,
}

/// Whether mounts below a bound directory come along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Submounts {
    /// They do, under the same restriction. The default.
    #[default]
    Include,
    /// They do not. In a user namespace the kernel refuses this where there are any, as it would uncover what they hide.
    Exclude,
}

/// Where a bind comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An absolute path of the host, opened at each spawn; a symlink is followed.
    Path(PathBuf),
    /// An open file or directory of the caller.
    Fd(Arc<OwnedFd>),
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(a), Self::Path(b)) => a == b,
            (Self::Fd(a), Self::Fd(b)) => a.as_raw_fd() == b.as_raw_fd(),
            (Self::Path(_), Self::Fd(_)) | (Self::Fd(_), Self::Path(_)) => false,
        }
    }
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    /// Where it comes from.
    pub source: Source,
    /// Read-only or read-write.
    pub access: Access,
    /// Submounts.
    pub submounts: Submounts,
    /// Whether programs in it can be executed (`MOUNT_ATTR_NOEXEC` where not).
    pub execution: Execution,
    /// What to do with a source that is a symlink or absent.
    pub absence: Absence,
}

/// Whether programs of a mount can be executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Execution {
    /// They can. The default.
    #[default]
    Allowed,
    /// They cannot: `noexec`.
    Denied,
}

/// What an absent source means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Absence {
    /// An error. The default.
    #[default]
    Refuse,
    /// The item is left out and the report says so.
    Skip,
    /// As `Skip`; besides, a symlink on the host becomes the same symlink inside (`/bin -> usr/bin`).
    Mirror,
}

/// A memory file system of its own (tmpfs(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Most bytes in it. Default 64 MiB.
    pub size: u64,
    /// Most inodes in it. Default 65,536.
    pub inodes: u64,
    /// Mode of its root directory. Default 0o755.
    pub mode: u32,
    /// Whether programs in it can be executed. Default allowed.
    pub execution: Execution,
}

impl Default for Tmpfs {
    fn default() -> Self {
        Self { size: 64 << 20, inodes: 65_536, mode: 0o755, execution: Execution::Allowed }
    }
}

/// A file with contents given by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileItem {
    /// The bytes.
    pub contents: Vec<u8>,
    /// Its mode. Default 0o444.
    pub mode: u32,
}

/// One rung of the `/proc` ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcRung {
    /// A fresh procfs of the sandbox's pid namespace, with dangerous entries read-only or masked.
    Fresh,
    /// A fresh procfs with `subset=pid` (since Linux 5.8): processes only, no `/proc/sys`, no `/proc/cpuinfo`.
    FreshPidSubset,
    /// A weakening: the host's `/proc`, read-only and masked. It shows the host's processes.
    HostReadOnly,
    /// No `/proc` of this item: what an earlier item put there stays.
    Absent,
}

/// How `/proc` is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcMount {
    /// The rungs, tried in order; the report names the one taken.
    pub ladder: Vec<ProcRung>,
}

impl Default for ProcMount {
    fn default() -> Self {
        Self { ladder: vec![ProcRung::Fresh, ProcRung::FreshPidSubset] }
    }
}

/// What stands at a target.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MountKind {
    /// A part of the host's tree.
    Bind(Bind),
    /// A memory file system.
    Tmpfs(Tmpfs),
    /// A file with given contents, in the memory file system that it lies in.
    File(FileItem),
    /// A directory with this mode, in the memory file system that it lies in.
    Directory(u32),
    /// A symlink to this text.
    Symlink(PathBuf),
    /// A character device of the host, by bind (`/dev/null`): source and target have the same name.
    Device,
    /// A minimal `/dev`: null zero full random urandom tty, shm, private devpts, ptmx, stdio links.
    Dev,
    /// A `/proc`.
    Proc(ProcMount),
    /// Hides what is there: an empty read-only directory, or a file that cannot be opened.
    Mask,
}

/// One item of the mount tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    pub(crate) target: PathBuf,
    pub(crate) kind: MountKind,
    pub(crate) need: Need,
    pub(crate) hiding: Hiding,
}

/// Whether an item may stand on, or hide, an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hiding {
    Mistake,
    Intended,
}

impl Mount {
    /// `kind` at the absolute path `target` inside.
    pub fn new(target: impl Into<PathBuf>, kind: MountKind) -> Self {
        Self { target: target.into(), kind, need: Need::Required, hiding: Hiding::Mistake }
    }

    /// The host's `source` at `target`, read-only, with its submounts.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::from_source(Source::Path(source.into()), target)
    }

    /// An open file or directory of the caller at `target`, read-only, with its submounts.
    pub fn bind_fd(source: impl Into<OwnedFd>, target: impl Into<PathBuf>) -> Self {
        Self::from_source(Source::Fd(Arc::new(source.into())), target)
    }

    fn from_source(source: Source, target: impl Into<PathBuf>) -> Self {
        let bind = Bind {
            source,
            access: Access::ReadOnly,
            submounts: Submounts::Include,
            execution: Execution::Allowed,
            absence: Absence::Refuse,
        };
        Self::new(target, MountKind::Bind(bind))
    }

    /// A memory file system at `target`.
    pub fn tmpfs(target: impl Into<PathBuf>, tmpfs: Tmpfs) -> Self {
        Self::new(target, MountKind::Tmpfs(tmpfs))
    }

    fn change_bind(mut self, change: impl FnOnce(&mut Bind)) -> Self {
        if let MountKind::Bind(bind) = &mut self.kind {
            change(bind);
        }
        self
    }

    /// Sets the access of a bind.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        self.change_bind(|bind| bind.access = access)
    }

    /// Sets whether a bind takes submounts along.
    #[must_use]
    pub fn submounts(self, submounts: Submounts) -> Self {
        self.change_bind(|bind| bind.submounts = submounts)
    }

    /// Makes a bind `noexec`.
    #[must_use]
    pub fn no_exec(self) -> Self {
        self.change_bind(|bind| bind.execution = Execution::Denied)
    }

    /// Leaves a bind out, with a line in the report, where its source does not exist.
    #[must_use]
    pub fn if_exists(self) -> Self {
        self.change_bind(|bind| bind.absence = Absence::Skip)
    }

    /// As [`Mount::if_exists`]; a source that is a symlink becomes the same symlink inside.
    #[must_use]
    pub fn mirror(self) -> Self {
        self.change_bind(|bind| bind.absence = Absence::Mirror)
    }

    /// Allows this item to stand on an earlier one, or to hide it.
    #[must_use]
    pub fn over(mut self) -> Self {
        self.hiding = Hiding::Intended;
        self
    }

    /// Lets the program run without this item where the kernel refuses it; the report says so.
    #[must_use]
    pub fn preferred(mut self) -> Self {
        self.need = Need::Preferred;
        self
    }

    /// Where it stands inside.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What stands there.
    #[must_use]
    pub fn kind(&self) -> &MountKind {
        &self.kind
    }
}

/// What the tree stands on.
#[derive(Clone, Debug, PartialEq)]
pub enum Root {
    /// A memory file system; read-only once the tree stands, unless the access says otherwise.
    Empty {
        /// Its size and inodes.
        tmpfs: Tmpfs,
        /// Whether the program may write to `/` itself.
        access: Access,
    },
    /// A directory of the host with a root file system in it.
    Directory {
        /// Where it is.
        source: Source,
        /// Whether the program may write to it.
        access: Access,
    },
}

impl Default for Root {
    fn default() -> Self {
        let tmpfs = Tmpfs { size: 16 << 20, inodes: 8_192, ..Tmpfs::default() };
        Self::Empty { tmpfs, access: Access::ReadOnly }
    }
}
