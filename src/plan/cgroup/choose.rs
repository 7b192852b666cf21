//! Chooses where groups are made, and which rungs a host has for each limit. It must be pure.

use std::path::{Path, PathBuf};
use std::result::Result as StdResult;

use super::lower::{self, Lowered};
use super::scope;
use super::{
    Deed, GroupPlan, Join, LegacyPlace, LimitPlan, LimitRung, Rung, ScopePlace, Strength, UnifiedPlace, When,
};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::{Answer, Cgroups, Features, Host, KernelVersion, LEAF, SystemdManager, UnifiedGroup};
use crate::policy::{Cgroup, GroupLimit, Need, OwnGroup, Policy, Resource, Wanted};

/// Hierarchies of version 1 that count something, for a group that was asked for as such.
const ACCOUNTS: [&str; 5] = ["memory", "cpu", "cpuacct", "blkio", "pids"];
/// And what is enabled for the like in version 2.
const ENABLED: [&str; 4] = ["memory", "cpu", "io", "pids"];

type Reason = String;

/// What is to be done for the limits of this policy on this host; nothing where none is wanted.
pub(in crate::plan) fn choose(policy: &Policy, host: &Host) -> Result<Option<GroupPlan>> {
    let wanted = &policy.cgroup;
    if !wanted.is_wanted() {
        return Ok(None);
    }
    let cgroups = host.cgroups();
    named_parents(wanted, cgroups)?;
    let needed = needed(wanted);
    let mut place = unified_parent(wanted, cgroups, &needed);
    let manager = scope::manager(wanted, host);
    let memory = wanted.memory();
    let mut limits = Vec::new();
    for Wanted { value, need } in &wanted.limits {
        let in_scope = manager.as_ref().map_err(Clone::clone).and_then(|_| lower::unified(value));
        let rungs = vec![
            of(LimitRung::CgroupV2, in_unified(value, &place)),
            of(LimitRung::Systemd, in_scope),
            of(LimitRung::CgroupV1, in_legacy(value, memory, wanted, cgroups)),
            of(LimitRung::ResourceLimit, by_resource(value, policy)),
        ];
        limits.push(LimitPlan { limit: value.clone(), need: *need, rungs });
    }
    // What others build on goes first: swap on memory, a burst on a quota.
    limits.sort_by_key(|plan| matches!(plan.limit, GroupLimit::Swap(_) | GroupLimit::CpuBurst(_)));
    for plan in &limits {
        possible(plan)?;
    }
    if place.is_ok()
        && let Some(plan) = scope::wants(&limits)
    {
        let why = format!("a group of the caller's own cannot hold {}", plan.limit);
        scope::pass_over(&mut limits, &why);
        place = Err(why);
    }
    let accounts = if wanted.group.is_some() { &ENABLED[..] } else { &[] };
    let scope = manager.as_ref().ok().map(|manager| scope::place(*manager, &limits, accounts));
    let legacy = legacy_places(&limits, wanted, cgroups, (&place, scope.as_ref()));
    let (unified, no_unified) = match place {
        Ok(place) => (Some(enabling(place, &limits, wanted)), None),
        Err(why) => (None, Some(why)),
    };
    let group = wanted.group.map(|wanted| wanted.need);
    if unified.is_none() && scope.is_none() {
        let why = (no_unified.as_deref().unwrap_or_default(), manager.err().unwrap_or_default());
        nowhere(wanted, &legacy, &why)?;
    }
    let join = join(host, &limits, (unified.as_ref(), scope.as_ref()), &legacy);
    Ok(Some(GroupPlan { limits, group, unified, scope, legacy, join, own: wanted.own, no_unified }))
}

