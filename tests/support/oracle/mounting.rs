//! The imagined kernel's calls on mounts: by descriptors, and by mount(2).

use super::{AT_RECURSIVE, Answer, Kernel, Node, Reach, small};
use crate::oracle::tree::{Attached, Fs, Place, What};

/// `MS_RDONLY`, `MS_NOSUID`, `MS_NODEV`, `MS_NOEXEC`: the values of their `MOUNT_ATTR_*`.
const IMMUTABLE: u64 = 0xf;

impl Kernel {
    pub(super) fn file_system(&mut self, nr: i64, args: [u64; 6]) -> Answer {
        if nr == libc::SYS_fsopen {
            let kind = self.text(args[0]);
            return self.open(Node::Context(Fs { kind, options: Vec::new() }));
        }
        let mut fs = match self.node(args[0])? {
            Node::Context(fs) => fs,
            other => return self.misused("fsconfig", &other),
        };
        if nr == libc::SYS_fsmount {
            let attributes = args[2];
            return self.open(Node::Detached { what: What::Fresh(fs), attributes, recursive: false });
        }
        // FSCONFIG_SET_FLAG, SET_STRING; CMD_CREATE changes nothing here.
        if args[1] < 2 {
            fs.options.push((self.text(args[2]), self.text(args[3])));
            self.fds.insert(small(args[0]), Node::Context(fs));
        }
        Ok(0)
    }

    pub(super) fn copy_tree(&mut self, args: [u64; 6]) -> Answer {
        let recursive = args[2] & AT_RECURSIVE != 0;
        let node = self.node(args[0])?;
        let (what, attributes) = self.source(&node);
        self.open(Node::Detached { what, attributes, recursive })
    }

    /// What a copy of this is, and what restricts it.
    fn source(&self, node: &Node) -> (What, u64) {
        match node {
            Node::Masks => (What::Masks, self.tree.masks.unwrap_or(0)),
            Node::Host(path) => (What::Host(path.clone()), 0),
            Node::Place(place) => {
                let inherited = place.mount.map_or(0, |mount| self.tree.attached[mount].attributes);
                (What::Inside(place.path.clone()), inherited)
            }
            _ => (What::Host(String::new()), 0),
        }
    }

    pub(super) fn restrict(&mut self, fd: i32, set: u64, reach: Reach) -> Answer {
        let node = self.fds.get_mut(&fd).ok_or(libc::EBADF)?;
        match node {
            Node::Detached { attributes, recursive: whole, .. } => {
                // A recursive copy is restricted only with what is below.
                if reach == Reach::Whole || !*whole {
                    *attributes |= set;
                }
                Ok(0)
            }
            Node::Masks => {
                self.tree.masks = self.tree.masks.map(|had| had | set);
                Ok(0)
            }
            Node::Place(place) => {
                let place = place.clone();
                self.tree.restrict(&place, set).map(|()| 0)
            }
            other => {
                let other = other.clone();
                self.misused("restricting", &other)
            }
        }
    }

    fn attach(&mut self, to: &Place, (what, attributes, recursive): (What, u64, bool)) -> Option<usize> {
        let at = self.events.len();
        if to.path.is_empty() {
            self.tree.masks = Some(attributes);
            return None;
        }
        let below = if recursive { what.below() } else { Vec::new() };
        self.tree.attached.push(Attached {
            path: to.path.clone(),
            // A detached tree was restricted as a whole, or not at all.
            below: below.into_iter().map(|name| (name, attributes)).collect(),
            what,
            recursive,
            born: attributes,
            attributes,
            at,
        });
        Some(self.tree.attached.len() - 1)
    }

    pub(super) fn move_mount(&mut self, args: [u64; 6]) -> Answer {
        let from = small(args[0]);
        let tree = match self.node(args[0])? {
            Node::Detached { what, attributes, recursive } => (what, attributes, recursive),
            other => return self.misused("move_mount", &other),
        };
        if small(args[2]) == libc::AT_FDCWD {
            self.tree.set_root(tree.0, tree.1, "/");
            self.fds.insert(from, Node::Place(Place::default()));
            return Ok(0);
        }
        let to = match self.node(args[2])? {
            Node::Place(place) => place,
            other => return self.misused("move_mount to", &other),
        };
        let mount = self.attach(&to, tree);
        let node = if mount.is_none() { Node::Masks } else { Node::Place(Place { path: to.path, mount }) };
        self.fds.insert(from, node);
        Ok(0)
    }

    pub(super) fn mount(&mut self, args: [u64; 6]) -> Answer {
        let (source, target, flags) = (self.text(args[0]), self.text(args[1]), args[3]);
        if flags & libc::MS_PRIVATE != 0 {
            return Ok(0);
        }
        if flags & libc::MS_REMOUNT != 0 {
            let number = target.strip_prefix("/proc/self/fd/").and_then(|number| number.parse().ok());
            return self.restrict(number.unwrap_or(-1), flags & IMMUTABLE, Reach::One);
        }
        let tree = if flags & libc::MS_BIND != 0 {
            let node = self.by_path(&source)?;
            let (what, attributes) = self.source(&node);
            (what, attributes, flags & libc::MS_REC != 0)
        } else {
            let options = self.text(args[4]);
            let pair = |one: &str| {
                let (key, value) = one.split_once('=').unwrap_or((one, ""));
                (key.to_owned(), value.to_owned())
            };
            let options = options.split(',').filter(|one| !one.is_empty()).map(pair).collect();
            (What::Fresh(Fs { kind: self.text(args[2]), options }), flags & IMMUTABLE, false)
        };
        match self.by_path(&target)? {
            Node::Host(path) => {
                self.tree.set_root(tree.0, tree.1, &path);
                Ok(0)
            }
            Node::Place(place) => {
                self.attach(&place, tree);
                Ok(0)
            }
            other => self.misused("mount on", &other),
        }
    }
}
