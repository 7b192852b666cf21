//! Looks at this machine. It must not change it, and must not fail: what cannot be read stays unknown.

use std::fs;
use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::prctl::get_no_new_privs;
use nix::sys::utsname::uname;

use crate::sys::can_clone_trees;
use crate::sys::landlock_abi;
use crate::sys::last_capability;
use crate::sys::probe_call;

use super::Host;
use super::answer::Answer;
use super::cgroup::Cgroups;
use super::chroot;
use super::chroot::BesideInit;
use super::container;
use super::features::Features;
use super::identity;
use super::idmap::IdMap;
use super::kernel::KernelVersion;
use super::mountinfo::MountTable;
use super::namespace;
use super::process_limit;
use super::read;
use super::security::Sources;
use super::status::Status;
use super::subid;
use super::sysctl;
use super::systemd::Systemd;

impl Host {
    /// Looks at this machine and at the calling thread: some forty small files and fifteen system calls that have no
    /// effect, a fraction of a millisecond. It never fails; what cannot be read, as in a process without /proc, is
    /// recorded as unknown.
    ///
    /// Of the thread, for credentials, capabilities, no_new_privs and system-call filters are a thread's own, and a
    /// child gets those of the thread that makes it: hence /proc/thread-self (Linux 3.17).
    ///
    /// Three things to know. Two probes differ where counters do (pids.current, keys in use). Where /etc/subuid or
    /// /etc/subgid has lines, the user database is asked for the caller's name, which may be slow if it lies behind a
    /// network. And a system-call filter that *kills* on calls that it does not know, rather than refusing them, kills
    /// a process that probes, as it would kill the set-up of a sandbox.
    #[must_use]
    pub fn probe() -> Self {
        let kernel = kernel();
        let status =
            read::text("/proc/thread-self/status").map(|text| Status::parse(&text)).unwrap_or_default();
        let mounts = read::text("/proc/thread-self/mountinfo").map(|text| MountTable::parse(&text));
        let cgroup = read::text("/proc/thread-self/cgroup");
        let mut identity = identity::probe();
        let (subordinate, name) = subid::look_up(identity.uid.real);
        identity.name = name;
        Self {
            features: features(kernel),
            kernel,
            namespaces: namespace::present(Path::new("/proc/thread-self/ns")),
            in_initial_user_namespace: user_namespace(),
            capabilities: status.capabilities,
            last_capability: newest_capability(),
            no_new_privs: no_new_privs(&status),
            seccomp_mode: status.seccomp,
            seccomp_filters: status.seccomp_filters,
            uid_map: id_map("/proc/thread-self/uid_map"),
            gid_map: id_map("/proc/thread-self/gid_map"),
            setgroups_allowed: setgroups(),
            subordinate,
            sysctls: sysctl::read_all(),
            security: Sources::read().judge(),
            chrooted: chrooted(mounts.as_ref()),
            container: container::judge(
                read::is_there,
                read::text("/run/host/container-manager").as_deref(),
                cgroup.as_deref(),
            ),
            process_limits: process_limit::processes(cgroup.as_deref(), mounts.as_ref()),
            key_usage: read::text("/proc/key-users")
                .and_then(|text| process_limit::key_usage(&text, identity.uid.real)),
            landlock_abi: landlock_abi().ok(),
            systemd: Systemd::probe(identity.uid.effective),
            cgroups: Cgroups::probe(cgroup.as_deref(), mounts.as_ref()),
            mounts,
            host_root: host_root(identity.uid.effective),
            identity,
        }
    }
}

pub(crate) fn kernel() -> KernelVersion {
    let release = uname().ok().and_then(|names| KernelVersion::parse(names.release().to_str()?));
    release.unwrap_or(KernelVersion::UNKNOWN)
}

fn user_namespace() -> Answer {
    let target = fs::read_link("/proc/thread-self/ns/user").ok();
    target.and_then(|target| Some(namespace::is_initial(target.to_str()?))).into()
}

/// The file is missing only where /proc is. Then the kernel is asked one capability after the other.
fn newest_capability() -> u32 {
    let read = read::number("/proc/sys/kernel/cap_last_cap").and_then(|number| u32::try_from(number).ok());
    read.unwrap_or_else(last_capability)
}

fn no_new_privs(status: &Status) -> Answer {
    match status.no_new_privs {
        Answer::Unknown => get_no_new_privs().ok().into(),
        seen @ (Answer::Yes | Answer::No) => seen,
    }
}

fn id_map(path: &str) -> Option<IdMap> {
    IdMap::parse(&read::text(path)?)
}

fn setgroups() -> Answer {
    match read::text("/proc/thread-self/setgroups").as_deref().map(str::trim) {
        Some("allow") => Answer::Yes,
        Some("deny") => Answer::No,
        _ => Answer::Unknown,
    }
}

fn chrooted(mounts: Option<&MountTable>) -> Answer {
    // The mounts alone often settle it; process 1 is looked at only where they do not.
    match chroot::judge(mounts, BesideInit::Unseen) {
        Answer::Unknown => chroot::judge(mounts, chroot::beside_init()),
        settled @ (Answer::Yes | Answer::No) => settled,
    }
}

fn features(kernel: KernelVersion) -> Features {
    let mut found = Features::probe(kernel, probe_call);
    // Only trying tells: the mount namespace may belong to another user namespace than the caller's.
    let can = found.contains(Features::MOUNT_API | Features::MOUNT_SETATTR) && can_clone_trees();
    found.set(Features::CLONE_TREES, can);
    found
}

/// Files of /proc that belong to no process belong to the machine's uid 0 (proc(5)), which is shown as the overflow id where
/// it has no name in the caller's user namespace.
fn host_root(effective: u32) -> Answer {
    match metadata("/proc/sys/kernel/core_pattern") {
        Ok(file) => Answer::from(Some(file.uid() == effective)),
        Err(_) => Answer::Unknown,
    }
}
