//! Rules that repeat the mount tree. It must not allow more than the mounts do.

use std::path::PathBuf;

use super::{AccessFs, Mirror, PathRule};
use crate::policy::mount::{Access, Bind, Execution, Mount, MountKind, Root, Source};
use crate::policy::{Namespaces, Need, Policy};

/// Devices that are harmless on any host.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
const USE: AccessFs = AccessFs::READ.union(AccessFs::WRITE_FILE).union(AccessFs::TRUNCATE);

/// The rules for a namespace set: those of the mount tree, then those of the policy.
pub(crate) fn rules(policy: &Policy, set: Namespaces) -> Vec<PathRule> {
    let Some(landlock) = &policy.landlock else { return Vec::new() };
    let mut rules: Vec<PathRule> = Vec::new();
    if landlock.mirror == Mirror::Mounts {
        if set.contains(Namespaces::MOUNT) {
            rules.push(rule("/", of_root(&policy.root)));
            rules.extend(policy.mounts.iter().filter_map(inside));
        } else {
            policy.mounts.iter().for_each(|mount| outside(mount, &mut rules));
        }
    }
    for wanted in &landlock.paths {
        rules.push(wanted.clone());
    }
    rules
}

fn rule(path: impl Into<PathBuf>, allow: AccessFs) -> PathRule {
    PathRule { path: path.into(), allow, need: Need::Required }
}

fn of_root(root: &Root) -> AccessFs {
    match root {
        Root::Empty { access, .. } | Root::Directory { access, .. } => of_access(*access),
    }
}

fn of_access(access: Access) -> AccessFs {
    match access {
        Access::ReadOnly => AccessFs::READ_EXECUTE,
        Access::ReadWrite => AccessFs::all(),
    }
}

fn executable(rights: AccessFs, execution: Execution) -> AccessFs {
    match execution {
        Execution::Allowed => rights,
        Execution::Denied => rights.difference(AccessFs::EXECUTE),
    }
}

fn inside(mount: &Mount) -> Option<PathRule> {
    let rights = match &mount.kind {
        MountKind::Bind(bind) => executable(of_access(bind.access), bind.execution),
        MountKind::Tmpfs(tmpfs) => executable(AccessFs::all(), tmpfs.execution),
        MountKind::Device => USE | AccessFs::IOCTL_DEV,
        MountKind::Dev => AccessFs::all().difference(AccessFs::EXECUTE),
        MountKind::Proc(_) => USE,
        // They lie in a file system that has a rule.
        MountKind::File(_) | MountKind::Directory(_) | MountKind::Symlink(_) | MountKind::Mask => {
            return None;
        }
    };
    Some(rule(&mount.target, rights))
}

/// What has the same name on the host.
fn outside(mount: &Mount, rules: &mut Vec<PathRule>) {
    match &mount.kind {
        MountKind::Bind(Bind { source: Source::Path(source), access, execution, .. })
            if *source == mount.target =>
        {
            rules.push(rule(source, executable(of_access(*access), *execution)));
        }
        MountKind::Device => rules.push(rule(&mount.target, USE | AccessFs::IOCTL_DEV)),
        MountKind::Dev => rules.extend(DEVICES.map(|path| rule(path, USE))),
        MountKind::Bind(_)
        | MountKind::Tmpfs(_)
        | MountKind::File(_)
        | MountKind::Directory(_)
        | MountKind::Symlink(_)
        | MountKind::Proc(_)
        | MountKind::Mask => {}
    }
}
