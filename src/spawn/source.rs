//! Opens what the plan binds, at each launch anew, and tells the child what was found. It changes no mount of the caller.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::layout::{SOURCE_ABSENT, SOURCE_DIRECTORY, SOURCE_FILE, SOURCE_SYMLINK};
use crate::plan::{Recursive, SourceHow, SourcePlan};
use crate::policy::Source;
use crate::sys::{self, TreeFlags};

/// What was found at a source.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: u64,
    pub(super) inode: u64,
    pub(super) device: u64,
    /// The detached tree for the child.
    pub(super) tree: Option<OwnedFd>,
    /// Where a descriptor leads, for a child that opens the path itself.
    pub(super) path: Option<Vec<u8>>,
}

const ABSENT: Found = Found { kind: SOURCE_ABSENT, inode: 0, device: 0, tree: None, path: None };

fn failed(plan: &SourcePlan, call: &'static str, errno: i32) -> Error {
    Error::new(ErrorKind::Setup, Step::OpenSource, plan.object.clone()).call(call, errno)
}

/// Looks at a source and makes the child's tree of it.
pub(super) fn find(plan: &SourcePlan) -> Result<Found> {
    let opened;
    let fd = match &plan.source {
        Source::Fd(fd) => fd.as_fd(),
        Source::Path(path) => match open_path(plan, path)? {
            Some(fd) => {
                opened = fd;
                opened.as_fd()
            }
            None => return Ok(ABSENT),
        },
    };
    let stat = fstat(fd).map_err(|errno| failed(plan, "fstat", errno as i32))?;
    let kind = kind(plan, &stat)?;
    let tree = if kind == SOURCE_SYMLINK { None } else { tree(plan, fd)? };
    let path = match &plan.source {
        Source::Fd(_) if tree.is_none() => {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let to = readlink(link.as_str()).map_err(|errno| failed(plan, "readlink", errno as i32))?;
            Some(to.as_bytes().to_vec())
        }
        Source::Fd(_) | Source::Path(_) => None,
    };
    // As statx gives it: major and minor of 32 bits each.
    let device = (major(stat.st_dev) & 0xffff_ffff) | (minor(stat.st_dev) & 0xffff_ffff) << 32;
    Ok(Found { kind, inode: stat.st_ino, device, tree, path })
}

fn open_path(plan: &SourcePlan, path: &Path) -> Result<Option<OwnedFd>> {
    let follow = if plan.how == SourceHow::Mirror { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | follow, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR)
            if matches!(plan.how, SourceHow::IfExists | SourceHow::Mirror) =>
        {
            Ok(None)
        }
        Err(errno) => Err(failed(plan, "open", errno as i32)),
    }
}

fn kind(plan: &SourcePlan, stat: &FileStat) -> Result<u64> {
    let format = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT);
    if let SourceHow::Device { major: wanted_major, minor: wanted_minor } = plan.how {
        let number = (major(stat.st_rdev), minor(stat.st_rdev));
        if format != SFlag::S_IFCHR || number != (wanted_major.into(), wanted_minor.into()) {
            let why = format!("it is not the character device {wanted_major}:{wanted_minor}");
            return Err(Error::new(ErrorKind::Setup, Step::OpenSource, plan.object.clone()).detail(why));
        }
    }
    Ok(match format {
        SFlag::S_IFDIR => SOURCE_DIRECTORY,
        SFlag::S_IFLNK => SOURCE_SYMLINK,
        _ => SOURCE_FILE,
    })
}

fn tree(plan: &SourcePlan, fd: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let Some(wanted) = plan.tree else { return Ok(None) };
    let flags = match wanted.recursive {
        Recursive::Yes => TreeFlags::Recursive,
        Recursive::No => TreeFlags::TopOnly,
    };
    let tree = sys::clone_tree(fd, c"", flags).map_err(|errno| failed(plan, "open_tree", errno))?;
    sys::restrict_tree(tree.as_fd(), wanted.attributes, flags)
        .map_err(|errno| failed(plan, "mount_setattr", errno))?;
    Ok(Some(tree))
}
