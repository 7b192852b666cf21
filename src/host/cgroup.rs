//! The control groups that the caller is in, and where it may make others. It must not make one, nor write to any file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::answer::Answer;
use super::mountinfo::{MountEntry, MountTable};
use super::read;
use crate::sys;

/// Prefix of the leaf that a caller is moved to, see [`crate::Builder::manage_own_cgroup`].
pub(crate) const LEAF: &str = "ringfence-leaf-";

/// The control groups around the caller (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    /// The hierarchy of version 2, if one is mounted where the caller sees it.
    pub unified: Option<Unified>,
    /// The hierarchies of version 1, one for each mounted.
    pub legacy: Vec<Legacy>,
}

/// The hierarchy of version 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unified {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The caller's own group, then those above it, up to the mount; empty where the caller's group cannot be seen there.
    pub groups: Vec<UnifiedGroup>,
}

/// A group of version 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnifiedGroup {
    /// Its directory.
    pub directory: PathBuf,
    /// `cgroup.controllers`: what can be enabled for the groups in it.
    pub controllers: Vec<String>,
    /// `cgroup.subtree_control`: what is enabled for them.
    pub enabled: Vec<String>,
    /// Whether the caller may make groups in it, and move processes.
    pub access: Answer,
    /// Whether it was given to the caller: it belongs to the caller's uid, which is not 0, or carries systemd's mark
    /// (`user.delegate`, systemd.resource-control(5), "Delegate=").
    pub delegated: Answer,
    /// Whether it is the root of the hierarchy itself, which may hold processes beside groups.
    pub root: Answer,
}

/// A hierarchy of version 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Legacy {
    /// Its controllers, such as `cpu` and `cpuacct`; a hierarchy with a name alone has none.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The directory of the caller's own group; `None` where it cannot be seen.
    pub own: Option<PathBuf>,
    /// Whether the caller may make groups in it.
    pub access: Answer,
}

/// What a look at one directory shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) controllers: Option<String>,
    pub(super) enabled: Option<String>,
    pub(super) access: Answer,
    pub(super) delegated: Answer,
    pub(super) root: Answer,
}

impl Cgroups {
    /// From the texts of /proc/PID/cgroup and mountinfo alone: what is in the directories is unknown.
    #[must_use]
    pub fn parse(cgroup: &str, mounts: &MountTable) -> Self {
        Self::with(cgroup, mounts, &|_| Seen::default())
    }

    pub(super) fn with(cgroup: &str, mounts: &MountTable, look: &dyn Fn(&Path) -> Seen) -> Self {
        let mut found = Self::default();
        for (controllers, path) in cgroup.lines().filter_map(line) {
            if controllers.is_empty() {
                found.unified = found.unified.or_else(|| unified(path, mounts, look));
            } else if let Some(legacy) = legacy(controllers, path, mounts, look) {
                found.legacy.push(legacy);
            }
        }
        found
    }

    /// The hierarchy of version 1 that has this controller.
    #[must_use]
    pub fn legacy_with(&self, controller: &str) -> Option<&Legacy> {
        self.legacy.iter().find(|legacy| legacy.controllers.iter().any(|own| own == controller))
    }

    /// Looks at this machine.
    pub(super) fn probe(cgroup: Option<&str>, mounts: Option<&MountTable>) -> Self {
        cgroup.zip(mounts).map(|(text, mounts)| Self::with(text, mounts, &look)).unwrap_or_default()
    }
}

/// `ID:CONTROLLERS:PATH`, see cgroups(7). Of a group that was removed the path says nothing.
fn line(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    path.starts_with('/').then_some((controllers, path))
}

/// Where the group `path` lies below a mount of its hierarchy. Without a cgroup namespace a container's mount shows only a
/// part of the tree, while the path is whole; in one, a group outside it has a path that begins with `/..`.
pub(super) fn directory(mount: &MountEntry, path: &str) -> Option<PathBuf> {
    if path.split('/').any(|part| part == "..") || path.ends_with(" (deleted)") {
        return None;
    }
    // Of a root that is no path nothing is below; joined, an absolute path would lead elsewhere.
    let below = Path::new(path).strip_prefix(&mount.root).ok().filter(|below| below.is_relative())?;
    Some(mount.mount_point.components().chain(below.components()).collect())
}

