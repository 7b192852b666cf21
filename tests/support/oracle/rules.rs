//! What has to be there where a run has reached its end: every required item, in the user's order, as tight as it was asked
//! for, and nothing beside.

use ringfence::host::Features;
use ringfence::internals::{Found, Linked};
use ringfence::{
    Access, Bind, Execution, Mount, MountKind, Namespaces, Plan, Policy, ProcRung, Submounts, Tmpfs,
};

use super::kernel::{Event, Kernel};
use super::spec::{Spec, source_name};
use super::tree::{Attached, Entry, Fs, What};
use super::{names, process};

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;

/// Of runtime-spec's config-linux.md: what nobody inside writes to, and what nobody inside sees.
const READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
const HIDDEN: [&str; 5] = ["kcore", "keys", "timer_list", "sched_debug", "acpi"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Everything about one run.
#[derive(Clone, Copy)]
pub(crate) struct Done<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) policy: &'a Policy,
    pub(crate) plan: &'a Plan,
    pub(crate) linked: &'a Linked,
    pub(crate) kernel: &'a Kernel,
    /// What was found at the source of each item of the tree.
    pub(crate) found: &'a [Option<Found>],
}

/// For each source of a plan the item that it belongs to, the root's own and a `/dev`'s to none.
pub(crate) fn owners(spec: &Spec, policy: &Policy) -> Vec<Option<usize>> {
    let mut owners = if spec.empty_root { Vec::new() } else { vec![None] };
    for (index, mount) in policy.mounts().iter().enumerate() {
        match mount.kind() {
            MountKind::Bind(_) | MountKind::Device => owners.push(Some(index)),
            MountKind::Dev => owners.extend([None; 6]),
            _ => {}
        }
    }
    owners
}

fn path_of(mount: &Mount) -> Vec<String> {
    names(&mount.target().to_string_lossy())
}

/// Whether everything above an item is the sandbox's own.
pub(crate) fn own_ground(spec: &Spec, policy: &Policy, item: usize) -> bool {
    let path = path_of(&policy.mounts()[item]);
    spec.empty_root
        && policy.mounts()[..item]
            .iter()
            .filter(|other| path_of(other) != path && path.starts_with(&path_of(other)))
            .all(|other| matches!(other.kind(), MountKind::Tmpfs(_) | MountKind::Directory(_)))
}

fn of_bind(bind: &Bind) -> u64 {
    let access = if bind.access == Access::ReadOnly { RDONLY } else { 0 };
    let execution = if bind.execution == Execution::Denied { NOEXEC } else { 0 };
    access | execution | NOSUID | NODEV
}

fn is_fresh<'a>(what: &'a What, kind: &str) -> Option<&'a Fs> {
    if let What::Fresh(fs) = what
        && fs.kind == kind
    {
        Some(fs)
    } else {
        None
    }
}

