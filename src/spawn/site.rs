//! A living sandbox that another command joins: what is known of it, what its caller does for the child that joins, and
//! whether the child is where it should be. It must not trust anything that runs inside to stay as it was.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use super::attempt::{Compiled, Fence, Running};
use super::brief::Brief;
use super::cgroup::{Group, Motion};
use super::enforcement::Enforcement;
use super::landlock::LandlockState;
use super::parent::Parent;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::machine::layout::{HOST_GID, HOST_UID};
use crate::plan::{Entry, Join, JoinPlan, Plan, RULE_FOR, enter};
use crate::policy::{Launch, Namespaces};
use crate::sys;

/// `PF_EXITING` of the kernel: set before a first process ends what is in its pid namespace.
const EXITING: u64 = 0x4;
/// SIGKILL among the pending signals: nothing inside can send it to the first process, and that cannot escape it.
const KILLED: u64 = 1 << 8;
/// Looks at tables of mounts that may change meanwhile.
const LOOKS: usize = 5;

/// A living sandbox, as it was when its program was about to run.
#[derive(Debug)]
pub(crate) struct Site {
    pub(super) fence: Arc<Fence>,
    pub(super) index: usize,
    /// Its first process.
    pub(super) init: i32,
    pidfd: OwnedFd,
    program: i32,
    report: Enforcement,
    /// Inode and device of what each path's Landlock rule is for; 0 where there was nothing.
    rules: Vec<[u64; 2]>,
    group: Option<Arc<Group>>,
}

fn failed(object: impl Into<Object>) -> Error {
    Error::new(ErrorKind::Setup, Step::Join, object)
}

fn ended() -> Error {
    failed("sandbox").call("pidfd", libc::ESRCH).detail("the sandbox has ended")
}

impl Site {
    /// The sandbox of a running child.
    pub(crate) fn of(running: &Running) -> Result<Self> {
        let pidfd = sys::duplicate(running.parent.pidfd().as_raw_fd(), 3)
            .map_err(|errno| failed("sandbox").call("fcntl", errno))?;
        let brief = running.parent.brief().map();
        let plan = running.compiled().and_then(|compiled| compiled.plan.landlock.as_ref());
        let rules = plan.iter().flat_map(|plan| &plan.paths).map(|rule| {
            let at = rule.outcome + RULE_FOR;
            [brief.word(at), brief.word(at + 8)]
        });
        Ok(Self {
            fence: Arc::clone(&running.fence),
            index: running.index(),
            init: running.parent.pid(),
            pidfd,
            program: running.program,
            report: running.report.clone(),
            rules: rules.collect(),
            group: running.parent.shared_group(),
        })
    }

    /// The table that joins it, compiled at the first use.
    pub(super) fn compiled(&self) -> Result<&Compiled> {
        let Some((set, Ok(main))) = self.fence.plans.get(self.index) else { return Err(failed("plan")) };
        let made = main.joining.get_or_init(|| {
            let plan = enter(&self.fence.policy, &self.fence.host, *set)?;
            // A copy would bring the caller's memory with it.
            Compiled::new(plan, Launch::Image).map(Box::new)
        });
        made.as_deref().map_err(Error::again)
    }

