//! What the integration tests share: sandboxes, payloads, scratch directories, re-runs of a test in other namespaces.
//! It must not assert anything of its own about a sandbox.
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    clippy::allow_attributes,
    reason = "every test file takes what it needs"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write, stderr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitflags::Flags;
use nix::unistd::{geteuid, getgid, getuid};
use ringfence::host::Features;
use ringfence::{Builder, Error, Host, Outcome, Result, Sandbox, Verdict};

/// Set, to the test's name, in a re-run of a single test.
pub(crate) const INSIDE: &str = "RINGFENCE_TEST_INSIDE";
/// Features that a re-run takes away from what this machine has, by name.
const WITHOUT: &str = "RINGFENCE_TEST_WITHOUT";

/// Names a test that cannot run here, with the reason, whatever becomes of captured output; and returns from it.
macro_rules! skip {
    ($name:expr, $($reason:tt)*) => {{
        $crate::support::say(&format!("SKIPPED {}: {}", $name, format_args!($($reason)*)));
        return;
    }};
}
pub(crate) use skip;

/// One line to the real standard error, which libtest does not capture.
pub(crate) fn say(line: &str) {
    writeln!(stderr(), "{line}").expect("standard error");
}

/// A builder with the host's programs. A loaded or emulated machine may take long to set it up.
pub(crate) fn sandbox() -> Builder {
    Sandbox::builder().system_read_only().setup_timeout(Duration::from_secs(60))
}

/// This machine, less what a re-run is to do without.
fn host() -> Host {
    let host = Host::probe();
    let without = env::var(WITHOUT).unwrap_or_default();
    let absent = named(host.features(), &without);
    host.without_features(absent)
}

/// Whether this is a re-run without that feature.
pub(crate) fn lacks(feature: &str) -> bool {
    env::var(WITHOUT).is_ok_and(|without| without.split(',').any(|name| name == feature))
}

/// Whether this machine has that, less what a re-run is to do without.
pub(crate) fn offers(feature: Features) -> bool {
    host().features().contains(feature)
}

/// The flags with these names, of the type of `one`.
fn named<F: Flags>(_one: F, names: &str) -> F {
    let names = names.split(',').filter(|name| !name.is_empty());
    names.fold(F::empty(), |all, name| all.union(F::from_name(name).expect("a feature")))
}

/// Checks and compiles.
pub(crate) fn compile(builder: &Builder) -> Result<Sandbox> {
    Sandbox::new(builder.policy()?, host())
}

/// Builds, or fails with the whole error.
#[expect(clippy::needless_pass_by_value, reason = "a builder is made to be used up")]
pub(crate) fn build(builder: Builder) -> Sandbox {
    compile(&builder).unwrap_or_else(|error| panic!("build: {error:#}"))
}

/// Code, stdout, stderr of a program that ran; 128 and the signal where one ended it.
pub(crate) type Ran = (i32, String, String);

fn ran(outcome: Result<Outcome>) -> Ran {
    let outcome = outcome.unwrap_or_else(|error| panic!("spawn: {error:#}"));
    let code = match outcome.verdict() {
        Verdict::Exited(code) => code,
        Verdict::Signaled { signal, .. } => 128 + signal,
        verdict @ (Verdict::Killed | Verdict::Lost | _) => panic!("{verdict}"),
    };
    (code, text(&outcome.stdout), text(&outcome.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a shell script inside.
pub(crate) fn run_sh(sandbox: &Sandbox, script: &str) -> Ran {
    ran(sandbox.command("/bin/sh").args(["-c", script]).output())
}

/// Runs a Python script inside.
pub(crate) fn run_python(sandbox: &Sandbox, script: &str) -> Ran {
    ran(sandbox.command("/usr/bin/python3").args(["-c", script]).output())
}

/// What a shell script prints that has to succeed.
pub(crate) fn sh(sandbox: &Sandbox, script: &str) -> String {
    let (code, out, err) = run_sh(sandbox, script);
    assert_eq!(code, 0, "{script}\nstdout: {out}\nstderr: {err}");
    out.trim_end().to_owned()
}

/// What a Python script prints that has to succeed.
pub(crate) fn python(sandbox: &Sandbox, script: &str) -> String {
    let (code, out, err) = run_python(sandbox, script);
    assert_eq!(code, 0, "{script}\nstdout: {out}\nstderr: {err}");
    out.trim_end().to_owned()
}

/// The error of a spawn that has to fail.
#[expect(clippy::needless_pass_by_value, reason = "a builder is made to be used up")]
pub(crate) fn refused(builder: Builder) -> Error {
    match compile(&builder) {
        Err(error) => error,
        Ok(sandbox) => match sandbox.command("/bin/true").output() {
            Err(error) => error,
            Ok(outcome) => panic!("it ran: {outcome:?}"),
        },
    }
}

/// Whether this process is root in its user namespace.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A directory of the host's with a name of its own, gone at the end. Everyone may enter it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A process that was killed left its directory behind, and process ids come round again.
        let path = loop {
            let name = format!("ringfence-test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("scratch directory {}: {error}", path.display()),
            }
        };
        mode(&path, 0o755);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A directory in it that everyone may write to.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).expect("directory");
        mode(&path, 0o777);
        path
    }

    /// A file in it that everyone may write to.
    pub(crate) fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, contents).expect("file");
        mode(&path, 0o666);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say(&format!("{}: {error}", self.0.display()));
        }
    }
}

