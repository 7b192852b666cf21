//! The processes of a running sandbox, looked at from outside: which there are, and a signal to all of them. It must not take
//! a process for one of the sandbox that is not.
//!
//! What is read of a process is read through one descriptor of its directory in /proc. That stays with the process: once it
//! is gone the reads fail, even if its pid is another's by then. And the same descriptor says to which group, or to which
//! pid namespace, the process belongs.

mod info;
mod signal;

pub use info::{ProcessInfo, ProcessRole, ProcessState};

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::child::Child;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::spawn::{Group, Running};
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

impl Entry {
    fn open(pid: i32) -> Option<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(Path::new(&format!("/proc/{pid}")), flags, Mode::empty()).ok()?;
        let dir = if dir.as_raw_fd() > 2 { dir } else { sys::duplicate(dir.as_raw_fd(), 3).ok()? };
        Some(Self { pid, dir })
    }

    /// What a file says; `None` once the process is gone.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn text(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.read(name)?).into_owned())
    }

    fn pid_namespace(&self) -> Option<PathBuf> {
        readlinkat(&self.dir, "ns/pid").ok().map(PathBuf::from)
    }

    fn parent(&self) -> Option<i32> {
        let stat = self.text("stat")?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    fn children(&self) -> Vec<i32> {
        let Ok(threads) = fs::read_dir(format!("/proc/self/fd/{}/task", self.dir.as_raw_fd())) else {
            return Vec::new();
        };
        let texts =
            threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
        texts
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }
}

impl Membership<'_> {
    fn of(running: &Running) -> Result<Membership<'_>> {
        if let Some(group) = running.parent.group().filter(|group| group.any_path().is_some()) {
            return Ok(Membership::Group(group));
        }
        let own = fs::read_link("/proc/self/ns/pid").map_err(|error| {
            let error = error.raw_os_error().unwrap_or(libc::EIO);
            Error::new(ErrorKind::Process, Step::Observe, PathBuf::from("/proc/self/ns/pid"))
                .call("readlink", error)
        })?;
        let init = Entry::open(running.parent.pid()).and_then(|init| init.pid_namespace());
        Ok(match init {
            Some(inside) if inside != own => Membership::Namespace(inside),
            Some(_) | None => Membership::Descent,
        })
    }

    /// Pids that may belong to it.
    fn candidates(&self, init: i32) -> BTreeSet<i32> {
        let mut found: BTreeSet<i32> = match self {
            // Zombies are not in the group's file, and still their parents' children.
            Self::Group(group) => group.processes(),
            Self::Namespace(inside) => everybody()
                .filter(|pid| {
                    let namespace = Entry::open(*pid).and_then(|entry| entry.pid_namespace());
                    namespace.is_some_and(|namespace| namespace == *inside)
                })
                .collect(),
            Self::Descent => BTreeSet::new(),
        };
        // Who is in a pid namespace below has an ancestor in the sandbox's.
        let mut open: Vec<i32> = found.iter().copied().chain([init]).collect();
        while let Some(pid) = open.pop() {
            found.insert(pid);
            let children = Entry::open(pid).map(|entry| entry.children()).unwrap_or_default();
            open.extend(children.into_iter().filter(|child| !found.contains(child)));
        }
        found
    }

    /// Whether the process belongs to it now. A zombie has left its namespaces and groups of version 1, and one in a pid
    /// namespace below has another: they belong to it as their parents do.
    fn holds(&self, entry: &Entry, init: i32, hops: usize) -> bool {
        let itself = match self {
            Self::Group(group) => entry.text("cgroup").is_some_and(|text| group.is_named_in(&text)),
            Self::Namespace(inside) => entry.pid_namespace().is_some_and(|namespace| namespace == *inside),
            Self::Descent => entry.pid == init,
        };
        if itself || hops == 0 {
            return itself;
        }
        let parent = entry.parent().filter(|parent| *parent > 0);
        let Some(above) = parent.and_then(Entry::open) else { return false };
        // Its parent still, and so what was opened was the parent and not another process by that pid.
        self.holds(&above, init, hops - 1) && entry.parent() == parent
    }
}

fn everybody() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The processes of a sandbox at one moment, each with the open directory.
fn list(running: &Running) -> Result<Vec<(Entry, ProcessInfo)>> {
    let init = running.parent.pid();
    let membership = Membership::of(running)?;
    // Who attends to a command that joined is outside of the sandbox's pid namespace.
    let first = running.site.as_ref().map_or(init, |site| site.first());
    let depth = Entry::open(first).and_then(|entry| entry.text("status"));
    let depth = depth.map_or(usize::MAX, |status| info::namespace_pids(&status).len());
    let mut list = Vec::new();
    for pid in membership.candidates(init) {
        // It may have ended meanwhile.
        let Some(entry) = Entry::open(pid) else { continue };
        let Some(mut info) = info::read(&entry, depth) else { continue };
        if !membership.holds(&entry, init, HOPS) {
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
    /// Where this process has no `/proc` of its own pid namespace.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>> {
        if self.running.parent.ended(0)? {
            return Ok(Vec::new());
        }
        Ok(list(&self.running)?.into_iter().map(|(_, info)| info).collect())
    }
}
