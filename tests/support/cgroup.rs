//! Helpers of the tests of control groups: payloads, and eyes on the groups from outside.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ringfence::host::Cgroups;
use ringfence::{Builder, Child, Command, Host, LimitKind, LimitState, Sandbox, Stats, Stdio};

pub(crate) const MIB: u64 = 1 << 20;

/// Makes processes until that fails; says how many and why.
pub(crate) const BOMB: &str = "import os, time
made = 0
try:
  while made < 200:
    if os.fork() == 0: time.sleep(60); os._exit(0)
    made += 1
except OSError as e: print(made, e.errno)";

/// Touches 200 MiB.
pub(crate) const TOUCH: &str = "b = bytearray(200 << 20)
for i in range(0, len(b), 4096): b[i] = 1
print('done')";

/// Says on which CPUs it may run.
pub(crate) const AFFINITY: &str = "import os; print(sorted(os.sched_getaffinity(0)))";

/// Uses 0.3 s of CPU time.
pub(crate) const BUSY: &str = "import time
end = time.process_time() + 0.3
while time.process_time() < end: pass";

/// Says `a`; after a line takes 50 MiB and another process, and says `b`.
pub(crate) const GROW: &str = "import sys, os, time
print('a', flush=True)
sys.stdin.readline()
b = bytearray(50 << 20)
if os.fork() == 0: time.sleep(100)
print('b', flush=True)
sys.stdin.readline()";

/// On this machine, but with these groups around the caller.
#[expect(clippy::needless_pass_by_value, reason = "a builder is made to be used up")]
pub(crate) fn with(builder: Builder, cgroups: Cgroups) -> Sandbox {
    Sandbox::new(builder.policy().unwrap(), Host::probe().with_cgroups(cgroups)).unwrap()
}

pub(crate) fn python(sandbox: &Sandbox, script: &str) -> Command {
    let mut command = sandbox.command("/usr/bin/python3");
    command.args(["-c", script]);
    command
}

pub(crate) fn state(states: &[LimitState], kind: LimitKind) -> LimitState {
    states.iter().find(|state| state.limit.kind() == kind).expect("a state").clone()
}

/// The group of a process in the hierarchy with this controller; in version 2 for an empty name.
pub(crate) fn group(cgroups: &Cgroups, pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = text.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|c| c == controller));
    let path = line.unwrap().splitn(3, ':').nth(2).unwrap();
    let mount = match controller {
        "" => &cgroups.unified.as_ref().unwrap().mount,
        name => &cgroups.legacy_with(name).unwrap().mount,
    };
    mount.join(path.trim_start_matches('/'))
}

/// Groups that a process has made below any parent that it could have.
pub(crate) fn groups_of(pid: u32) -> Vec<PathBuf> {
    let cgroups = Host::probe().cgroups().clone();
    let own = cgroups.legacy.iter().filter_map(|legacy| legacy.own.clone());
    let unified =
        cgroups.unified.iter().flat_map(|unified| unified.groups.iter().map(|g| g.directory.clone()));
    let parents: BTreeSet<PathBuf> = own.chain(unified).collect();
    let prefix = format!("ringfence-{pid}-");
    let ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    let entries = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ours).collect()
}

/// A line of what it writes.
pub(crate) fn line(child: &mut Child) -> String {
    let stream = child.stdout.as_mut().unwrap();
    let (mut text, mut byte) = (String::new(), [0]);
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        text.push(char::from(byte[0]));
    }
    text
}

/// A program whose child writes a line every few milliseconds.
pub(crate) fn ticking(sandbox: &Sandbox) -> Child {
    let script = "(while :; do echo tick; sleep 0.01; done) & wait";
    let mut command = sandbox.command("sh");
    let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(line(&mut child), "tick");
    child
}

/// Whether the tree uses no CPU time for a while. What it used before may be counted late.
pub(crate) fn stands_still(child: &Child) -> bool {
    let used = || child.stats().unwrap().cpu;
    (0..5).any(|_| {
        let before = used();
        thread::sleep(Duration::from_millis(200));
        before == used()
    })
}

/// CPU time in all: the kernel divides it by samples, so a short run may have none of one sort.
pub(crate) fn cpu(stats: Stats) -> Duration {
    stats.cpu.user.unwrap() + stats.cpu.system.unwrap()
}

/// What `/proc/self/cgroup` says has to be the root everywhere.
pub(crate) fn all_roots(text: &str) {
    for line in text.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap();
        assert_eq!(Path::new(path), Path::new("/"), "{text}");
    }
}
