//! Mistakes in the limits of a group. It must not ask the host anything.

use std::path::Component;
use std::time::Duration;

use super::cpuset::MOST;
use super::{Cgroup, CpuQuota, GroupLimit, LimitKind};
use crate::error::Mistake;

/// Below a page the kernel makes nothing of it: no program runs.
const PAGE: u64 = 4096;

pub(in crate::policy) fn check(cgroup: &Cgroup, mistakes: &mut Vec<Mistake>) {
    for wanted in &cgroup.limits {
        if let Some(why) = fault(&wanted.value, cgroup) {
            mistakes.push(Mistake::GroupLimit { limit: wanted.value.to_string(), why });
        }
    }
    for parent in &cgroup.parents {
        let bad = parent.components().any(|part| part == Component::ParentDir);
        if bad || !parent.is_absolute() {
            let why = "a parent group is an absolute path without \"..\"";
            mistakes.push(Mistake::BadPath { path: parent.clone(), why });
        }
    }
}

fn fault(limit: &GroupLimit, cgroup: &Cgroup) -> Option<&'static str> {
    let above_max = |bytes: u64| cgroup.memory().is_some_and(|max| bytes > max);
    let weight = |weight: u64| !(1..=10_000).contains(&weight);
    match limit {
        GroupLimit::Memory(bytes) if *bytes < PAGE => Some("less than a page: no program could run"),
        GroupLimit::MemoryHigh(bytes) if *bytes < PAGE => Some("less than a page: no program could run"),
        GroupLimit::MemoryHigh(bytes) | GroupLimit::MemoryLow(bytes) | GroupLimit::MemoryMin(bytes)
            if above_max(*bytes) =>
        {
            Some("above the limit of memory")
        }
        GroupLimit::Processes(0) => Some("no program could run"),
        GroupLimit::Cpu(CpuQuota { quota, period }) => cpu(*quota, *period),
        GroupLimit::CpuBurst(_) if cgroup.find(LimitKind::Cpu).is_none() => {
            Some("there is no quota that it could exceed: say cpu() too")
        }
        GroupLimit::CpuWeight(value) | GroupLimit::IoWeight(value) if weight(*value) => {
            Some("possible are 1 to 10000")
        }
        GroupLimit::Cpus(set) | GroupLimit::Mems(set) if set.is_empty() => Some("the set is empty"),
        GroupLimit::Cpus(set) | GroupLimit::Mems(set) if set.iter().any(|number| number >= MOST) => {
            Some("a number is above 8191")
        }
        GroupLimit::IoMax(_, max) => {
            let values = [max.read_bytes, max.write_bytes, max.read_operations, max.write_operations];
            let none = values.iter().all(Option::is_none);
            let zero = values.contains(&Some(0));
            if none { Some("it limits nothing") } else { zero.then_some("nothing could be read or written") }
        }
        GroupLimit::Hugetlb { page, .. } if !page.is_power_of_two() || *page <= PAGE => {
            Some("no size of a huge page: a power of two above 4096")
        }
        GroupLimit::Devices(rules) if rules.iter().any(|rule| rule.access.is_empty()) => {
            Some("a rule allows nothing: leave it out")
        }
        GroupLimit::NetPriority { interface, .. }
            if interface.is_empty() || interface.len() > 15 || interface.contains([' ', '/', '\0', '\n']) =>
        {
            Some("no name of an interface: 1 to 15 bytes without a blank or slash")
        }
        GroupLimit::Memory(_)
        | GroupLimit::MemoryHigh(_)
        | GroupLimit::MemoryLow(_)
        | GroupLimit::MemoryMin(_)
        | GroupLimit::Swap(_)
        | GroupLimit::OomGroup
        | GroupLimit::Processes(_)
        | GroupLimit::CpuWeight(_)
        | GroupLimit::CpuBurst(_)
        | GroupLimit::Cpus(_)
        | GroupLimit::Mems(_)
        | GroupLimit::IoWeight(_)
        | GroupLimit::Hugetlb { .. }
        | GroupLimit::Devices(_)
        | GroupLimit::NetClass(_)
        | GroupLimit::NetPriority { .. } => None,
    }
}

/// The bounds of the kernel: kernel/sched/core.c, `min_cfs_quota_period`, `max_cfs_quota_period`.
fn cpu(quota: Duration, period: Duration) -> Option<&'static str> {
    if period < Duration::from_millis(1) || period > Duration::from_secs(1) {
        return Some("a period is 1 ms to 1 s");
    }
    let most = Duration::from_secs(MOST.into());
    (quota < Duration::from_millis(1) || quota > most).then_some("a quota is 1 ms to 8192 s")
}