/// What was asked for beside limits, where there is no group of version 2.
fn nowhere(wanted: &Cgroup, legacy: &[LegacyPlace], (unified, systemd): &(&str, String)) -> Result<()> {
    let metered = |place: &LegacyPlace| place.controllers.iter().any(|name| name == "cpuacct");
    if wanted.meter == Some(Need::Required) && !legacy.iter().any(metered) {
        let error = Error::new(ErrorKind::Unsupported, Step::Clocks, "cpu_time()");
        return Err(error.detail(format!(
            "no group can count it: cgroup v2: {unified}; systemd scope: {systemd}; cgroup v1: no hierarchy with cpuacct that \
             can be used; prefer() takes what can be had without"
        )));
    }
    if legacy.is_empty() && wanted.group.is_some_and(|group| group.need == Need::Required) {
        let error = Error::new(ErrorKind::Unsupported, Step::Cgroup, "a group of its own");
        return Err(error.detail(format!(
            "cgroup v2: {unified}; systemd scope: {systemd}; cgroup v1: no hierarchy that can be used"
        )));
    }
    Ok(())
}

fn join(
    host: &Host,
    limits: &[LimitPlan],
    (unified, scope): (Option<&UnifiedPlace>, Option<&ScopePlace>),
    legacy: &[LegacyPlace],
) -> Join {
    let in_unified = unified.is_some() || scope.is_some();
    // The user's manager is not above the caller's own group, so the caller may have to ask it to move the child.
    let asked = scope.is_some_and(|scope| scope.manager == SystemdManager::User);
    let late = asked || !legacy.is_empty();
    let features = host.features();
    // Before Linux 6.4 (42a11bf5c543, taken back to some older ones) a child that is made in a group keeps its parent's CPUs.
    let cpuset = |plan: &LimitPlan| matches!(plan.limit, GroupLimit::Cpus(_) | GroupLimit::Mems(_));
    let keeps = host.kernel() < KernelVersion::new(6, 4, 0) && limits.iter().any(cpuset);
    let into = in_unified && !keeps && features.contains(Features::CLONE3 | Features::CLONE_INTO_CGROUP);
    match (into, in_unified || !legacy.is_empty()) {
        (true, _) if late => Join::CloneAndAttach,
        (true, _) => Join::Clone,
        (false, true) => Join::Attach,
        (false, false) => Join::Nowhere,
    }
}

fn of(rung: LimitRung, lowered: Lowered) -> Rung {
    match lowered {
        Ok((deed, strength, caveat)) => Rung { rung, strength, caveat, deed: Ok(deed) },
        Err(why) => Rung { rung, strength: Strength::None, caveat: None, deed: Err(why) },
    }
}

/// A required limit that no rung can hold is refused before anything is made.
fn possible(plan: &LimitPlan) -> Result<()> {
    if plan.need == Need::Preferred || plan.usable().next().is_some() {
        return Ok(());
    }
    let reasons: Vec<String> = plan.rungs.iter().map(reason).collect();
    let error = Error::new(ErrorKind::Unsupported, Step::Cgroup, format!("limit {}", plan.limit));
    Err(error.detail(reasons.join("; ")))
}

fn reason(rung: &Rung) -> String {
    let less = || rung.caveat.unwrap_or("it would be approximate").to_owned();
    format!("{}: {}", rung.rung, rung.deed.as_ref().err().cloned().unwrap_or_else(less))
}

/// A parent that lies in no hierarchy is a mistake that only the host can show.
fn named_parents(wanted: &Cgroup, cgroups: &Cgroups) -> Result<()> {
    for parent in &wanted.parents {
        let unified = cgroups.unified.iter().map(|unified| &unified.mount);
        let mut mounts = unified.chain(cgroups.legacy.iter().map(|legacy| &legacy.mount));
        if !mounts.any(|mount| parent.starts_with(mount)) {
            let error = Error::new(ErrorKind::Unsupported, Step::Cgroup, parent.clone());
            return Err(error.detail("no cgroup file system is mounted there"));
        }
    }
    Ok(())
}

