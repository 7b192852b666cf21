//! Parses /proc/PID/mountinfo. It must not touch a mount, and must survive any text.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;
use std::str::Split;

use bitflags::bitflags;

bitflags! {
    /// The flags of one mount that mount(2) would have to repeat, with the values of its `MS_*` constants.
    ///
    /// In a mount namespace of a new user namespace they are locked: a remount that leaves one out, or that changes
    /// how access times are kept, gets EPERM. See mount_namespaces(7), "Restrictions on mount namespaces".
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct MountFlags: u64 {
        /// MS_RDONLY.
        const READ_ONLY = 0x1;
        /// MS_NOSUID.
        const NO_SUID = 0x2;
        /// MS_NODEV.
        const NO_DEV = 0x4;
        /// MS_NOEXEC.
        const NO_EXEC = 0x8;
        /// MS_NOSYMFOLLOW, Linux 5.10. Not locked, but a remount that leaves it out drops it.
        const NO_SYMLINK_FOLLOW = 0x100;
        /// MS_NOATIME.
        const NO_ACCESS_TIME = 0x400;
        /// MS_NODIRATIME.
        const NO_DIRECTORY_ACCESS_TIME = 0x800;
        /// MS_RELATIME.
        const RELATIVE_ACCESS_TIME = 0x0020_0000;
        /// MS_STRICTATIME. mountinfo shows it by naming neither `noatime` nor `relatime`.
        const STRICT_ACCESS_TIME = 0x0100_0000;
    }
}

impl MountFlags {
    /// The flags that say how access times are kept; they are locked together.
    pub const ACCESS_TIME: Self = Self::NO_ACCESS_TIME
        .union(Self::NO_DIRECTORY_ACCESS_TIME)
        .union(Self::RELATIVE_ACCESS_TIME)
        .union(Self::STRICT_ACCESS_TIME);

    /// Reads the options of a mount, such as `rw,nosuid,relatime`; those that are no flags of a mount are passed over.
    #[must_use]
    pub fn parse(options: &str) -> Self {
        let seen = options.split(',').fold(Self::empty(), |flags, option| flags | Self::of(option));
        if seen.intersects(Self::NO_ACCESS_TIME | Self::RELATIVE_ACCESS_TIME) {
            seen
        } else {
            // Left out, mount(2) would take MS_RELATIME for its default.
            seen | Self::STRICT_ACCESS_TIME
        }
    }

    fn of(option: &str) -> Self {
        match option {
            "ro" => Self::READ_ONLY,
            "nosuid" => Self::NO_SUID,
            "nodev" => Self::NO_DEV,
            "noexec" => Self::NO_EXEC,
            "nosymfollow" => Self::NO_SYMLINK_FOLLOW,
            "noatime" => Self::NO_ACCESS_TIME,
            "nodiratime" => Self::NO_DIRECTORY_ACCESS_TIME,
            "relatime" => Self::RELATIVE_ACCESS_TIME,
            _ => Self::empty(),
        }
    }
}

/// How mounts below a mount point spread, see mount_namespaces(7), "Shared subtrees".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Propagation {
    /// `shared:X`: the peer group that it shares with.
    pub shared: Option<u32>,
    /// `master:X`: the peer group that it receives from.
    pub master: Option<u32>,
    /// `propagate_from:X`: the nearest dominant peer group under this root.
    pub propagate_from: Option<u32>,
    /// `unbindable`: it cannot be bound elsewhere.
    pub unbindable: bool,
}

/// One mount, a line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MountEntry {
    /// The mount's id; ids are used again after an unmount.
    pub id: u32,
    /// The id of the mount that it lies on, which need not be visible; its own id at the root of the namespace.
    pub parent: u32,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// The directory or file of the file system that is the root of this mount. For a deleted one the kernel appends
    /// `//deleted`; for namespace files it is such as `net:[4026532450]`.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the root directory of the process.
    pub mount_point: PathBuf,
    /// The options of this mount.
    pub options: String,
    /// Its propagation.
    pub propagation: Propagation,
    /// The type of the file system, such as `ext4` or `fuse.sshfs`.
    pub filesystem: String,
    /// The source as it was given to mount(2); may be empty.
    pub source: OsString,
    /// The options of the file system.
    pub super_options: String,
}

impl MountEntry {
    /// Reads one line; `None` if it is not one.
    ///
    /// The separator is exactly one space: an empty source leaves two in a row.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let id = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let root = path(fields.next()?);
        let mount_point = path(fields.next()?);
        let options = fields.next()?.to_owned();
        let propagation = propagation(&mut fields)?;
        let filesystem = text(fields.next()?);
        let source = OsString::from_vec(unescaped(fields.next()?));
        // Some file systems print their options unescaped.
        let super_options = fields.collect::<Vec<_>>().join(" ");
        let device = (major.parse().ok()?, minor.parse().ok()?);
        if !mount_point.is_absolute() || super_options.is_empty() {
            return None;
        }
        Some(Self {
            id,
            parent,
            device,
            root,
            mount_point,
            options,
            propagation,
            filesystem,
            source,
            super_options,
        })
    }

    /// What a remount in a new user namespace has to repeat.
    #[must_use]
    pub fn locked_flags(&self) -> MountFlags {
        MountFlags::parse(&self.options)
    }

    /// Whether nothing can be written here, be it the mount or its file system that is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        [&self.options, &self.super_options].iter().any(|options| options.split(',').any(|o| o == "ro"))
    }
}

