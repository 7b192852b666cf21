//! Helpers of the tests of commands that join a living sandbox.

use std::io::Read;

use ringfence::host::Features;
use ringfence::{
    Access, Builder, Child, Command, Host, Init, Launch, Mount, MountKind, NamespaceSets, Namespaces,
    ProcMount, ProcRung, Sandbox, Stdio, TimeOffsets, prefer,
};

use super::support::{is_root, shell, system};

/// Everything that a process is confined by, as it sees that itself.
pub(crate) const STATE: &str =
    "for n in user mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done
cat /proc/self/mountinfo /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj
grep -E '^(Uid|Gid|Groups|Cap.*|NoNewPrivs|Seccomp.*|SigBlk|SigIgn):' /proc/self/status
umask; nice; uname -n; readlink /proc/self/root
python3 -c 'import ctypes
l = ctypes.CDLL(None, use_errno=True)
print(l.prctl(27, 0, 0, 0, 0), l.prctl(3, 0, 0, 0, 0), l.personality(0xffffffff))
for call in (272, 155, 165, 308, 246, 250, 321, 425):
  print(call, l.syscall(call, 0, 0, 0, 0, 0, 0), ctypes.get_errno())'";

/// A sandbox whose program has said its state and waits, with that.
pub(crate) fn living(sandbox: &Sandbox) -> (Child, String) {
    let mut command = shell(sandbox, &format!("{STATE}\necho END; read line; exit 0"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{e:#}"));
    let text = until(&mut child, "END\n");
    (child, text.trim_end_matches("END\n").to_owned())
}

/// What it writes up to this text.
pub(crate) fn until(child: &mut Child, end: &str) -> String {
    let stream = child.stdout.as_mut().unwrap();
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with(end) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the end, after {text:?}");
        text.push(char::from(byte[0]));
    }
    text
}

/// `sh -c SCRIPT` that joins.
pub(crate) fn joining(child: &Child, script: &str) -> Command {
    let mut command = child.command("sh");
    command.args(["-c", script]);
    command
}

fn one_by_one(builder: &Builder) -> Sandbox {
    let host = Host::probe().without_features(Features::SETNS_PIDFD);
    Sandbox::new(builder.policy().unwrap(), host).unwrap()
}

/// The host's programs and `/proc`, for sandboxes without a pid namespace.
fn hosts_proc() -> Builder {
    proc(ProcRung::HostReadOnly)
}

/// The host's programs, and this `/proc`.
fn proc(rung: ProcRung) -> Builder {
    let proc = ProcMount { ladder: vec![rung] };
    Sandbox::builder()
        .bind("/usr", "/usr", Access::ReadOnly)
        .symlink("usr/bin", "/bin")
        .symlink("usr/lib", "/lib")
        .symlink("usr/lib64", "/lib64")
        .tmpfs("/tmp", 1 << 20)
        .dev()
        .mount(Mount::new("/proc", MountKind::Proc(proc)))
}

/// The host's root, and namespaces for other things.
fn bare() -> Builder {
    let set = Namespaces::USER | Namespaces::NET | Namespaces::IPC;
    Sandbox::builder().empty().namespaces(set)
}

/// On a kernel without cgroup namespaces the policy's second set is had.
fn weaker() -> Sandbox {
    let without = Namespaces::STANDARD.difference(Namespaces::CGROUP);
    let policy = system().namespaces(NamespaceSets::new([Namespaces::STANDARD, without])).policy().unwrap();
    Sandbox::new(policy, Host::probe().with_namespace_flags(Some(u64::from(without.bits())))).unwrap()
}

/// Sandboxes of every kind that this caller can have, each with a name.
pub(crate) fn kinds() -> Vec<(&'static str, Sandbox)> {
    let standard = Namespaces::STANDARD;
    let offsets = TimeOffsets { monotonic: 1000, boottime: 5000 };
    let mut list = vec![
        ("plain", system()),
        ("the program is PID 1", system().init(Init::Program)),
        ("set up in a copy", system().launch(Launch::Copy)),
        ("a shared session", system().share_session()),
        ("a time namespace", system().time_offsets(offsets)),
        ("groups where they can be had", system().own_cgroup(prefer(())).processes(prefer(200))),
        ("no pid namespace", hosts_proc().namespaces(standard.difference(Namespaces::PID))),
        ("a set of two", hosts_proc().namespaces(Namespaces::USER | Namespaces::MOUNT)),
        ("no namespace for mounts", bare()),
        ("a proc with pids only", proc(ProcRung::FreshPidSubset)),
        ("user namespaces inside", system().allow_user_namespaces()),
        ("attributes", system().nice(5).oom_score_adj(500).umask(0o077).disable_aslr(())),
    ];
    if is_root() {
        list.push(("no user namespace", system().namespaces(standard.difference(Namespaces::USER))));
        list.push(("host root", system().keep_host_root()));
    }
    let mut built: Vec<(&str, Sandbox)> =
        list.iter().map(|(name, builder)| (*name, builder.clone().build().unwrap())).collect();
    built.push(("a weaker set than the first", weaker()));
    built.push(("one by one", one_by_one(&system())));
    built.push(("one by one, with a time namespace", one_by_one(&system().time_offsets(offsets))));
    built
}
