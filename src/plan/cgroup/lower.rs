//! From a limit to the files that take it, in either version. It must not know the host.

use std::time::Duration;

use super::{Deed, Shows, Strength, Write};
use crate::policy::{CpuQuota, CpuSet, DeviceNumber, GroupLimit, IoMax};

/// What version of the limit there is: what to do, how it holds, and why it is less than hard.
pub(crate) type Lowered = Result<(Deed, Strength, Option<&'static str>), String>;

fn hard(controller: &'static str, steps: Vec<Vec<Write>>) -> Lowered {
    Ok((Deed::Files { controller, steps }, Strength::Hard, None))
}

fn one(file: &str, text: impl Into<String>, shows: Shows) -> Vec<Write> {
    vec![Write { file: file.to_owned(), text: text.into(), shows }]
}

fn number(file: &str, value: u64) -> Vec<Write> {
    one(file, value.to_string(), Shows::Number(value))
}

fn bytes(file: &str, value: u64) -> Vec<Write> {
    one(file, value.to_string(), Shows::Bytes(value))
}

fn set(file: &str, value: &CpuSet) -> Vec<Write> {
    one(file, value.to_string(), Shows::Set(value.clone()))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `2MB`, as the files of the hugetlb controller are named.
fn page_name(page: u64) -> String {
    match page {
        page if page >= 1 << 30 => format!("{}GB", page >> 30),
        page if page >= 1 << 20 => format!("{}MB", page >> 20),
        page => format!("{}KB", page >> 10),
    }
}

/// The scale of BFQ ends at 1000, and its default is 100 too.
fn bfq_weight(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 }
}

/// In cgroup v2 (the kernel's admin-guide/cgroup-v2).
pub(crate) fn unified(limit: &GroupLimit) -> Lowered {
    match limit {
        GroupLimit::Memory(value) => hard("memory", vec![bytes("memory.max", *value)]),
        GroupLimit::MemoryHigh(value) => hard("memory", vec![bytes("memory.high", *value)]),
        GroupLimit::MemoryLow(value) => hard("memory", vec![bytes("memory.low", *value)]),
        GroupLimit::MemoryMin(value) => hard("memory", vec![bytes("memory.min", *value)]),
        GroupLimit::Swap(value) => hard("memory", vec![bytes("memory.swap.max", *value)]),
        GroupLimit::OomGroup => hard("memory", vec![number("memory.oom.group", 1)]),
        GroupLimit::Processes(value) => hard("pids", vec![number("pids.max", *value)]),
        GroupLimit::Cpu(CpuQuota { quota, period }) => {
            let text = format!("{} {}", micros(*quota), micros(*period));
            hard("cpu", vec![one("cpu.max", text.clone(), Shows::Words(text))])
        }
        GroupLimit::CpuWeight(value) => hard("cpu", vec![number("cpu.weight", *value)]),
        GroupLimit::CpuBurst(burst) => hard("cpu", vec![number("cpu.max.burst", micros(*burst))]),
        GroupLimit::Cpus(value) => hard("cpuset", vec![set("cpuset.cpus", value)]),
        GroupLimit::Mems(value) => hard("cpuset", vec![set("cpuset.mems", value)]),
        GroupLimit::IoMax(device, max) => hard("io", vec![io_max(*device, *max)]),
        GroupLimit::IoWeight(value) => {
            let default = |file: &str, value: u64| {
                let text = format!("default {value}");
                Write { file: file.to_owned(), text: text.clone(), shows: Shows::Line(text) }
            };
            let either = vec![default("io.weight", *value), default("io.bfq.weight", bfq_weight(*value))];
            hard("io", vec![either])
        }
        GroupLimit::Hugetlb { page, limit } => {
            hard("hugetlb", vec![bytes(&format!("hugetlb.{}.max", page_name(*page)), *limit)])
        }
        GroupLimit::Devices(rules) => Ok((Deed::DeviceProgram(rules.clone()), Strength::Hard, None)),
        GroupLimit::NetClass(_) | GroupLimit::NetPriority { .. } => {
            Err("cgroup v2 has no controller for it".into())
        }
    }
}

fn io_max(device: DeviceNumber, max: IoMax) -> Vec<Write> {
    let values = [
        ("rbps", max.read_bytes),
        ("wbps", max.write_bytes),
        ("riops", max.read_operations),
        ("wiops", max.write_operations),
    ];
    let words = values.iter().filter_map(|(name, value)| Some(format!(" {name}={}", (*value)?)));
    let text = format!("{device}{}", words.collect::<String>());
    one("io.max", text.clone(), Shows::Line(text))
}

/// In cgroup v1 (the kernel's admin-guide/cgroup-v1). `memory` is the limit of memory beside this one.
pub(crate) fn legacy(limit: &GroupLimit, memory: Option<u64>) -> Lowered {
    match limit {
        GroupLimit::Memory(value) => hard("memory", vec![bytes("memory.limit_in_bytes", *value)]),
        GroupLimit::MemoryHigh(value) => {
            let steps = vec![bytes("memory.soft_limit_in_bytes", *value)];
            let caveat = "it is looked at only when the machine is short of memory";
            Ok((Deed::Files { controller: "memory", steps }, Strength::Approximate, Some(caveat)))
        }
        GroupLimit::MemoryLow(_) | GroupLimit::MemoryMin(_) => Err("cgroup v1 cannot protect memory".into()),
        GroupLimit::Swap(value) => match memory {
            Some(memory) => {
                let both = memory.saturating_add(*value);
                hard("memory", vec![bytes("memory.memsw.limit_in_bytes", both)])
            }
            None => Err("cgroup v1 counts memory and swap together: it needs memory() too".into()),
        },
        GroupLimit::OomGroup => Err("cgroup v1 ends one process at a time".into()),
        GroupLimit::Processes(value) => hard("pids", vec![number("pids.max", *value)]),
        GroupLimit::Cpu(CpuQuota { quota, period }) => {
            let period = number("cpu.cfs_period_us", micros(*period));
            hard("cpu", vec![period, number("cpu.cfs_quota_us", micros(*quota))])
        }
        GroupLimit::CpuWeight(value) => {
            let shares = (value * 1024 / 100).clamp(2, 262_144);
            hard("cpu", vec![number("cpu.shares", shares)])
        }
        GroupLimit::CpuBurst(burst) => hard("cpu", vec![number("cpu.cfs_burst_us", micros(*burst))]),
        GroupLimit::Cpus(value) => hard("cpuset", vec![set("cpuset.cpus", value)]),
        GroupLimit::Mems(value) => hard("cpuset", vec![set("cpuset.mems", value)]),
        GroupLimit::IoMax(device, max) => Ok(throttle(*device, *max)),
        GroupLimit::IoWeight(value) => {
            let weight = |file: &str, value: u64| Write {
                file: file.to_owned(),
                text: value.to_string(),
                shows: Shows::Number(value),
            };
            let scaled = (value * 5).clamp(10, 1000);
            let either = vec![weight("blkio.bfq.weight", bfq_weight(*value)), weight("blkio.weight", scaled)];
            hard("blkio", vec![either])
        }
        GroupLimit::Hugetlb { page, limit } => {
            hard("hugetlb", vec![bytes(&format!("hugetlb.{}.limit_in_bytes", page_name(*page)), *limit)])
        }
        GroupLimit::Devices(rules) => {
            let mut steps = vec![one("devices.deny", "a", Shows::Nothing)];
            steps.extend(rules.iter().map(|rule| one("devices.allow", rule.to_string(), Shows::Nothing)));
            hard("devices", steps)
        }
        GroupLimit::NetClass(class) => hard("net_cls", vec![number("net_cls.classid", u64::from(*class))]),
        GroupLimit::NetPriority { interface, priority } => {
            let text = format!("{interface} {priority}");
            hard("net_prio", vec![one("net_prio.ifpriomap", text.clone(), Shows::Line(text))])
        }
    }
}

fn throttle(device: DeviceNumber, max: IoMax) -> (Deed, Strength, Option<&'static str>) {
    let steps = [
        ("blkio.throttle.read_bps_device", max.read_bytes),
        ("blkio.throttle.write_bps_device", max.write_bytes),
        ("blkio.throttle.read_iops_device", max.read_operations),
        ("blkio.throttle.write_iops_device", max.write_operations),
    ];
    let steps = steps.iter().filter_map(|(file, value)| {
        let text = format!("{device} {}", (*value)?);
        Some(one(file, text.clone(), Shows::Line(text)))
    });
    let deed = Deed::Files { controller: "blkio", steps: steps.collect() };
    if max.write_bytes.is_some() || max.write_operations.is_some() {
        let caveat = "cgroup v1 does not see buffered writes";
        return (deed, Strength::Approximate, Some(caveat));
    }
    (deed, Strength::Hard, None)
}
