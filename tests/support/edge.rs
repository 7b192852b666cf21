//! Groups of version 1 for the tests of edges: whether there are any, and which a process has made.

use std::fs;
use std::path::PathBuf;

use nix::unistd::geteuid;
use ringfence::Host;
use ringfence::host::Cgroups;

use super::support::skipped;

/// Hierarchies of version 1 that root may make groups in.
pub(crate) fn legacy(name: &str, controllers: &[&str]) -> Option<Cgroups> {
    let cgroups = Host::probe().cgroups().clone();
    let missing = controllers.iter().find(|name| cgroups.legacy_with(name).is_none_or(|l| l.own.is_none()));
    match missing {
        _ if !geteuid().is_root() => skipped(name, "only root may make groups here"),
        Some(controller) => skipped(name, &format!("no cgroup v1 hierarchy of {controller}")),
        None => return Some(cgroups),
    }
    None
}

pub(crate) fn groups_of(cgroups: &Cgroups, pid: u32) -> Vec<PathBuf> {
    let prefix = format!("ringfence-{pid}-");
    let own = cgroups.legacy.iter().filter_map(|legacy| legacy.own.as_ref());
    let entries = own.filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    ours.map(|entry| entry.path()).collect()
}
