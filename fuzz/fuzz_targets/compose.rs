//! Texts of `/proc` composed of words that the kernel writes, and of some that it does not: bytes alone seldom make two lines
//! that have to do with one another.

#[path = "../../tests/support/oracle/dice.rs"]
#[allow(dead_code)]
mod dice;

use dice::Dice;

const PATHS: [&str; 10] =
    ["/", "/a", "/a/b", "/ab", "/a/b/c", "/a\\040b", "/a\\134", "//a/./b", "/sys/fs/cgroup", "/a//deleted"];
const ROOTS: [&str; 7] = ["/", "/a", "/a/b", "/ab", "", "net:[4026532450]", "/.."];
const OPTIONS: [&str; 6] = ["rw", "ro", "rw,nosuid,nodev", "ro,noexec,relatime", "rw,noatime,nodiratime", ""];
const GROUPS: [&str; 5] = ["", "shared:1 ", "master:2 propagate_from:1 ", "unbindable ", "new:x "];
const KINDS: [&str; 4] = ["cgroup", "cgroup2", "proc", "tmpfs"];
const SUPERS: [&str; 6] = ["rw,pids", "ro,pids", "rw,cpu,cpuacct", "rw,cpu", "rw,name=systemd", "rw"];
const CONTROLLERS: [&str; 6] = ["", "pids", "cpu,cpuacct", "cpu", "name=systemd", "cpuset"];
const OWN: [&str; 9] = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/../x", "/a/../b", "/a/b (deleted)", "relative"];
const KEYS: [&str; 14] = [
    "Uid", "Gid", "Groups", "NSpid", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd",
    "CapAmb", "VmRSS", "Threads",
];
const VALUES: [&str; 10] = [
    "\t0\t0\t0\t0",
    "\t1 2 3 4",
    "\t77\t5\t2",
    "\t000001ffffffffff",
    "\t+ff",
    "",
    "\t-1",
    "\t0x1",
    "\t 512 kB",
    "\t1 2 3",
];

/// Lines of mountinfo. Ids are few, so that mounts lie on one another.
pub(crate) fn mountinfo(dice: &mut Dice<'_>) -> String {
    let mut text = String::new();
    for _ in 0..dice.below(8) {
        let (id, parent) = (1 + dice.below(6), 1 + dice.below(6));
        let (root, point) = (dice.pick(&ROOTS), dice.pick(&PATHS));
        let (options, groups) = (dice.pick(&OPTIONS), dice.pick(&GROUPS));
        let (kind, its) = (dice.pick(&KINDS), dice.pick(&SUPERS));
        text.push_str(&format!(
            "{id} {parent} 0:{id} {root} {point} {options} {groups}- {kind} {kind} {its}\n"
        ));
    }
    text
}

/// Lines of `/proc/PID/cgroup`.
pub(crate) fn cgroup(dice: &mut Dice<'_>) -> String {
    let lines =
        (0..dice.below(5)).map(|id| format!("{id}:{}:{}\n", dice.pick(&CONTROLLERS), dice.pick(&OWN)));
    lines.collect()
}

/// Lines of `/proc/PID/status`.
pub(crate) fn status(dice: &mut Dice<'_>) -> String {
    (0..dice.below(10)).map(|_| format!("{}:{}\n", dice.pick(&KEYS), dice.pick(&VALUES))).collect()
}

/// A list of CPUs.
pub(crate) fn list(dice: &mut Dice<'_>) -> String {
    let part = |dice: &mut Dice<'_>| match (dice.below(12), dice.below(4)) {
        (first, 0) => format!("{first}-{}", first + dice.below(4)),
        (first, _) => first.to_string(),
    };
    (0..dice.below(6)).map(|_| part(dice)).collect::<Vec<_>>().join(",")
}

/// Choices made of these bytes.
pub(crate) fn dice(bytes: &[u8]) -> Dice<'_> {
    Dice::new(bytes)
}
