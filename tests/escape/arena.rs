//! The throw-away host: mount, pid, IPC, UTS and network namespaces with private propagation, a tree, a victim and what
//! careless callers leave about. Everything runs in it, fenced or not. It must not touch the machine's own.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use nix::unistd::{getgid, getuid};

use super::support::{INSIDE, Scratch, is_inside, is_root, mode, say, snapshot};

/// A ready payload, for machines without a compiler.
const READY_PAYLOAD: &str = "RINGFENCE_ESCAPE_PAYLOAD";
/// Where the throw-away tree is.
const PLACE: &str = "ESC_SCRATCH";

/// Makes the tree that is planted; `$ESC_SCRATCH` is a tmpfs by then.
const TREE: &str = "
# firejail takes a place without kernel threads for a sandbox, and then does nothing.
\"$ESC_PAYLOAD\" kthreadd &
umask 022
cd \"$ESC_SCRATCH\"
mkdir -p outside/deep ro/sub ro/cover rw jail/old jail/tmp jail/proc place tree/open tree/closed/below
cp \"$ESC_PAYLOAD\" escape
cp escape rw/suid
cp escape rw/capable
mount -t tmpfs -o mode=1777 sub ro/sub
echo \"$ESC_TOKEN\" >outside/secret
for file in outside/leaked ro/file ro/cover/masked tree/closed/secret tree/closed/below/secret; do
    echo \"$ESC_TOKEN\" >$file
done
echo own >ro/own
chmod 666 ro/file ro/cover/masked tree/closed/secret tree/closed/below/secret
chmod 777 outside/deep ro rw tree/open tree/closed tree/closed/below
chmod 4755 rw/suid
\"$ESC_PAYLOAD\" loopback
mount -t tmpfs -o mode=1777 shm /dev/shm
if [ -d /run/firejail ]; then mount -t tmpfs -o mode=755 firejail /run/firejail; fi
(echo 4000 >/proc/sys/kernel/ns_last_pid) 2>/dev/null || true
";

/// The payload; what it was made in for this process alone is gone with it.
#[derive(Debug)]
pub(crate) struct Payload {
    path: PathBuf,
    _made_in: Option<Scratch>,
}

impl Payload {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A program that includes every source, and a name that changes with what they say.
fn sources() -> (String, String) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape");
    let (mut all, mut hasher) = (String::new(), DefaultHasher::new());
    for folder in [directory.clone(), directory.join("tricks")] {
        let entries = fs::read_dir(folder).expect("the sources");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        let is_c = |file: &&PathBuf| file.extension().is_some_and(|end| end == "c" || end == "h");
        for file in files.iter().filter(is_c) {
            (file, fs::read(file).expect("a source")).hash(&mut hasher);
            if file.extension().is_some_and(|end| end == "c") {
                all += &format!("#include \"{}\"\n", file.display());
            }
        }
    }
    (all, format!("escape-{:016x}", hasher.finish()))
}

fn compile(source: &str, to: &Path) -> Option<()> {
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-x", "c", "-", "-o"]).arg(to);
    let mut child = compiler.stdin(Stdio::piped()).spawn().ok()?;
    child.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("gcc reads");
    let status = child.wait().expect("gcc");
    assert!(status.success(), "gcc: {status}");
    mode(to, 0o755);
    Some(())
}

/// The payload, from an earlier run where there is one; `None` where there is no compiler.
pub(crate) fn payload() -> Option<Payload> {
    let kept = |path| Payload { path, _made_in: None };
    if let Some(ready) = env::var_os(READY_PAYLOAD).map(PathBuf::from).filter(|ready| ready.is_file()) {
        return Some(kept(ready));
    }
    let (source, name) = sources();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    if path.is_file() {
        return Some(kept(path));
    }
    let scratch = Scratch::new();
    let own = scratch.at("escape");
    compile(&source, &own)?;
    // Another test may do the same: the last one stays, and both are alike. Another user's directory is not for us.
    let next = path.with_extension(process::id().to_string());
    match fs::copy(&own, &next).and_then(|_| fs::rename(&next, &path)) {
        Ok(()) => Some(kept(path)),
        Err(_) => Some(Payload { path: own, _made_in: Some(scratch) }),
    }
}

/// Whether this is the arena for that test of that module. If not, runs the test again in one, and is done.
pub(crate) fn enter(module: &str, test: &str) -> bool {
    if is_inside(test) {
        return true;
    }
    let Some(payload) = payload() else {
        say(&format!("SKIPPED {test}: there is no gcc to make the payload with"));
        return false;
    };
    let scratch = Scratch::new();
    let again = "exec \"$ESC_PAYLOAD\" plant \"$ESC_SCRATCH\" \"$@\"";
    let (mut command, script) = if is_root() {
        let caps = "\"$ESC_PAYLOAD\" setcap \"$ESC_SCRATCH/rw/capable\"";
        (Command::new("unshare"), format!("{TREE}\n{caps}\n{again}"))
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]);
        // Back to the caller, in a user namespace that owns none of the others.
        let back = format!("unshare --user --map-user={} --map-group={}", getuid(), getgid());
        (command, format!("{TREE}\n{}", again.replacen("exec ", &format!("exec {back} "), 1)))
    };
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--ipc", "--uts", "--net", "sh", "-ec"]);
    command.arg(format!("mount -t tmpfs -o mode=755 arena \"$ESC_SCRATCH\"\n{script}")).arg("sh");
    command.arg(env::current_exe().expect("current_exe"));
    let name = format!("{}::{test}", module.split_once("::").expect("a module").1);
    command.args(["--exact", name.as_str(), "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, test).env("ESC_PAYLOAD", payload.path()).env(PLACE, scratch.path());
    command.env("ESC_SECRET", scratch.at("outside/secret"));
    command.env("ESC_TOKEN", format!("secret-{}-{:016x}", process::id(), unguessable()));
    let output = command.stdin(Stdio::null()).output().expect("unshare");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test} in its arena:\n{out}\n{err}");
    err.lines().filter(|line| line.starts_with("SKIPPED")).for_each(say);
    say_table(&out);
    false
}

/// Tables pass through the re-run, for `--nocapture`.
#[expect(clippy::print_stdout, reason = "a table for whoever asks for it")]
fn say_table(out: &str) {
    out.lines().filter(|line| line.starts_with('|')).for_each(|line| println!("{line}"));
}

fn unguessable() -> u64 {
    let mut bytes = [0; 8];
    let mut source = File::open("/dev/urandom").expect("/dev/urandom");
    source.read_exact(&mut bytes).expect("random bytes");
    u64::from_ne_bytes(bytes)
}

/// Something of the tree.
pub(crate) fn at(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(PLACE).expect("an arena")).join(name)
}

/// What was planted, for the payload's environment.
pub(crate) fn planted() -> Vec<(String, String)> {
    env::vars().filter(|(name, _)| name.starts_with("ESC_") && name != "ESC_PAYLOAD").collect()
}

/// What must be the same after a fenced run: the victim's state, and every file that nobody was given to write to.
pub(crate) fn untouched() -> Vec<(PathBuf, String)> {
    let mut all = vec![(at("state"), format!("{:?}", fs::read(at("state")).expect("state")))];
    for part in ["outside", "ro", "jail", "place", "escape"] {
        let path = at(part);
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            all.push((path.clone(), format!("{:?}", fs::read(&path).map(|bytes| bytes.len()))));
        }
    }
    all
}

/// The handle of a file, for tricks that open by it.
pub(crate) fn handle_of(path: &Path) -> String {
    let output = Command::new(at("escape")).arg("handle").arg(path).output().expect("handle");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