    /// What can be known before anything is started.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_ending() {
            return Err(ended());
        }
        if self.is_frozen()? {
            let error =
                failed("sandbox").detail("it is frozen, and would hold the command too: thaw it first");
            return Err(error);
        }
        Ok(())
    }

    fn is_frozen(&self) -> Result<bool> {
        let Some(group) = &self.group else { return Ok(false) };
        let motion = group.motion().map_err(|unseen| unseen.error(Step::Join))?;
        Ok(motion == Some(Motion::Frozen))
    }

    /// Whether it has ended, or is about to: its first process then ends everything else, which is seen by the command's end
    /// a moment before its own. Where everything in its groups is killed, the command may end before the first process has run
    /// again to take its own signal.
    pub(crate) fn is_ending(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.init)).unwrap_or_default();
        // Only now: what was reaped before could not be read, and its pid may be somebody else's.
        if sys::poll_fd(self.pidfd.as_fd(), 0).unwrap_or(true) {
            return true;
        }
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, fields)| fields.split_ascii_whitespace().collect())
            .unwrap_or_default();
        // Fields 9 and 31 of proc_pid_stat(5); the first two are before the parenthesis.
        let has = |field: usize, bit: u64| {
            fields
                .get(field - 3)
                .and_then(|word| word.parse::<u64>().ok())
                .is_some_and(|word| word & bit != 0)
        };
        has(9, EXITING) || has(31, KILLED)
    }

    /// An error of the set-up says more if the sandbox has ended, or stands still.
    pub(super) fn refine(&self, error: Error) -> Error {
        match (self.is_ending(), error.raw_os_error()) {
            (true, _) => error.detail("the sandbox has ended"),
            // setns(2) says so of a process that has let go of its namespaces, a moment before anything else shows it.
            (false, Some(libc::ESRCH)) if error.step() == Step::Join => error.detail("the sandbox has ended"),
            (false, _) if self.is_frozen().unwrap_or(false) => error.detail("the sandbox is frozen: thaw it first"),
            (false, Some(libc::EPERM | libc::EACCES)) if shows_rights(error.step()) => error.detail(
                "joining needs CAP_SYS_ADMIN over the sandbox's namespaces, which its own caller has, and a system-call \
                 filter or a security module that does not take setns(2) away",
            ),
            (false, Some(libc::ENOSYS)) if error.step() == Step::Join => {
                error.detail("a system-call filter around the caller hides setns(2)")
            }
            (false, _) => error,
        }
    }

    /// Which process the child joins by: the first one, or the program where this process may not look into that.
    pub(super) fn door(&self) -> Result<OwnedFd> {
        let opens = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok();
        if opens(self.init) || !opens(self.program) {
            return sys::duplicate(self.pidfd.as_raw_fd(), 3)
                .map_err(|errno| failed("sandbox").call("fcntl", errno));
        }
        let door =
            sys::open_pidfd(self.program).map_err(|errno| failed("program").call("pidfd_open", errno))?;
        // The program ends with its sandbox: while that lives, the pid was nobody else's.
        if self.is_ending() { Err(ended()) } else { Ok(door) }
    }

    /// The namespaces that are joined one by one, each compared with what was reported of the program.
    pub(super) fn namespaces(&self, plan: &JoinPlan) -> Result<Vec<OwnedFd>> {
        let opened = plan.passed.iter().map(|kind| {
            let first = self.namespace(self.init, *kind);
            let fd = if first.is_err() { self.namespace(self.program, *kind) } else { first }?;
            let inode = fstat(&fd).map_err(|errno| failed("namespace").nix("fstat", errno))?.st_ino;
            match self.expected(*kind) {
                Some(expected) if expected != inode => Err(moved(*kind, inode, expected)),
                Some(_) | None => Ok(fd),
            }
        });
        let opened = opened.collect::<Result<Vec<_>>>();
        // Until then the first process lived, and its pid was nobody else's.
        if self.is_ending() { Err(ended()) } else { opened }
    }

    fn namespace(&self, pid: i32, kind: Namespaces) -> Result<OwnedFd> {
        let name = Namespaces::NAMES.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name);
        // The first process has it only for its children (time_namespaces(7)).
        let name = if kind == Namespaces::TIME { "time_for_children" } else { name };
        let path = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
        let fd = open(&path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let fd = fd.map_err(|errno| failed(path).nix("open", errno))?;
        if fd.as_raw_fd() > 2 {
            return Ok(fd);
        }
        sys::duplicate(fd.as_raw_fd(), 3).map_err(|errno| failed("namespace").call("fcntl", errno))
    }

    /// The inode of a namespace, as it was read back of the program; a time namespace is entered later than that.
    fn expected(&self, kind: Namespaces) -> Option<u64> {
        let known = self.report.namespaces.iter().find(|state| state.kind == kind)?;
        known.inode.filter(|_| kind != Namespaces::TIME)
    }

    /// The caller's part, while the child waits at its gate: the sandbox's ids, what its rules are for, its groups.
    pub(super) fn admit(&self, plan: &Plan, parent: &Parent, deadline: Instant) -> Result<()> {
        let map = parent.brief().map();
        if let Some((uid, gid)) = plan.ids.chosen(self.init) {
            map.set_word(HOST_UID, u64::from(uid));
            map.set_word(HOST_GID, u64::from(gid));
        }
        if let Entry::Living(join) = &plan.entry {
            for (at, [inode, device]) in join.rules.iter().zip(&self.rules) {
                map.set_word(*at, *inode);
                map.set_word(at + 8, *device);
            }
        }
        self.group.as_ref().map_or(Ok(()), |group| group.join(Join::Attach, parent.pid(), deadline))
    }

    /// Compares what the kernel shows of the confined child with the sandbox that it joined.
    pub(super) fn confirm(
        &self,
        (plan, brief): (&Plan, &Brief),
        (attendant, program): (i32, i32),
        report: &mut Enforcement,
    ) -> Result<()> {
        self.same_namespaces(plan, brief, report)?;
        self.same_rights(report)?;
        if plan.set.contains(Namespaces::MOUNT) {
            self.same_file("mountinfo", program)?;
        }
        self.same_file("cgroup", program)?;
        if let Some(group) = &self.group {
            report.limits = group.confirm(attendant, program)?;
        }
        report.attempts.clone_from(&self.report.attempts);
        report.absent.clone_from(&self.report.absent);
        report.notes.push(format!("it joined the sandbox whose first process is {}", self.init));
        Ok(())
    }

    fn same_namespaces(&self, plan: &Plan, brief: &Brief, report: &mut Enforcement) -> Result<()> {
        let Entry::Living(join) = &plan.entry else { return Err(failed("plan")) };
        for (kind, at) in &join.seen {
            let seen = brief.map().word(*at);
            if let Some(expected) = self.expected(*kind)
                && expected != seen
            {
                return Err(moved(*kind, seen, expected));
            }
            let Some(state) = report.namespaces.iter_mut().find(|state| state.kind == *kind) else {
                continue;
            };
            // The caller may not look where an unprivileged one could: nobody inside can either.
            match state.inode {
                Some(inode) if inode != seen => return Err(moved(*kind, inode, seen)),
                Some(_) => {}
                None => (state.inode, state.shared) = (Some(seen), Some(false)),
            }
        }
        for kind in Namespaces::all().difference(plan.set) {
            let own = self.report.namespaces.iter().find(|state| state.kind == kind);
            let theirs = report.namespaces.iter_mut().find(|state| state.kind == kind);
            if let (Some(own), Some(theirs)) = (own, theirs) {
                match (own.inode, theirs.inode) {
                    (Some(own), Some(seen)) if own != seen => return Err(moved(kind, seen, own)),
                    (_, Some(_)) => {}
                    (_, None) => (theirs.inode, theirs.shared) = (own.inode, own.shared),
                }
            }
        }
        Ok(())
    }

    fn same_rights(&self, report: &mut Enforcement) -> Result<()> {
        let before = &self.report;
        let wrong = |object: &'static str, seen: String| {
            let error = Error::new(ErrorKind::Setup, Step::Verify, object);
            Err(error.detail(format!("{seen} where the sandbox's program has another")))
        };
        if report.capabilities != before.capabilities {
            return wrong("capabilities", format!("{:?}", report.capabilities));
        }
        if report.no_new_privs != before.no_new_privs {
            return wrong("no_new_privs", format!("{:?}", report.no_new_privs));
        }
        let ids = |report: &Enforcement| (report.host_uid, report.host_gid, report.groups.clone());
        if ids(report) != ids(before) {
            return wrong("ids", format!("{:?}", ids(report)));
        }
        if report.seccomp_filters < before.seccomp_filters {
            return wrong("seccomp", format!("{:?}", report.seccomp_filters));
        }
        let [now, then] = [&*report, before].map(|report| report.landlock.as_ref().map(LandlockState::rules));
        if now != then {
            return wrong("landlock", format!("{now:?}"));
        }
        // Where there was nothing there was no rule, and is none now.
        report.landlock.clone_from(&before.landlock);
        Ok(())
    }

    /// A program that may mount changes its table at any time: a few looks.
    fn same_file(&self, name: &str, program: i32) -> Result<()> {
        let read = |pid: i32| {
            let path = PathBuf::from(format!("/proc/{pid}/{name}"));
            fs::read_to_string(&path).map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                Error::new(ErrorKind::Setup, Step::Verify, path).call("read", errno)
            })
        };
        for _ in 0..LOOKS {
            if read(self.init)? == read(program)? {
                return Ok(());
            }
        }
        let error =
            Error::new(ErrorKind::Setup, Step::Verify, PathBuf::from(format!("/proc/{program}/{name}")));
        Err(error.detail("it is not that of the sandbox's first process"))
    }

    /// The groups, for who only looks at them.
    pub(crate) fn group(&self) -> Option<&Group> {
        self.group.as_deref()
    }

    /// The pid of the sandbox's first process.
    pub(crate) fn first(&self) -> i32 {
        self.init
    }
}

/// Steps whose refusal says that the caller has not the right to join.
fn shows_rights(step: Step) -> bool {
    matches!(step, Step::Join | Step::Window)
}

fn moved(kind: Namespaces, seen: u64, expected: u64) -> Error {
    let error = Error::new(ErrorKind::Setup, Step::Verify, format!("namespace {kind}"));
    error.detail(format!("inode {seen}, and the sandbox's is {expected}"))
}
