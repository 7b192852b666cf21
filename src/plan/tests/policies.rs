//! Policies for the goldens and the exploration, each with a sentence for a name.

use std::fs::File;
use std::time::Duration;

use crate::error::Result;
use crate::policy::Access;
use crate::policy::AccessFs;
use crate::policy::AccessNet;
use crate::policy::Builder;
use crate::policy::Capability;
use crate::policy::Execution;
use crate::policy::FileItem;
use crate::policy::Filter;
use crate::policy::IdRange;
use crate::policy::Init;
use crate::policy::Landlock;
use crate::policy::Mapping;
use crate::policy::Mount;
use crate::policy::MountKind;
use crate::policy::Namespaces;
use crate::policy::Need;
use crate::policy::Policy;
use crate::policy::ProcMount;
use crate::policy::ProcRung;
use crate::policy::Resource;
use crate::policy::Submounts;
use crate::policy::TimeOffsets;
use crate::policy::Tmpfs;
use crate::policy::prefer;

/// A policy by its name; what it is for one namespace set may be an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) make: fn() -> Builder,
}

pub(super) const ALL: [Named; 7] = [
    Named { name: "the_empty_policy", make: || Builder::default().empty() },
    Named { name: "the_read_only_system", make: || Builder::default().system_read_only() },
    Named { name: "every_kind_of_mount_and_option", make: rich },
    Named { name: "a_root_directory_and_no_init", make: root_directory },
    Named { name: "ranges_of_ids_and_groups", make: ranges },
    Named { name: "landlock_that_stands_in_for_mounts", make: landlock },
    Named { name: "the_hosts_own_proc", make: hosts_proc },
];

impl Named {
    /// The policy with this one namespace set.
    pub(super) fn with_set(self, set: Namespaces) -> Result<Policy> {
        let builder = (self.make)();
        let timed = builder.clone().policy().is_ok_and(|policy| policy.time_offsets.is_some());
        let set = if timed { set | Namespaces::TIME } else { set };
        builder.namespaces(set).policy()
    }
}

/// Every kind of mount, and every option of the process.
pub(super) fn rich() -> Builder {
    let rungs = vec![ProcRung::Fresh, ProcRung::FreshPidSubset, ProcRung::HostReadOnly, ProcRung::Absent];
    let small = Tmpfs { size: 1 << 20, inodes: 64, mode: 0o700, execution: Execution::Denied };
    let root = File::open("/").expect("the root can be opened");
    let builder = Builder::default()
        .mount(Mount::bind("/usr", "/usr").mirror())
        .bind("/srv/work", "/work", Access::ReadWrite)
        .mount(Mount::bind("/opt", "/usr/local").no_exec().submounts(Submounts::Exclude))
        .mount(Mount::bind("/etc/hosts", "/etc/hosts").if_exists())
        .mount(Mount::bind_fd(root, "/from/a/descriptor").submounts(Submounts::Exclude))
        .mount(Mount::tmpfs("/tmp", small))
        .file("/tmp/note", "hello")
        .mount(Mount::new("/etc/empty", MountKind::File(FileItem { contents: Vec::new(), mode: 0o600 })))
        .directory("/var/lib/state")
        .symlink("../tmp", "/var/tmp")
        .mount(Mount::new("/dev/null", MountKind::Device))
        .mount(Mount::new("/inner/dev", MountKind::Dev))
        .mount(Mount::new("/proc", MountKind::Proc(ProcMount { ladder: rungs })))
        .mask("/usr/share/doc")
        .mask("/etc/hosts");
    options(builder)
}

fn options(builder: Builder) -> Builder {
    builder
        .hostname("inside")
        .domain_name("example")
        .capabilities([Capability::NetBindService, Capability::Chown])
        .limit(Resource::AddressSpace, 1 << 30)
        .limit(Resource::OpenFiles, 64)
        .limit(Resource::Processes, 32)
        .time_offsets(TimeOffsets { monotonic: 86_400, boottime: -3 })
        .nice(5)
        .oom_score_adj(500)
        .timer_slack(Duration::from_millis(1))
        .deny_write_execute(())
        .disable_aslr(())
        .deny_memfd_exec(())
        .umask(0o077)
        .allow_outliving_caller()
}

/// Rules for the mount tree, for a path and for ports.
fn landlock() -> Builder {
    let rules = Landlock::from_mounts().net(AccessNet::all()).floor(1).in_place_of_mounts();
    Builder::default()
        .bind("/usr", "/usr", Access::ReadOnly)
        .bind("/srv/work", "/srv/work", Access::ReadWrite)
        .mount(Mount::new("/dev/null", MountKind::Device))
        .landlock(rules.allow(prefer("/srv/file"), AccessFs::READ).connect_tcp(443).bind_tcp(prefer(0)))
}

/// The last rung of a ladder as the only one.
fn hosts_proc() -> Builder {
    let ladder = vec![ProcRung::HostReadOnly];
    Builder::default().mount(Mount::new("/proc", MountKind::Proc(ProcMount { ladder })))
}

fn root_directory() -> Builder {
    Builder::default()
        .root_directory("/srv/debian", Access::ReadOnly)
        .seccomp(Filter::strict())
        .tmpfs("/tmp", 1 << 20)
        .dev()
        .proc()
        .init(Init::Program)
        .share_session()
        .share_session_keyring()
        .allow_user_namespaces()
}

fn ranges() -> Builder {
    let map = |own| {
        vec![
            IdRange { inside: 0, outside: 100_000, count: 1000 },
            IdRange { inside: own, outside: 101_000, count: 9 },
        ]
    };
    Builder::default()
        .system_read_only()
        .ids(1000, 1001)
        .groups([1002, 1003])
        .mapping(Mapping::Ranges { uids: map(1000), gids: map(1001) })
}

/// The same policy with every item only preferred.
pub(super) fn prefer_everything(mut policy: Policy) -> Policy {
    let need = Need::Preferred;
    policy.mounts.iter_mut().for_each(|mount| mount.need = need);
    policy.limits.iter_mut().for_each(|limit| limit.need = need);
    policy.hostname.iter_mut().chain(&mut policy.domain_name).for_each(|name| name.need = need);
    policy.landlock = policy.landlock.map(Landlock::preferred);
    let hardening = &mut policy.hardening;
    hardening.nice.iter_mut().chain(&mut hardening.oom_score_adj).for_each(|value| value.need = need);
    hardening.timer_slack.iter_mut().for_each(|slack| slack.need = need);
    let flags = [
        &mut policy.loopback,
        &mut hardening.deny_write_execute,
        &mut hardening.disable_aslr,
        &mut hardening.deny_memfd_exec,
        &mut hardening.deny_user_namespaces,
        &mut hardening.own_keyring,
    ];
    flags.into_iter().flatten().for_each(|flag| flag.need = need);
    policy
}
