//! The processes of a running sandbox, looked at from outside: which there are, and a signal to all of them. It must not take
//! a process for one of the sandbox that is not.
//!
//! What is read of a process is read through one descriptor of its directory in /proc. That stays with the process: once it
//! is gone the reads fail, even if its pid is another's by then. And the same descriptor says to which group, or to which
//! pid namespace, the process belongs.

mod info;
mod signal;

pub use info::{ProcessInfo, ProcessRole, ProcessState};
pub(crate) use info::{arguments as process_arguments, parse as process_info};

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::result::Result as StdResult;

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::child::Child;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::{Group, Running, Unseen, children_of, entries, io_there, there};
use crate::sys;

/// Ancestors that are looked at.
const HOPS: usize = 64;

/// How one knows that a process belongs to a sandbox.
#[derive(Debug)]
enum Membership<'g> {
    /// It is in the sandbox's group, or in one below.
    Group(&'g Group),
    /// It is in a pid namespace with this name, or descends from one that is.
    Namespace(PathBuf),
    /// It descends from the sandbox's first process. Orphans that left it are not known.
    Descent,
}

/// The directory of one process in /proc.
#[derive(Debug)]
struct Entry {
    pid: i32,
    dir: OwnedFd,
}

/// What was seen, or nothing of what is gone.
type Seen<T> = StdResult<Option<T>, Unseen>;

impl Entry {
    fn open(pid: i32) -> Seen<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let path = PathBuf::from(format!("/proc/{pid}"));
        let opened = open(&path, flags, Mode::empty()).map_err(|errno| errno as i32);
        let Some(dir) = there(&path, "open", opened)? else { return Ok(None) };
        let dir = if dir.as_raw_fd() > 2 { Ok(dir) } else { sys::duplicate(dir.as_raw_fd(), 3) };
        Ok(there(&path, "fcntl", dir)?.map(|dir| Self { pid, dir }))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// What a file says.
    fn read(&self, name: &str) -> Seen<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let opened = openat(&self.dir, name, flags, Mode::empty()).map_err(|errno| errno as i32);
        let Some(file) = there(&self.path(name), "openat", opened)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = File::from(file).read_to_end(&mut bytes);
        Ok(io_there(&self.path(name), "read", read)?.map(|_| bytes))
    }

    fn text(&self, name: &str) -> Seen<String> {
        Ok(self.read(name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn pid_namespace(&self) -> Seen<PathBuf> {
        match readlinkat(&self.dir, "ns/pid").map_err(|errno| errno as i32) {
            // Of somebody else, and so of no sandbox of this process.
            Err(libc::EACCES | libc::EPERM) => Ok(None),
            name => Ok(there(&self.path("ns/pid"), "readlinkat", name)?.map(PathBuf::from)),
        }
    }

    fn parent(&self) -> Seen<i32> {
        let parent = |stat: String| stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok();
        Ok(self.text("stat")?.and_then(parent))
    }

    fn children(&self) -> StdResult<Vec<i32>, Unseen> {
        let directory = format!("/proc/self/fd/{}", self.dir.as_raw_fd());
        children_of(Path::new(&directory), usize::MAX).map_err(|unseen| unseen.named(self.path("task")))
    }
}

impl Membership<'_> {
    fn of(running: &Running) -> Result<Membership<'_>> {
        if running.parent.is_worker() {
            // The namespace is its server's and its siblings' too.
            return Ok(Membership::Descent);
        }
        if let Some(group) = running.parent.group().filter(|group| group.any_path().is_some()) {
            return Ok(Membership::Group(group));
        }
        let own = fs::read_link("/proc/self/ns/pid").map_err(|error| {
            let error = error.raw_os_error().unwrap_or(libc::EIO);
            Error::new(ErrorKind::Process, Step::Observe, PathBuf::from("/proc/self/ns/pid"))
                .call("readlink", error)
        })?;
        let init = match Entry::open(running.parent.pid()).map_err(unseen)? {
            Some(init) => init.pid_namespace().map_err(unseen)?,
            None => None,
        };
        Ok(match init {
            Some(inside) if inside != own => Membership::Namespace(inside),
            Some(_) | None => Membership::Descent,
        })
    }

    /// Pids that may belong to it.
    fn candidates(&self, init: i32) -> StdResult<BTreeSet<i32>, Unseen> {
        let mut found = match self {
            // Zombies are not in the group's file, and still their parents' children.
            Self::Group(group) => group.processes()?,
            Self::Namespace(inside) => everybody_in(inside)?,
            Self::Descent => BTreeSet::new(),
        };
        // Who is in a pid namespace below has an ancestor in the sandbox's.
        let mut open: Vec<i32> = found.iter().copied().chain([init]).collect();
        while let Some(pid) = open.pop() {
            found.insert(pid);
            let children = Entry::open(pid)?.map_or(Ok(Vec::new()), |entry| entry.children())?;
            open.extend(children.into_iter().filter(|child| !found.contains(child)));
        }
        Ok(found)
    }

    /// Whether the process belongs to it now. A zombie has left its namespaces and groups of version 1, and one in a pid
    /// namespace below has another: they belong to it as their parents do.
    fn holds(&self, entry: &Entry, init: i32, hops: usize) -> StdResult<bool, Unseen> {
        let itself = match self {
            Self::Group(group) => entry.text("cgroup")?.is_some_and(|text| group.is_named_in(&text)),
            Self::Namespace(inside) => entry.pid_namespace()?.is_some_and(|namespace| namespace == *inside),
            Self::Descent => entry.pid == init,
        };
        if itself || hops == 0 {
            return Ok(itself);
        }
        let parent = entry.parent()?.filter(|parent| *parent > 0);
        let above = match parent {
            Some(parent) => Entry::open(parent)?,
            None => None,
        };
        let Some(above) = above else { return Ok(false) };
        // Its parent still, and so what was opened was the parent and not another process by that pid.
        Ok(self.holds(&above, init, hops - 1)? && entry.parent()? == parent)
    }
}