/// Mounts of a hierarchy, those first that can be written to.
fn mounts_of<'m>(mounts: &'m MountTable, is_one: &dyn Fn(&MountEntry) -> bool) -> Vec<&'m MountEntry> {
    let mut all: Vec<&MountEntry> = mounts.entries().iter().filter(|entry| is_one(entry)).collect();
    all.sort_by_key(|entry| entry.is_read_only());
    all
}

fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn unified(path: &str, mounts: &MountTable, look: &dyn Fn(&Path) -> Seen) -> Option<Unified> {
    let all = mounts_of(mounts, &|entry| entry.filesystem == "cgroup2");
    let own = all.iter().find_map(|mount| Some((*mount, directory(mount, path)?)));
    let Some((mount, own)) = own else {
        let mount = all.first()?.mount_point.clone();
        return Some(Unified { mount, groups: Vec::new() });
    };
    let above = own.ancestors().take_while(|directory| directory.starts_with(&mount.mount_point));
    let groups = above.map(|directory| {
        let seen = look(directory);
        UnifiedGroup {
            directory: directory.to_path_buf(),
            controllers: words(seen.controllers.as_deref()),
            enabled: words(seen.enabled.as_deref()),
            access: seen.access,
            delegated: seen.delegated,
            root: seen.root,
        }
    });
    Some(Unified { mount: mount.mount_point.clone(), groups: groups.collect() })
}

fn legacy(
    controllers: &str,
    path: &str,
    mounts: &MountTable,
    look: &dyn Fn(&Path) -> Seen,
) -> Option<Legacy> {
    let has = |entry: &MountEntry, name: &str| entry.super_options.split(',').any(|option| option == name);
    let is_one = |entry: &MountEntry| {
        entry.filesystem == "cgroup" && controllers.split(',').all(|name| has(entry, name))
    };
    let all = mounts_of(mounts, &is_one);
    let first = all.first()?;
    let own = all.iter().find_map(|mount| Some((*mount, directory(mount, path)?)));
    let names = controllers.split(',').filter(|name| !name.starts_with("name="));
    Some(Legacy {
        controllers: names.map(str::to_owned).collect(),
        mount: own.as_ref().map_or(first, |(mount, _)| mount).mount_point.clone(),
        access: own.as_ref().map_or(Answer::No, |(_, own)| look(own).access),
        own: own.map(|(_, own)| own),
    })
}

fn look(directory: &Path) -> Seen {
    let text = |name: &str| read::text(directory.join(name).to_str()?);
    // The root has no cgroup.type (the kernel's admin-guide/cgroup-v2), and neither has version 1.
    let root = directory.join("cgroup.type").try_exists().ok().map(|is_there| !is_there);
    Seen {
        controllers: text("cgroup.controllers"),
        enabled: text("cgroup.subtree_control"),
        access: access(directory),
        delegated: delegated(directory),
        root: root.into(),
    }
}

/// By the effective ids, as the writes will be.
fn access(directory: &Path) -> Answer {
    for path in [directory, &directory.join("cgroup.procs")] {
        match faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS) {
            Ok(()) => {}
            Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => return Answer::No,
            Err(_) => return Answer::Unknown,
        }
    }
    Answer::Yes
}

fn delegated(directory: &Path) -> Answer {
    let own = geteuid().as_raw();
    let is_own = own != 0 && fs::metadata(directory).is_ok_and(|file| file.uid() == own);
    let marks = [c"user.delegate", c"trusted.delegate"];
    let marked = marks.iter().any(|name| sys::attribute_is(directory, name, b"1") == Ok(true));
    Answer::from(Some(is_own || marked))
}