/// Sets a mode.
pub(crate) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Every path below a directory, with what it is and holds.
pub(crate) fn snapshot(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).expect("read_dir") {
            let path = entry.expect("entry").path();
            let kind = fs::symlink_metadata(&path).expect("lstat").file_type();
            let what = if kind.is_dir() {
                open.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("symlink to {:?}", fs::read_link(&path).expect("readlink"))
            } else if kind.is_file() {
                format!("file {:?}", fs::read(&path).expect("read"))
            } else {
                "other".to_owned()
            };
            all.insert(path, what);
        }
    }
    all
}

/// Whether this process is the re-run of that test.
pub(crate) fn is_inside(test: &str) -> bool {
    env::var(INSIDE).is_ok_and(|name| name == test)
}

/// Runs one test of this binary again, behind a shell script that ends in `exec "$@"` and that `wrapper` starts.
pub(crate) fn rerun(test: &str, wrapper: &[&str], script: &str, variables: &[(&str, &Path)]) {
    // What the script makes on the host is for the sandbox's host ids too, whatever the caller's umask.
    let output = rerun_output(test, wrapper, &format!("umask 022; {script}"), variables);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test} inside:\n{out}\n{err}");
    err.lines().filter(|line| line.starts_with("SKIPPED")).for_each(say);
}

fn rerun_output(test: &str, wrapper: &[&str], script: &str, variables: &[(&str, &Path)]) -> Output {
    let myself = env::current_exe().expect("current_exe");
    let name = format!("tests::{test}");
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).args(["sh", "-ec", script, "sh"]).arg(myself);
    command.args(["--exact", name.as_str(), "--nocapture", "--test-threads=1"]);
    command.envs(variables.iter().copied()).env(INSIDE, test);
    command.output().expect("unshare")
}

/// Runs one test again in a mount namespace of its own, after `script` has mounted what it wants there, as the caller that
/// this process is: root stays root, and another user is that user again in a user namespace that does not own the mounts.
pub(crate) fn rerun_with_mounts(test: &str, script: &str, variables: &[(&str, &Path)]) {
    let (uid, gid) = (getuid(), getgid());
    if is_root() {
        return rerun(test, &["unshare", "--mount"], &format!("{script}\nexec \"$@\""), variables);
    }
    let back = format!("{script}\nexec unshare --user --map-user={uid} --map-group={gid} \"$@\"");
    rerun(test, &["unshare", "--user", "--map-root-user", "--mount"], &back, variables);
}

/// Runs every other test of this binary again, as on kernels without these calls; `myself` is the test that asks.
pub(crate) fn rerun_without(myself: &str, features: &[&str]) {
    if env::var_os(WITHOUT).is_some() {
        return;
    }
    let mut failures = String::new();
    for without in features {
        let mut command = Command::new(env::current_exe().expect("current_exe"));
        command.args(["--skip", myself]).env(WITHOUT, without).env("RUST_BACKTRACE", "0");
        let output = command.output().expect("rerun");
        if !output.status.success() {
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            failures.push_str(&format!("without {without}:\n{out}\n{err}\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// A path that `rerun` handed over.
pub(crate) fn handed(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(name).expect("variable"))
}

/// A static program made of C, in `directory`.
pub(crate) fn static_program(directory: &Path, source: &str) -> Option<PathBuf> {
    let (from, to) = (directory.join("program.c"), directory.join("program"));
    File::create(&from).and_then(|mut file| file.write_all(source.as_bytes())).expect("program.c");
    let done = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&to).arg(&from).output();
    let made = done.is_ok_and(|output| output.status.success());
    if made {
        mode(&to, 0o755);
    }
    made.then_some(to)
}

/// One line of a `/proc/PID/status` or the like: what stands behind `name:`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    pub(crate) root: String,
    pub(crate) at: PathBuf,
    pub(crate) options: Vec<String>,
    pub(crate) propagation: Vec<String>,
    pub(crate) kind: String,
}

impl MountLine {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|other| other == option)
    }
}

/// The lines of a mountinfo.
pub(crate) fn mountinfo(text: &str) -> Vec<MountLine> {
    let owned = |word: &str| word.to_owned();
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ").expect("mountinfo");
        let words: Vec<&str> = left.split(' ').collect();
        MountLine {
            root: owned(words[3]),
            at: PathBuf::from(words[4]),
            options: words[5].split(',').map(owned).collect(),
            propagation: words[6..].iter().copied().map(owned).collect(),
            kind: owned(right.split(' ').next().expect("type")),
        }
    };
    text.lines().map(line).collect()
}