/// The controllers of version 2 that a parent should have: what the limits need, and what counts.
fn needed(wanted: &Cgroup) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = Vec::new();
    for limit in &wanted.limits {
        if let Ok((Deed::Files { controller, .. }, ..)) = lower::unified(&limit.value) {
            all.push(controller);
        }
    }
    if wanted.group.is_some() {
        all.extend(ENABLED);
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A parent of version 2 with what can be had there.
#[derive(Clone, Debug)]
struct Parent<'h> {
    directory: PathBuf,
    /// `None`: a directory that was named, and nobody looked at.
    group: Option<&'h UnifiedGroup>,
    /// Whether controllers can be enabled.
    enables: StdResult<(), Reason>,
}

impl Parent<'_> {
    fn has(&self, controller: &str) -> StdResult<(), Reason> {
        let Some(group) = self.group else { return Ok(()) };
        if group.enabled.iter().any(|name| name == controller) {
            return Ok(());
        }
        if !group.controllers.iter().any(|name| name == controller) {
            return Err(format!("{:?} does not have the controller {controller}", self.directory));
        }
        self.enables
            .clone()
            .map_err(|why| format!("{controller} is not enabled in {:?}: {why}", self.directory))
    }
}

fn unified_parent<'h>(
    wanted: &Cgroup,
    cgroups: &'h Cgroups,
    needed: &[&str],
) -> StdResult<Parent<'h>, Reason> {
    let Some(unified) = &cgroups.unified else { return Err("it is not mounted".into()) };
    if let Some(named) = wanted.parents.iter().find(|parent| parent.starts_with(&unified.mount)) {
        return Ok(Parent { directory: named.clone(), group: None, enables: Ok(()) });
    }
    let Some(own) = unified.groups.first() else {
        return Err(format!("the caller's group is not visible below {:?}", unified.mount));
    };
    let in_leaf =
        own.directory.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(LEAF.as_bytes()));
    let mut candidates: Vec<Parent<'h>> = Vec::new();
    for (index, group) in unified.groups.iter().enumerate() {
        // Above its own group the caller may do only what it was given, whatever the modes of the files say: the groups of
        // a manager are not its.
        let managed = in_leaf && index == 1;
        let given = index == 0 || managed || group.delegated == Answer::Yes;
        if in_leaf && index == 0 || !given || group.access == Answer::No {
            continue;
        }
        let free = index > 0 || group.root == Answer::Yes || wanted.own == OwnGroup::Manage;
        let enables = if free { Ok(()) } else { Err(OCCUPIED.to_owned()) };
        candidates.push(Parent { directory: group.directory.clone(), group: Some(group), enables });
    }
    let score = |parent: &Parent<'_>| needed.iter().filter(|name| parent.has(name).is_ok()).count();
    let best = candidates.iter().map(score).max();
    let chosen = candidates.into_iter().find(|parent| Some(score(parent)) == best);
    chosen.ok_or_else(|| {
        format!("the caller may not make groups in {:?}, and was given no other", own.directory)
    })
}

const OCCUPIED: &str = "the caller itself is in that group; run it in a unit with Delegate=yes and a subgroup, name a \
                        cgroup_parent(), or say manage_own_cgroup()";

fn in_unified(limit: &GroupLimit, place: &StdResult<Parent<'_>, Reason>) -> Lowered {
    let lowered = lower::unified(limit)?;
    let parent = place.as_ref().map_err(Clone::clone)?;
    if let (Deed::Files { controller, .. }, ..) = &lowered {
        parent.has(controller)?;
    }
    Ok(lowered)
}

/// What has to be enabled: for the limits, and as far as it is there for the accounts.
fn enabling(parent: Parent<'_>, limits: &[LimitPlan], wanted: &Cgroup) -> UnifiedPlace {
    let mut enable: Vec<&'static str> = Vec::new();
    for plan in limits {
        let first = plan.usable().find(|(rung, _)| rung.rung == LimitRung::CgroupV2);
        if let Some((_, Deed::Files { controller, .. })) = first {
            enable.push(controller);
        }
    }
    if wanted.group.is_some() {
        enable.extend(ENABLED.into_iter().filter(|name| parent.has(name).is_ok()));
    }
    enable.sort_unstable();
    enable.dedup();
    let is_on =
        |name: &str| parent.group.is_some_and(|group| group.enabled.iter().any(|enabled| enabled == name));
    enable.retain(|name| !is_on(name));
    UnifiedPlace { parent: parent.directory, enable }
}