impl Done<'_> {
    /// What does not hold.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = self.kernel.wrong.clone();
        process::look(self, &mut broken);
        if self.plan.namespaces().contains(Namespaces::MOUNT) {
            self.items(&mut broken);
            self.nothing_beside(&mut broken);
            self.frame(&mut broken);
        }
        broken
    }

    pub(super) fn last(&self, nr: i64, holds: impl Fn(&Event) -> bool) -> Option<usize> {
        self.kernel.events.iter().rposition(|event| event.nr == nr && event.result >= 0 && holds(event))
    }

    fn required(&self, item: usize) -> bool {
        let own = self.policy.mounts().len() - self.spec.items.len();
        item.checked_sub(own).is_none_or(|index| self.spec.items[index].required)
    }

    /// Every required item, one behind the other.
    fn items(&self, broken: &mut Vec<String>) {
        let mut cursor = 0;
        for (index, mount) in self.policy.mounts().iter().enumerate() {
            match self.find(index, mount, cursor) {
                Ok(at) => cursor = cursor.max(at),
                Err(why) if self.required(index) => {
                    broken.push(format!("{why}: required, {mount:?}"));
                }
                Err(_) => {}
            }
        }
    }

    /// The call that made an item, not before `from`.
    fn find(&self, index: usize, mount: &Mount, from: usize) -> Result<usize, String> {
        let path = path_of(mount);
        let found = self.found.get(index).copied().flatten();
        match mount.kind() {
            MountKind::Bind(_) if found == Some(Found::Absent) => Ok(from),
            MountKind::Bind(_) if found == Some(Found::Symlink) => {
                self.made(&path, from, |entry| *entry == Entry::Link("usr/x".to_owned()))
            }
            MountKind::Bind(bind) => self.bind(&path, bind, from),
            MountKind::Tmpfs(tmpfs) => self.tmpfs(&path, tmpfs, from),
            MountKind::Directory(mode) => self
                .made(&path, from, |entry| *entry == Entry::Directory(u64::from(*mode)))
                .or_else(|why| if self.is_there(&path) { Ok(from) } else { Err(why) }),
            MountKind::Symlink(to) => {
                self.made(&path, from, |entry| *entry == Entry::Link(to.display().to_string()))
            }
            MountKind::File(file) if file.contents.is_empty() => self
                .made(&path, from, |entry| *entry == Entry::File)
                .or_else(|why| if self.is_there(&path) { Ok(from) } else { Err(why) }),
            MountKind::File(file) => {
                self.made(&path, from, |entry| *entry == Entry::Written(file.contents.len() as u64))
            }
            MountKind::Device => {
                let name = mount.target().display().to_string();
                self.attached(&path, from, NOSUID | NOEXEC, |mount| {
                    is_source(&mount.what, &name)
                        && (mount.attributes & NODEV == 0 || !name.starts_with("/dev/"))
                })
            }
            MountKind::Dev => self.dev(&path, from),
            MountKind::Proc(proc) => self.proc(&path, &proc.ladder, from),
            MountKind::Mask => self
                .attached(&path, from, RDONLY | NOSUID | NODEV | NOEXEC, |mount| mount.what == What::Masks),
            other => Err(format!("nobody knows how to look for {other:?}")),
        }
    }

    /// What the kernel said was there already.
    fn is_there(&self, path: &[String]) -> bool {
        self.kernel.refused.iter().any(|refused| refused.errno == libc::EEXIST && refused.path == path)
            || self.kernel.tree.made.iter().any(|made| made.path == path)
    }

    fn made(&self, path: &[String], from: usize, holds: impl Fn(&Entry) -> bool) -> Result<usize, String> {
        let made = self
            .kernel
            .tree
            .made
            .iter()
            .find(|made| made.path == path && made.at >= from && holds(&made.entry));
        made.map(|made| made.at).ok_or_else(|| "not made".to_owned())
    }

    fn attached(
        &self,
        path: &[String],
        from: usize,
        attributes: u64,
        holds: impl Fn(&Attached) -> bool,
    ) -> Result<usize, String> {
        let mut here = self
            .kernel
            .tree
            .attached
            .iter()
            .filter(|mount| mount.path == path && mount.at >= from && holds(mount));
        let tight = here.clone().find(|mount| mount.attributes & attributes == attributes);
        match (tight, here.next()) {
            (Some(mount), _) => Ok(mount.at),
            (None, Some(mount)) => {
                Err(format!("attached with {:#x}, wanted {attributes:#x}", mount.attributes))
            }
            (None, None) => Err("not attached".to_owned()),
        }
    }

    fn bind(&self, path: &[String], bind: &Bind, from: usize) -> Result<usize, String> {
        let (name, wanted) = (source_name(&bind.source), of_bind(bind));
        let detached = Features::MOUNT_API | Features::MOUNT_SETATTR;
        let at_once = self.spec.host.features().contains(detached);
        // Where the mounts of the host cannot be seen, the caller's look at the tree finds what is below.
        let seen = self.spec.host.mounts().is_some();
        self.attached(path, from, wanted, |mount| {
            is_source(&mount.what, &name)
                && mount.recursive == (bind.submounts == Submounts::Include)
                && (!at_once || mount.born & wanted == wanted)
                && (!seen || mount.below.iter().all(|(_, attributes)| attributes & wanted == wanted))
        })
    }

    fn tmpfs(&self, path: &[String], tmpfs: &Tmpfs, from: usize) -> Result<usize, String> {
        let (size, mode) = (tmpfs.size.to_string(), format!("{:04o}", tmpfs.mode));
        self.attached(path, from, NOSUID | NODEV, |mount| {
            is_fresh(&mount.what, "tmpfs").is_some_and(|fs| fs.has("size", &size) && fs.has("mode", &mode))
        })
    }

    fn dev(&self, path: &[String], from: usize) -> Result<usize, String> {
        let at = self.attached(path, from, RDONLY | NOSUID | NODEV, |mount| {
            is_fresh(&mount.what, "tmpfs").is_some()
        })?;
        let below = |name: &str| [path, &[name.to_owned()]].concat();
        for name in DEVICES {
            let host = format!("/dev/{name}");
            self.attached(&below(name), at, NOSUID | NOEXEC, |mount| is_source(&mount.what, &host))
                .map_err(|why| format!("{name}: {why}"))?;
        }
        self.attached(&below("pts"), at, NOSUID | NOEXEC, |mount| is_fresh(&mount.what, "devpts").is_some())?;
        self.attached(&below("shm"), at, NOSUID | NODEV | NOEXEC, |mount| {
            is_fresh(&mount.what, "tmpfs").is_some()
        })?;
        self.made(&below("stdin"), at, |entry| *entry == Entry::Link("/proc/self/fd/0".to_owned()))?;
        Ok(at)
    }

    fn proc(&self, path: &[String], ladder: &[ProcRung], from: usize) -> Result<usize, String> {
        let closed = NOSUID | NODEV | NOEXEC;
        let subset =
            |mount: &Attached| is_fresh(&mount.what, "proc").is_some_and(|fs| fs.has("subset", "pid"));
        let whole = |mount: &Attached| is_fresh(&mount.what, "proc").is_some() && !subset(mount);
        let hosts = |mount: &Attached| mount.what == What::Host("/proc".to_owned()) && mount.recursive;
        let mut why = "no rung was taken".to_owned();
        for rung in ladder {
            let taken = match rung {
                ProcRung::Absent => return Ok(from),
                ProcRung::FreshPidSubset => self.attached(path, from, closed, subset),
                ProcRung::Fresh => {
                    self.attached(path, from, closed, whole).and_then(|at| self.covered(path, at))
                }
                ProcRung::HostReadOnly => {
                    self.attached(path, from, closed | RDONLY, hosts).and_then(|at| self.covered(path, at))
                }
            };
            match taken {
                Ok(at) => return Ok(at),
                Err(other) => why = other,
            }
        }
        Err(why)
    }

    /// The dangerous entries of a `/proc` that was attached by this call.
    fn covered(&self, path: &[String], at: usize) -> Result<usize, String> {
        let below = |name: &str| [path, &[name.to_owned()]].concat();
        for name in READ_ONLY {
            let entry = below(name);
            self.attached(&entry, at, RDONLY, |mount| {
                mount.what == What::Inside(entry.clone()) && mount.recursive
            })
            .map_err(|why| format!("{name} of /proc: {why}"))?;
        }
        for name in HIDDEN {
            self.attached(&below(name), at, RDONLY, |mount| mount.what == What::Masks)
                .map_err(|why| format!("{name} of /proc: {why}"))?;
        }
        Ok(at)
    }

    /// Nothing is attached or made that no item asked for, and nothing looser than its item.
    fn nothing_beside(&self, broken: &mut Vec<String>) {
        let items: Vec<(Vec<String>, &Mount)> =
            self.policy.mounts().iter().map(|mount| (path_of(mount), mount)).collect();
        let inside = |path: &[String]| {
            let whole = |kind: &MountKind| matches!(kind, MountKind::Dev | MountKind::Proc(_));
            items
                .iter()
                .any(|(target, mount)| whole(mount.kind()) && path.starts_with(target) && path != target)
        };
        for mount in &self.kernel.tree.attached {
            if !inside(&mount.path)
                && !items.iter().any(|(target, item)| *target == mount.path && allows(item, mount))
            {
                broken.push(format!("no item asked for {mount:?}"));
            }
        }
        for made in &self.kernel.tree.made {
            if !inside(&made.path) && !items.iter().any(|(target, _)| target.starts_with(&made.path)) {
                broken.push(format!("no item asked for {made:?}"));
            }
        }
    }

    /// Private before the first mount, pivoted after the last, the old root gone, the new one sealed.
    fn frame(&self, broken: &mut Vec<String>) {
        let tree = &self.kernel.tree;
        let private = self.last(libc::SYS_mount, |event| {
            event.args[3] & libc::MS_PRIVATE != 0 && event.args[3] & libc::MS_REC != 0
        });
        let mounts = |event: &Event| match event.nr {
            libc::SYS_move_mount => true,
            libc::SYS_mount => event.args[3] & libc::MS_PRIVATE == 0,
            _ => false,
        };
        let first = self.kernel.events.iter().position(mounts);
        let last = tree.attached.iter().map(|mount| mount.at).max().unwrap_or(0);
        let after = |at: Option<usize>, nr, text: &str| {
            self.last(nr, |event| event.text == text).is_some_and(|done| Some(done) > at)
        };
        let detached = after(tree.pivoted, libc::SYS_umount2, ".");
        if private.is_none() || first.is_none() || private > first {
            broken.push("mounts were not made private before the first".to_owned());
        }
        if tree.pivoted.is_none_or(|at| at < last) || !detached || !after(tree.pivoted, libc::SYS_chdir, "/")
        {
            broken.push("the old root is not gone".to_owned());
        }
        if tree.masks.is_some() {
            broken.push("the file system of masks is still there".to_owned());
        }
        let wanted = if self.spec.writable_root { NOSUID | NODEV } else { RDONLY | NOSUID | NODEV };
        if tree.root.as_ref().is_none_or(|(_, attributes)| attributes & wanted != wanted) {
            broken.push(format!("the root is {:?}", tree.root));
        }
    }

    /// Why a run without a failure gave up all the same: only where what was asked for cannot be.
    pub(crate) fn not_refused(&self) -> Vec<String> {
        let mut broken = self.kernel.wrong.clone();
        let text = self.plan.to_string();
        let said = ["no rung of the ladder is possible", "every place for the new root is a source"];
        let Some(refused) = self
            .kernel
            .refused
            .iter()
            .rev()
            .find(|refused| refused.errno != libc::EEXIST || self.is_link(&refused.path))
        else {
            if !said.iter().any(|why| text.contains(why)) {
                broken.push("it gave up although no call failed".to_owned());
            }
            return broken;
        };
        let items = || self.policy.mounts().iter().map(|mount| (path_of(mount), mount.kind()));
        let legitimate = if refused.errno == libc::EEXIST {
            // A link is made where something else has made an entry.
            items().filter(|(path, _)| path.starts_with(&refused.path)).count() > 1
        } else {
            // Something on the way is not the sandbox's own, or a mask has nothing to hide. On a root of the host nothing is:
            // an empty tmpfs there has no mount points, and none are made in it.
            let own = |kind: &MountKind| {
                self.spec.empty_root && matches!(kind, MountKind::Tmpfs(_) | MountKind::Directory(_))
            };
            // A walk without openat2 stops at the item itself; with it, behind.
            let met = items().any(|(path, kind)| path == refused.path && !own(kind))
                && items().filter(|(path, _)| path.starts_with(&refused.path)).count() > 1;
            let hides = items().any(|(path, kind)| path == refused.path && *kind == MountKind::Mask);
            let above = |(path, kind): (Vec<String>, &MountKind)| {
                refused.path.starts_with(&path) && path != refused.path && !own(kind)
            };
            items().any(above) || hides || met
        };
        if !legitimate {
            broken.push(format!("{refused:?}, and no item is the reason"));
        }
        broken
    }

    fn is_link(&self, path: &[String]) -> bool {
        self.policy.mounts().iter().any(|mount| {
            path_of(mount) == path && matches!(mount.kind(), MountKind::Symlink(_) | MountKind::Bind(_))
        })
    }
}

fn is_source(what: &What, name: &str) -> bool {
    matches!(what, What::Passed(source) | What::Host(source) if source == name)
}

/// Whether an item asked for this mount, so tight.
fn allows(item: &Mount, mount: &Attached) -> bool {
    let tight = |wanted: u64| mount.attributes & wanted == wanted;
    match item.kind() {
        MountKind::Bind(bind) => is_source(&mount.what, &source_name(&bind.source)) && tight(of_bind(bind)),
        MountKind::Tmpfs(_) => is_fresh(&mount.what, "tmpfs").is_some() && tight(NOSUID | NODEV),
        MountKind::Dev => is_fresh(&mount.what, "tmpfs").is_some() && tight(RDONLY | NOSUID | NODEV),
        MountKind::Device => tight(NOSUID | NOEXEC),
        MountKind::Proc(_) => tight(NOSUID | NODEV | NOEXEC),
        MountKind::Mask => mount.what == What::Masks && tight(RDONLY),
        _ => false,
    }
}