fn unseen(unseen: Unseen) -> Error {
    unseen.error(Step::Observe)
}

/// Every process of /proc in this pid namespace.
fn everybody_in(inside: &Path) -> StdResult<BTreeSet<i32>, Unseen> {
    let mut found = BTreeSet::new();
    for entry in entries(Path::new("/proc"))? {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let entry = pid.map_or(Ok(None), Entry::open)?;
        let namespace = entry.map_or(Ok(None), |entry| entry.pid_namespace())?;
        if namespace.is_some_and(|namespace| namespace == *inside) {
            found.extend(pid);
        }
    }
    Ok(found)
}

/// The processes of a sandbox at one moment, each with the open directory.
fn list(running: &Running) -> Result<Vec<(Entry, ProcessInfo)>> {
    let init = running.parent.pid();
    let membership = Membership::of(running)?;
    // Who attends to a command that joined is outside of the sandbox's pid namespace.
    let first = running.site.as_ref().map_or(init, |site| site.first());
    let first = Entry::open(first).map_err(unseen)?;
    let depth = first.map_or(Ok(None), |entry| entry.text("status")).map_err(unseen)?;
    let depth = depth.map_or(usize::MAX, |status| info::namespace_pids(&status).len());
    let mut list = Vec::new();
    for pid in membership.candidates(init).map_err(unseen)? {
        // It may have ended meanwhile.
        let Some(entry) = Entry::open(pid).map_err(unseen)? else { continue };
        let Some(mut info) = info::read(&entry, depth).map_err(unseen)? else { continue };
        if !membership.holds(&entry, init, HOPS).map_err(unseen)? {
            continue;
        }
        info.role = match pid {
            _ if pid == running.program => ProcessRole::Program,
            _ if pid == init && running.site.is_none() => ProcessRole::Init,
            // This process has no other children inside.
            _ if info.parent == process::id() => ProcessRole::Attendant,
            _ => ProcessRole::Other,
        };
        list.push((entry, info));
    }
    Ok(list)
}

impl Child {
    /// The processes inside now, init included, by their pids. One that ends meanwhile may be missing, and one that is made
    /// meanwhile; none is of somebody else.
    ///
    /// With a group it is what the kernel says is in it, and zombies. Without one: what is in the sandbox's pid namespace, for which all
    /// of /proc is looked at, and what descends from that; and with neither (a choice of the policy), what descends from the
    /// sandbox's first process. Empty once everything has ended.
    ///
    /// # Errors
    /// Where this process has no `/proc` of its own pid namespace; where something of it cannot be read, as for want of a
    /// descriptor.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        if self.running.parent.ended(0)? {
            return Ok(Vec::new());
        }
        Ok(list(&self.running)?.into_iter().map(|(_, info)| info).collect())
    }
}
