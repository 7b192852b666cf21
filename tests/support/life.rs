//! Helpers of the tests of processes and callers: processes of their own, a watchdog, eyes outside the sandbox.

use std::any::type_name;
use std::collections::BTreeSet;
use std::env;
use std::fmt::Display;
use std::fs;
use std::io::{PipeReader, Write, pipe, stderr};
use std::process::{Command as Process, Output, Stdio, abort};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use ringfence::{Builder, Child, Command, Mount, Outcome, Sandbox, Stdio as Piped};

/// Set in a process that runs one test alone; its value is the role.
const ROLE: &str = "RINGFENCE_TEST_ROLE";

/// Aborts the test process when it is not dropped in time: nothing may hang.
pub(crate) struct Watchdog(Option<Sender<()>>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// A watchdog of so many seconds, or four times as long on an emulated machine.
pub(crate) fn watchdog(least: u64) -> Watchdog {
    let seconds = if fewer() > 1 { 4 * least } else { least };
    let (sender, receiver) = channel();
    let name = thread::current().name().unwrap_or("test").to_owned();
    thread::spawn(move || {
        if receiver.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
            say(&format!("WATCHDOG {name}: it hangs ({seconds} s)"));
            abort();
        }
    });
    Watchdog(Some(sender))
}

/// So many rounds of something, or a share of them where `RINGFENCE_FEWER` says which: a launch takes twenty times as long on an
/// emulated machine.
pub(crate) fn rounds(count: usize) -> usize {
    count.div_ceil(fewer())
}

fn fewer() -> usize {
    env::var("RINGFENCE_FEWER").map_or(1, |text| text.parse().expect("RINGFENCE_FEWER is a number"))
}

/// A line that no harness swallows.
pub(crate) fn say(line: &str) {
    // A closed standard error is none of the test's business.
    writeln!(stderr(), "{line}").ok();
}

/// Says that a test could not run here, and why.
pub(crate) fn skipped(name: &str, reason: &str) {
    say(&format!("SKIPPED {name}: {reason}"));
}

/// `tests::name` of the test that a closure stands in.
pub(crate) fn test_name<F>(_: &F) -> String {
    let whole = type_name::<F>();
    let path = whole.split_once("::").map_or(whole, |(_, path)| path);
    path.split("::{{closure}}").next().unwrap_or(path).to_owned()
}

/// This test binary once more, running only the test `name`, in the given role.
pub(crate) fn again(name: &str, role: &str) -> Process {
    let mut process = Process::new(env::current_exe().unwrap());
    process.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    process
}

/// The role of this process, if it was started by [`again`].
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs the body in a process of its own: what it looks at, or changes, belongs to the whole process.
pub(crate) fn alone<F: FnOnce()>(body: F) {
    let name = test_name(&body);
    if role().is_some() {
        let _watchdog = watchdog(240);
        body();
        return;
    }
    let output = again(&name, "alone").stdin(Stdio::null()).output().unwrap();
    let shown = text(&output);
    for line in shown.lines().filter(|line| line.starts_with("SKIPPED")) {
        say(line);
    }
    assert!(output.status.success() && shown.contains("1 passed"), "{name} alone: {shown}");
}

/// Whether the caller is root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A sandbox with the host's programs. A loaded or emulated machine may take long to set it up.
pub(crate) fn system() -> Builder {
    Sandbox::builder().system_read_only().setup_timeout(Duration::from_secs(60))
}

/// `sh -c SCRIPT` in it.
pub(crate) fn shell(sandbox: &Sandbox, script: &str) -> Command {
    let mut command = sandbox.command("sh");
    command.args(["-c", script]);
    command
}

/// What the script wrote, after it succeeded.
pub(crate) fn said(outcome: &Outcome) -> String {
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert!(outcome.success(), "{:?}\n{text}\n{}", outcome.status, String::from_utf8_lossy(&outcome.stderr));
    text
}

/// Looks until it is so, or so many seconds have passed.
pub(crate) fn eventually(seconds: u64, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The pids that the kernel shows now.
pub(crate) fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The inode text of a namespace of a process.
pub(crate) fn namespace(pid: impl Copy + Display, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// The processes in a pid namespace.
pub(crate) fn members(inode: &str) -> Vec<i32> {
    pids().into_iter().filter(|pid| namespace(pid, "pid").as_deref() == Some(inode)).collect()
}

/// The pid namespace of a running sandbox.
pub(crate) fn pid_namespace(child: &Child) -> String {
    namespace(child.id(), "pid").unwrap()
}

/// Every child of this process, zombies included.
pub(crate) fn children() -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok) {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    found
}

/// A field of `/proc/PID/status`.
pub(crate) fn status_field(pid: impl Copy + Display, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&text, name)
}

/// A field of a text of `name: value` lines.
pub(crate) fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// The descriptors of this process with what they lead to, except the one that lists them.
pub(crate) fn descriptors() -> Vec<(i32, String)> {
    let mut list: Vec<(i32, String)> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let to = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            (!to.ends_with("/fd")).then_some((number, to))
        })
        .collect();
    list.sort();
    list
}

/// Major and minor of the kernel's version.
pub(crate) fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map_while(|part| part.trim().parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Runs the body behind this fence: the test's own binary is the program. The ends of streams and the environment are
/// those of a plain command.
pub(crate) fn inside<F: FnOnce()>(builder: Builder, body: F) {
    inside_with(builder, |_| {}, |_| {}, body);
}

/// The same, with a word to the command, and something to do in the caller meanwhile.
pub(crate) fn inside_with<F: FnOnce()>(
    builder: Builder,
    prepare: impl FnOnce(&mut Command),
    meanwhile: impl FnOnce(&Child),
    body: F,
) {
    let name = test_name(&body);
    if role().as_deref() == Some("inside") {
        body();
        return;
    }
    let _watchdog = watchdog(120);
    let program = Mount::bind(env::current_exe().unwrap(), "/test");
    let sandbox = builder.mount(program).build().unwrap();
    let mut command = sandbox.command("/test");
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(ROLE, "inside");
    command.stdout(Piped::piped()).stderr(Piped::piped());
    prepare(&mut command);
    let child = command.spawn().unwrap();
    meanwhile(&child);
    let outcome = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    assert!(outcome.success() && out.contains("1 passed"), "{:?}\n{out}\n{err}", outcome.verdict());
}

/// The end of a pipe that gives these bytes and then its end.
pub(crate) fn full_pipe(bytes: &[u8]) -> PipeReader {
    let (read, mut write) = pipe().unwrap();
    write.write_all(bytes).unwrap();
    read
}
