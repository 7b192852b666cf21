//! Tells whether the caller is in a chroot, where the kernel makes no user namespaces. It must not leave it.

use std::fs;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::answer::Answer;
use super::mountinfo::MountTable;
use super::read;

/// How the caller's root directory stands to that of process 1, if both are in one mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BesideInit {
    /// It is the same directory of the same mount.
    Same,
    /// It is another one.
    Other,
    /// Process 1 may not be looked at, or lives in another mount namespace.
    Unseen,
}

/// Judges what current_chrooted() in the kernel's fs/namespace.c will say: the caller is chrooted unless its root
/// directory is the root of the topmost mount at the root of its mount namespace.
///
/// * mountinfo lists only mounts below the caller's root directory. Without a line for "/" that directory is not the
///   root of any mount: certainly a chroot.
/// * A line for "/" that is its own parent is the root of the mount namespace: certainly none. The same if its parent
///   is mount 1, the kernel's own first root (rootfs), which never goes away: everything else is stacked on that one.
/// * Otherwise the directory is a mount point that may or may not lie at the root of the namespace, and its parent is
///   out of sight. Whoever may look at process 1, which does not live in a chroot, can compare with it. Anyone else
///   cannot know: /proc/self/root always reads "/", and statmount(2) hides what lies outside the root directory.
pub(super) fn judge(mounts: Option<&MountTable>, beside: BesideInit) -> Answer {
    let Some(mounts) = mounts.filter(|table| !table.entries().is_empty()) else { return Answer::Unknown };
    match (mounts.at(Path::new("/")), beside) {
        (None, _) if mounts.malformed() == 0 => Answer::Yes,
        (Some(root), _) if root.parent == root.id || root.parent == ROOTFS => Answer::No,
        (_, BesideInit::Same) => Answer::No,
        (_, BesideInit::Other) => Answer::Yes,
        (_, BesideInit::Unseen) => Answer::Unknown,
    }
}

/// The id of rootfs in the initial mount namespace; copies of it in others have other ids.
const ROOTFS: u32 = 1;

/// Compares the caller's root directory with that of process 1, which takes the right to trace it (proc_pid_root(5)).
pub(super) fn beside_init() -> BesideInit {
    let namespaces = (fs::read_link("/proc/thread-self/ns/mnt"), fs::read_link("/proc/1/ns/mnt"));
    let (Ok(own), Ok(init)) = namespaces else { return BesideInit::Unseen };
    match (own == init, directory("/"), directory("/proc/1/root")) {
        (true, Some(own), Some(init)) if own == init => BesideInit::Same,
        (true, Some(_), Some(_)) => BesideInit::Other,
        _ => BesideInit::Unseen,
    }
}

/// The mount and the inode of a directory. The device would not do: a bind mount has the same.
fn directory(path: &str) -> Option<(u64, u64)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let info = read::text(&format!("/proc/thread-self/fdinfo/{}", opened.as_raw_fd()))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    Some((mount, opened.metadata().ok()?.ino()))
}
