//! Whether limits can be held in a scope that systemd makes, and when it goes before a group of the caller's own. It must be
//! pure: whether the manager makes one is found out at a launch.

use std::path::Path;
use std::result::Result as StdResult;

use super::{Deed, LimitPlan, LimitRung, ScopePlace};
use crate::host::{Host, Systemd, SystemdManager};
use crate::policy::{Cgroup, Need};

/// Where systemd has its hierarchy; one of version 2 at another place is not the one that it limits with.
const MOUNT: &str = "/sys/fs/cgroup";

/// The manager that can be asked, and the address of its bus; or why there is none.
pub(super) fn manager<'h>(wanted: &Cgroup, host: &'h Host) -> StdResult<(SystemdManager, &'h str), String> {
    let (manager, address) = match host.systemd() {
        Systemd::NotBuilt => return Err("built without the feature `systemd`".into()),
        Systemd::NotBooted => return Err("systemd is not process 1 here (sd_booted(3))".into()),
        Systemd::NoBus { manager, looked_at } => {
            let hint = match manager {
                SystemdManager::System => "is dbus installed and running?",
                SystemdManager::User => {
                    "a user without a session has a manager after `loginctl enable-linger`"
                }
            };
            return Err(format!("no bus of the {manager} at {looked_at:?}: {hint}"));
        }
        Systemd::Manager { manager, address } => (*manager, address.as_str()),
    };
    let cgroups = host.cgroups();
    let Some(unified) = &cgroups.unified else { return Err("cgroup v2 is not mounted".into()) };
    if unified.mount != Path::new(MOUNT) {
        return Err(format!(
            "systemd keeps its controllers in cgroup v1 here, which cannot be delegated safely (CGROUP_DELEGATION): cgroup v2 \
             is at {:?}, not at {MOUNT:?}",
            unified.mount
        ));
    }
    if wanted.parents.iter().any(|parent| parent.starts_with(&unified.mount)) {
        return Err("a cgroup_parent() was named instead".into());
    }
    Ok((manager, address))
}

/// A limit that a scope may hold and a group of the caller's own does not: one that is required; or any, where such a group
/// would hold none at all. All processes are in one group of version 2, so then it is the scope's.
pub(super) fn wants(limits: &[LimitPlan]) -> Option<&LimitPlan> {
    let has = |plan: &LimitPlan, rung| plan.usable().any(|(usable, _)| usable.rung == rung);
    let only = |plan: &&LimitPlan| has(plan, LimitRung::Systemd) && !has(plan, LimitRung::CgroupV2);
    let required = limits.iter().find(|plan| only(plan) && plan.need == Need::Required);
    let none = || !limits.iter().any(|plan| has(plan, LimitRung::CgroupV2));
    required.or_else(|| limits.iter().find(|plan| none() && only(plan)))
}

/// No limit is in a group of the caller's own.
pub(super) fn pass_over(limits: &mut [LimitPlan], why: &str) {
    for rung in limits.iter_mut().flat_map(|plan| &mut plan.rungs) {
        if rung.rung == LimitRung::CgroupV2 && rung.deed.is_ok() {
            rung.deed = Err(why.to_owned());
        }
    }
}

/// The scope, with what has to be enabled in it.
pub(super) fn place(
    (manager, address): (SystemdManager, &str),
    limits: &[LimitPlan],
    accounts: &[&'static str],
) -> ScopePlace {
    let mut enable: Vec<&'static str> = accounts.to_vec();
    for (rung, deed) in limits.iter().flat_map(LimitPlan::usable) {
        if let (LimitRung::Systemd, Deed::Files { controller, .. }) = (rung.rung, deed) {
            enable.push(controller);
        }
    }
    enable.sort_unstable();
    enable.dedup();
    ScopePlace { manager, address: address.to_owned(), enable }
}