/// The directory of version 1 below which a group with this controller is made.
fn legacy_parent(controller: &str, wanted: &Cgroup, cgroups: &Cgroups) -> StdResult<PathBuf, Reason> {
    let Some(legacy) = cgroups.legacy_with(controller) else {
        return Err(format!("no hierarchy with the controller {controller} is mounted"));
    };
    let named = |mount: &Path| wanted.parents.iter().find(|parent| parent.starts_with(mount));
    if let Some(named) = named(&legacy.mount) {
        return Ok(named.clone());
    }
    match (&legacy.own, legacy.access) {
        (None, _) => {
            Err(format!("the caller's group of {controller} is not visible below {:?}", legacy.mount))
        }
        (Some(own), Answer::No) => Err(format!("the caller may not make groups in {own:?}")),
        (Some(own), Answer::Yes | Answer::Unknown) => Ok(own.clone()),
    }
}

fn in_legacy(limit: &GroupLimit, memory: Option<u64>, wanted: &Cgroup, cgroups: &Cgroups) -> Lowered {
    let lowered = lower::legacy(limit, memory)?;
    if let (Deed::Files { controller, .. }, ..) = &lowered {
        legacy_parent(controller, wanted, cgroups)?;
    }
    Ok(lowered)
}

/// The program's own limit of the same kind may be lower already.
fn by_resource(limit: &GroupLimit, policy: &Policy) -> Lowered {
    const MEMORY: &str = "it bounds the address space of each process, not the tree's memory";
    const PROCESSES: &str =
        "it bounds the processes of the program's uid in its user namespace, not the tree";
    let (resource, value, caveat) = if let GroupLimit::Memory(bytes) = limit {
        (Resource::AddressSpace, *bytes, MEMORY)
    } else if let GroupLimit::Processes(count) = limit {
        (Resource::Processes, *count, PROCESSES)
    } else {
        return Err("there is none like it".into());
    };
    let own = policy.limits.iter().find(|limit| limit.resource == resource);
    let value = own.map_or(value, |own| own.hard.min(value));
    Ok((Deed::Limit { resource, value }, Strength::Approximate, Some(caveat)))
}

/// Every hierarchy of version 1 that a limit may come down to; those that are used for sure are made in any case.
fn legacy_places(
    limits: &[LimitPlan],
    wanted: &Cgroup,
    cgroups: &Cgroups,
    (unified, scope): (&StdResult<Parent<'_>, Reason>, Option<&ScopePlace>),
) -> Vec<LegacyPlace> {
    let unified = unified.is_ok() || scope.is_some();
    let mut uses: Vec<(&str, When)> = Vec::new();
    for plan in limits {
        for (index, (rung, deed)) in plan.usable().enumerate() {
            if let (LimitRung::CgroupV1, Deed::Files { controller, .. }) = (rung.rung, deed) {
                uses.push((controller, if index == 0 { When::Always } else { When::Needed }));
            }
        }
    }
    if wanted.group.is_some() {
        uses.extend(ACCOUNTS.iter().map(|name| (*name, When::Always)));
    }
    if !unified && wanted.meter.is_some() {
        uses.push(("cpuacct", When::Always));
    }
    // Version 2 freezes and kills by itself.
    if !unified {
        uses.push(("freezer", When::Always));
    }
    let mut places: Vec<LegacyPlace> = Vec::new();
    for (controller, when) in uses {
        let Ok(parent) = legacy_parent(controller, wanted, cgroups) else { continue };
        match places.iter_mut().find(|place| place.parent == parent) {
            Some(place) => place.when = place.when.max(when),
            None => {
                let controllers = cgroups.legacy_with(controller).map(|legacy| legacy.controllers.clone());
                places.push(LegacyPlace { controllers: controllers.unwrap_or_default(), parent, when });
            }
        }
    }
    places
}