/// The optional fields up to the lone `-`, which ends them.
fn propagation(fields: &mut Split<'_, char>) -> Option<Propagation> {
    let mut found = Propagation::default();
    for field in fields {
        match field.split_once(':') {
            None if field == "-" => return Some(found),
            None if field == "unbindable" => found.unbindable = true,
            Some(("shared", group)) => found.shared = group.parse().ok(),
            Some(("master", group)) => found.master = group.parse().ok(),
            Some(("propagate_from", group)) => found.propagate_from = group.parse().ok(),
            // proc_pid_mountinfo(5): parsers should ignore fields that they do not know.
            _ => {}
        }
    }
    None
}

/// All mounts that a process can reach from its root directory, in the order of the file.
///
/// See proc_pid_mountinfo(5). Mounts hidden below others are listed too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountTable {
    entries: Vec<MountEntry>,
    malformed: usize,
}

impl MountTable {
    /// Reads the text of mountinfo. Lines that cannot be understood are left out and counted.
    ///
    /// Mount points are bytes; what is not UTF-8 must come as `\ooo`, as [`Host::probe`](super::Host::probe) does it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match MountEntry::parse(line) {
                Some(entry) => table.entries.push(entry),
                None => table.malformed += 1,
            }
        }
        table
    }

    /// The mounts.
    #[must_use]
    pub fn entries(&self) -> &[MountEntry] {
        &self.entries
    }

    /// How many lines could not be understood.
    #[must_use]
    pub fn malformed(&self) -> usize {
        self.malformed
    }

    /// The mounts strictly below `path`, hidden ones included.
    pub fn below(&self, path: &Path) -> impl Iterator<Item = &MountEntry> {
        self.entries.iter().filter(move |e| e.mount_point != path && e.mount_point.starts_with(path))
    }

    /// The mounts that lie directly on the mount with this id.
    pub fn children(&self, id: u32) -> impl Iterator<Item = &MountEntry> {
        self.entries.iter().filter(move |entry| entry.parent == id && entry.id != id)
    }

    /// The mount whose root one sees at `path`: the topmost of those that are stacked there.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&MountEntry> {
        let stacked: Vec<&MountEntry> = self.entries.iter().filter(|e| e.mount_point == path).collect();
        // A moved mount is older than what it covers, so the order of the file does not tell; the parents do.
        let is_covered =
            |entry: &MountEntry| stacked.iter().any(|e| e.parent == entry.id && e.id != entry.id);
        stacked.iter().rev().find(|entry| !is_covered(entry)).copied()
    }

    /// Whether no path leads into this mount: another one covers it, what it lies on, or the way to it.
    #[must_use]
    pub fn is_hidden(&self, entry: &MountEntry) -> bool {
        if self.children(entry.id).any(|child| child.mount_point == entry.mount_point) {
            return true;
        }
        let mut at = entry;
        // Each round goes to a parent; a file that was read while mounts changed may have a circle.
        for _ in &self.entries {
            let Some(parent) = self.entries.iter().find(|other| other.id == at.parent && other.id != at.id)
            else {
                return false;
            };
            let is_in_the_way = |other: &MountEntry| {
                other.mount_point != at.mount_point && at.mount_point.starts_with(&other.mount_point)
            };
            if parent.mount_point != at.mount_point && self.children(parent.id).any(is_in_the_way) {
                return true;
            }
            at = parent;
        }
        false
    }

    /// The mount that `path`, absolute and without `..` and links, lies on.
    #[must_use]
    pub fn holding(&self, path: &Path) -> Option<&MountEntry> {
        path.ancestors().find_map(|ancestor| self.at(ancestor))
    }
}

fn path(field: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescaped(field)))
}

fn text(field: &str) -> String {
    String::from_utf8_lossy(&unescaped(field)).into_owned()
}

/// Undoes the kernel's escape: a backslash and three octal digits stand for a byte.
fn unescaped(field: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, octal(tail)) {
            (b'\\', Some((escaped, after))) => {
                out.push(escaped);
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// The byte that three octal digits at the start of `digits` stand for, and what follows them.
fn octal(digits: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, middle, low], after) = digits.split_first_chunk::<3>()?;
    let is_byte = matches!(high, b'0'..=b'3') && [middle, low].iter().all(|d| matches!(d, b'0'..=b'7'));
    if is_byte { Some(((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'), after)) } else { None }
}
