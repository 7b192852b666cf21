//! Tells from the mounts whether a user namespace may mount a fresh /proc. It must not try to.

use std::path::Path;
use std::path::PathBuf;

use super::mountinfo::MountEntry;
use super::mountinfo::MountFlags;
use super::mountinfo::MountTable;

/// How much of /proc the caller sees, which is how much a new user namespace may.
///
/// A mount namespace that belongs to another user namespace than the initial one may mount proc only if it already sees
/// one that hides nothing: mount_too_revealing() in the kernel's fs/namespace.c, mount_namespaces(7). In a new mount
/// namespace every mount below /proc is locked in place, so each hides what it covers, except on a directory that is
/// empty for good. Measured on Linux 6.18: the option `subset=pid` does not soften that rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcView {
    /// The mounts could not be read.
    Unknown,
    /// No proc is mounted where the caller can reach it.
    Absent,
    /// A fresh mount is allowed if it carries these flags: read-only where the one seen is, and the same keeping of
    /// access times.
    Full(MountFlags),
    /// A fresh mount is refused, because these mounts hide parts of the one seen.
    Masked(Vec<PathBuf>),
}

/// The directories of proc that nothing ever stands in, which a mount may cover without hiding anything:
/// proc_create_mount_point() and register_sysctl_mount_point() in the kernel. systemd mounts on the first on most.
const EMPTY_FOR_GOOD: [&str; 3] = ["sys/fs/binfmt_misc", "fs/nfsd", "openprom"];

/// Judges the mounts of the caller. One that the caller cannot reach counts for the kernel and is not seen here, so in
/// a chroot the answer may be darker than the truth.
pub(super) fn judge(mounts: &MountTable) -> ProcView {
    let all: Vec<&MountEntry> = mounts.entries().iter().filter(|e| e.filesystem == "proc").collect();
    let full = all.iter().filter(|proc| hiding(mounts, proc).is_empty()).map(|proc| required(proc));
    // A read-only one allows only a read-only mount, so a writable one goes first.
    if let Some(flags) = full.min_by_key(|flags| flags.contains(MountFlags::READ_ONLY)) {
        return ProcView::Full(flags);
    }
    let at_proc = mounts.at(Path::new("/proc")).filter(|entry| entry.filesystem == "proc");
    at_proc
        .or_else(|| all.first().copied())
        .map_or(ProcView::Absent, |proc| ProcView::Masked(hiding(mounts, proc)))
}

/// What hides parts of this proc: the mounts on it, or the mount itself if it shows only a part.
fn hiding(mounts: &MountTable, proc: &MountEntry) -> Vec<PathBuf> {
    if proc.root != Path::new("/") {
        return vec![proc.mount_point.clone()];
    }
    let hides = |child: &&MountEntry| {
        !EMPTY_FOR_GOOD.iter().any(|dir| child.mount_point == proc.mount_point.join(dir))
    };
    mounts.children(proc.id).filter(hides).map(|child| child.mount_point.clone()).collect()
}

fn required(proc: &MountEntry) -> MountFlags {
    let flags = proc.locked_flags() & MountFlags::ACCESS_TIME;
    if proc.is_read_only() { flags | MountFlags::READ_ONLY } else { flags }
}
