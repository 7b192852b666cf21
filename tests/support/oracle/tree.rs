//! The mount tree of the imagined kernel: what is attached where, what was made in it, and what can be seen of that.

use super::names;

/// A file system that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fs {
    pub(crate) kind: String,
    pub(crate) options: Vec<(String, String)>,
}

impl Fs {
    pub(crate) fn has(&self, key: &str, value: &str) -> bool {
        self.options.iter().any(|(k, v)| k == key && v == value)
    }
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Fresh(Fs),
    /// A tree that the caller passed, by its name in errors.
    Passed(String),
    /// A path of the host that the child opened.
    Host(String),
    /// A part of the new tree once more.
    Inside(Vec<String>),
    /// An entry of the file system of masks.
    Masks,
}

/// A mount below the new root.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) path: Vec<String>,
    pub(crate) what: What,
    pub(crate) recursive: bool,
    /// `MOUNT_ATTR_*` at the moment of the attaching, and since.
    pub(crate) born: u64,
    pub(crate) attributes: u64,
    /// The mounts of the host below the source that came with it, by their names, with `MOUNT_ATTR_*`.
    pub(crate) below: Vec<(Vec<String>, u64)>,
    /// The number of the call.
    pub(crate) at: usize,
}

/// Something that was made in a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory(u64),
    File,
    Link(String),
    Written(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) path: Vec<String>,
    /// The mount that it lies in.
    pub(crate) mount: Option<usize>,
    pub(crate) entry: Entry,
    pub(crate) at: usize,
}

/// A place below the new root, and the mount that was seen there when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: Vec<String>,
    pub(crate) mount: Option<usize>,
}

impl Place {
    pub(crate) fn join(&self, name: &str) -> Vec<String> {
        [self.path.clone(), names(name)].concat()
    }
}

/// The masks' file system at the root's own path.
pub(crate) const MASKS: u8 = 1;

/// What the new root stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Empty,
    Host,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    ground: Ground,
    /// What the root is, and its attributes.
    pub(crate) root: Option<(What, u64)>,
    /// The host's path that it was mounted over.
    over: String,
    /// The attributes of the masks' file system while it is there.
    pub(crate) masks: Option<u64>,
    pub(crate) attached: Vec<Attached>,
    pub(crate) made: Vec<Made>,
    pub(crate) pivoted: Option<usize>,
}

/// Where the host has mounts, below directories that policies take.
pub(crate) const SUBMOUNTS: [&str; 3] = ["/proc", "/usr/lib", "/a/b"];

impl What {
    /// The mounts below this that come with a recursive bind of it.
    pub(crate) fn below(&self) -> Vec<Vec<String>> {
        let (Self::Host(path) | Self::Passed(path)) = self else { return Vec::new() };
        let source = names(path);
        let below = SUBMOUNTS.iter().map(|path| names(path)).filter(|path| path.len() > source.len());
        below.filter(|path| path.starts_with(&source)).map(|path| path[source.len()..].to_vec()).collect()
    }
}

impl Tree {
    pub(crate) fn new(ground: Ground) -> Self {
        Self {
            ground,
            root: None,
            over: String::new(),
            masks: None,
            attached: Vec::new(),
            made: Vec::new(),
            pivoted: None,
        }
    }

    pub(crate) fn set_root(&mut self, what: What, attributes: u64, over: &str) {
        self.root = Some((what, attributes));
        over.clone_into(&mut self.over);
    }

    /// What a path of the host leads to where something of the new root is mounted over it.
    pub(crate) fn at_host_path(&self, path: &str) -> Option<u8> {
        let covered = self.root.is_some() && self.over == path && path != "/";
        covered.then_some(if self.masks.is_some() { MASKS } else { 0 })
    }

    /// The mount that is seen at a path: the last one attached on the way.
    fn seen(&self, path: &[String]) -> Option<usize> {
        self.attached.iter().rposition(|mount| path.starts_with(&mount.path))
    }

    pub(crate) fn place(&self, path: Vec<String>) -> Place {
        Place { mount: self.seen(&path), path }
    }

    fn entry(&self, path: &[String]) -> Option<&Entry> {
        let mount = self.seen(path);
        let made = self.made.iter().rev().find(|made| made.path == path && made.mount == mount);
        made.map(|made| &made.entry)
    }

    /// Whether a path can be opened: its errno where not.
    pub(crate) fn look(&self, path: &[String]) -> Result<(), i32> {
        for length in 1..=path.len() {
            let part = &path[..length];
            let seen = self.seen(part);
            let root_of_mount = seen.is_some_and(|mount| self.attached[mount].path == part);
            if root_of_mount {
                continue;
            }
            let whole = length == path.len();
            match (self.entry(part), seen.map(|mount| &self.attached[mount].what)) {
                (Some(Entry::Directory(_)), _) => {}
                (Some(Entry::Link(_)), _) => return Err(libc::ELOOP),
                (Some(Entry::File | Entry::Written(_)), _) if whole => {}
                (Some(_), _) => return Err(libc::ENOTDIR),
                // What is of the host may have anything in it.
                (None, Some(What::Fresh(fs))) if fs.kind == "tmpfs" => return Err(libc::ENOENT),
                (None, Some(What::Masks)) => return Err(libc::ENOENT),
                (None, None) if self.ground == Ground::Empty => return Err(libc::ENOENT),
                (None, _) => {}
            }
        }
        Ok(())
    }

    pub(crate) fn make(&mut self, path: &[String], entry: Entry, at: usize) -> Result<(), i32> {
        let Some((_, above)) = path.split_last() else { return Err(libc::EEXIST) };
        self.look(above)?;
        if self.look(path) != Err(libc::ENOENT) {
            return Err(libc::EEXIST);
        }
        let mount = self.seen(above);
        self.made.push(Made { path: path.to_vec(), mount, entry, at });
        Ok(())
    }

    pub(crate) fn written(&mut self, path: &[String], length: u64, at: usize) {
        let mount = self.seen(path);
        self.made.push(Made { path: path.to_vec(), mount, entry: Entry::Written(length), at });
    }

    /// Restricts the mount whose root is open: `EINVAL` where it is no root of one.
    pub(crate) fn restrict(&mut self, place: &Place, set: u64) -> Result<(), i32> {
        match place.mount {
            None if place.path.is_empty() => {
                self.root = self.root.take().map(|(what, had)| (what, had | set));
                Ok(())
            }
            Some(mount) if self.attached[mount].path == place.path => {
                self.attached[mount].attributes |= set;
                Ok(())
            }
            Some(mount) => {
                let Attached { path, below, what, .. } = &mut self.attached[mount];
                let relative = &place.path[path.len()..];
                match below.iter_mut().find(|(name, _)| name == relative) {
                    Some((_, attributes)) => *attributes |= set,
                    // A part of a tree that is there once more: what is below is not imagined.
                    None if matches!(what, What::Inside(_)) => {}
                    None => return Err(libc::EINVAL),
                }
                Ok(())
            }
            None => Err(libc::EINVAL),
        }
    }
}
