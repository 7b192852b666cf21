//! How a trick is run: behind which fence, or with which part of it off. It must not know the tricks.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::process;

use nix::errno::Errno;
use ringfence::{
    Access, AccessFs, Builder, Capabilities, Command, Host, Init, Landlock, Launch, Mount, Namespaces,
    Resource, Sandbox,
};

use super::arena::{at, handle_of, planted};
use super::support::{field, is_root};

/// What a control leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Off {
    /// `allow_all_calls`.
    Filter,
    /// And `allow_user_namespaces`.
    Nesting,
    /// And every capability, as uid 0 of its own user namespace.
    OwnRoot,
    /// No user namespace: the caller's own root, with every capability and no filter.
    HostRoot,
    /// That, without a cgroup namespace.
    HostRootGroups,
    /// That, with the cgroup file system bound read-write.
    Groups,
    /// As host root, without a UTS namespace.
    HostRootName,
    /// No IPC namespace.
    Ipc,
    /// `allow_host_network`.
    Network,
    /// `share_session_keyring`, and no filter.
    Keyring,
    /// `share_session`.
    Session,
    /// That, and the strongest that the caller can be, without a filter.
    SessionFilter,
    /// The caller passes what it otherwise only has open.
    Passed,
    /// The host's directory is bound.
    Bound,
    /// The host's `/dev/shm` is bound.
    BoundShm,
    /// The tree is bound read-write.
    Writable,
    /// The variable is passed.
    Variable,
    /// Cores are not limited.
    Cores,
    /// As the default sandbox is, without `deny_memfd_exec`.
    MemoryFiles,
    /// As the default sandbox is, without `deny_write_execute`.
    WriteExecute,
    /// No Landlock domain.
    Landlock,
    /// No sandbox.
    Everything,
    /// A sandbox made by hand, with one mistake: `naive.c` has them.
    Naive(&'static str),
}

impl Off {
    /// As the catalogue has it.
    pub(crate) fn text(self) -> String {
        let text = match self {
            Self::Filter => "`allow_all_calls`",
            Self::Nesting => "`allow_all_calls`, `allow_user_namespaces`",
            Self::OwnRoot => "own root: all capabilities in its user namespace, no filter",
            Self::HostRoot => "`keep_host_root`, no user namespace, all capabilities, no filter",
            Self::HostRootGroups => "as host root, and no cgroup namespace",
            Self::Groups => "as host root, no cgroup namespace, `/sys/fs/cgroup` bound read-write",
            Self::HostRootName => "as host root, and no UTS namespace",
            Self::Ipc => "no IPC namespace",
            Self::Network => "`allow_host_network`",
            Self::Keyring => "`share_session_keyring`, `allow_all_calls`",
            Self::Session => "`share_session`",
            Self::SessionFilter => "`share_session`, no filter, as root also host root",
            Self::Passed => "the descriptor is passed",
            Self::Bound => "the directory is bound",
            Self::BoundShm => "`/dev/shm` is bound",
            Self::Writable => "`Access::ReadWrite`",
            Self::Variable => "the variable is passed",
            Self::Cores => "`RLIMIT_CORE` of 1 MiB",
            Self::MemoryFiles | Self::WriteExecute => "the default sandbox",
            Self::Landlock => "no Landlock domain",
            Self::Everything => "no sandbox",
            Self::Naive(kind) => return format!("by hand: {kind}"),
        };
        text.to_owned()
    }
}

/// Behind what a trick has to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fence {
    /// `system_read_only`, and a few binds.
    Default,
    /// That, with `deny_memfd_exec`.
    NoMemoryFiles,
    /// That, with `deny_write_execute`.
    NoWriteExecute,
    /// A Landlock domain alone: own root, no filter, every capability.
    Landlocked,
}

/// What became of one trick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) end: char,
    pub(crate) errno: i32,
    pub(crate) step: String,
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.end, self.errno) {
            ('E', _) => write!(f, "works: {}", self.step),
            ('M', _) => write!(f, "absent: {}", self.step),
            ('X', _) => write!(f, "BROKEN: {} ({})", self.step, self.errno),
            (_, 0) => write!(f, "nothing: {}", self.step),
            (_, signal @ ..0) => write!(f, "signal {}", -signal),
            (_, errno) => {
                let shown = Errno::from_raw(errno);
                write!(f, "{shown:?}")
            }
        }
    }
}

pub(crate) type Results = BTreeMap<String, Seen>;

fn parse(out: &str) -> Results {
    let line = |line: &str| {
        let mut words = line.splitn(4, '\t');
        let name = words.next()?.to_owned();
        let end = words.next()?.chars().next()?;
        let errno = words.next()?.parse().ok()?;
        Some((name, Seen { end, errno, step: words.next()?.to_owned() }))
    };
    out.lines().filter_map(line).collect()
}

/// The sandbox of the fenced runs: a program, a read-only tree with a mask in it, a tree to write to.
pub(crate) fn default_fence() -> Builder {
    Sandbox::builder()
        .system_read_only()
        .bind(at("escape"), "/escape", Access::ReadOnly)
        .bind(at("ro"), "/ro", Access::ReadOnly)
        .mask("/ro/cover/masked")
        .bind(at("rw"), "/rw", Access::ReadWrite)
}

/// Those of the calling process.
fn capabilities() -> Capabilities {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let bits = u64::from_str_radix(field(&status, "CapPrm"), 16).expect("a mask");
    Capabilities::from_bits(if is_root() { bits } else { u64::MAX >> 23 })
}

fn own_root(builder: Builder) -> Builder {
    let every = Capabilities::from_bits(u64::MAX >> 23);
    builder.allow_all_calls().allow_user_namespaces().ids(0, 0).capabilities(every)
}

fn host_root(builder: Builder, without: Namespaces) -> Builder {
    let set = Namespaces::STANDARD.difference(Namespaces::USER | without);
    let builder = builder.namespaces(set).keep_host_root().ids(0, 0).capabilities(capabilities());
    builder.allow_all_calls().allow_user_namespaces()
}

fn without(builder: Builder, namespaces: Namespaces) -> Builder {
    builder.namespaces(Namespaces::STANDARD.difference(namespaces))
}

fn landlocked(builder: Builder, landlock: Option<Landlock>) -> Builder {
    let builder = own_root(builder).bind(at("tree"), "/tree", Access::ReadWrite);
    match landlock {
        Some(landlock) => builder.landlock(landlock),
        None => builder,
    }
}

/// Only what the tricks need to be told apart from a domain that allows nothing at all.
fn domain() -> Landlock {
    Landlock::closed()
        .floor(1)
        .allow("/escape", AccessFs::READ_EXECUTE)
        .allow("/proc", AccessFs::READ)
        .allow("/tmp", AccessFs::READ_WRITE)
        .allow("/tree/open", AccessFs::all())
}

fn weakened(off: Off) -> Option<Builder> {
    let builder = default_fence();
    let nothing = Namespaces::empty();
    Some(match off {
        Off::Filter => builder.allow_all_calls(),
        Off::Nesting => builder.allow_all_calls().allow_user_namespaces(),
        Off::OwnRoot => own_root(builder),
        Off::HostRoot => host_root(builder, nothing),
        Off::HostRootGroups => host_root(builder, Namespaces::CGROUP),
        Off::Groups => {
            let builder = host_root(builder, Namespaces::CGROUP);
            builder.bind("/sys/fs/cgroup", "/sys/fs/cgroup", Access::ReadWrite)
        }
        Off::HostRootName => host_root(builder, Namespaces::UTS),
        Off::Ipc => without(builder, Namespaces::IPC),
        Off::Network => builder.allow_host_network(),
        Off::Keyring => builder.share_session_keyring().allow_all_calls(),
        Off::Session => builder.share_session(),
        Off::SessionFilter if is_root() => host_root(builder, nothing).share_session(),
        Off::SessionFilter => builder.share_session().allow_all_calls(),
        Off::Bound => builder.bind(at("outside"), at("outside"), Access::ReadOnly),
        Off::BoundShm => builder.mount(Mount::bind("/dev/shm", "/dev/shm").access(Access::ReadWrite).over()),
        Off::Writable => builder.mount(Mount::bind(at("ro"), "/ro").access(Access::ReadWrite).over()),
        Off::Cores => builder.limit(Resource::Core, 1 << 20),
        Off::Passed | Off::Variable | Off::MemoryFiles | Off::WriteExecute => builder,
        Off::Landlock => landlocked(builder, None),
        Off::Everything | Off::Naive(_) => return None,
    })
}

/// Tells the payload where things are for it.
fn tell(command: &mut Command, places: (&str, &str), control: Option<Off>) {
    for (name, value) in planted() {
        command.env(name, value);
    }
    command.env("ESC_RO", places.0).env("ESC_RW", places.1).env("ESC_RUNTIME", "1");
    command.env("ESC_HANDLE", handle_of(&at("outside/secret")));
    if control.is_some() {
        command.env("ESC_CONTROL", "1");
    }
}

/// Runs tricks in a sandbox.
fn run_in(builder: &Builder, control: Option<Off>, tricks: &[&str]) -> Results {
    let sandbox = match builder.clone().build() {
        Ok(sandbox) => sandbox,
        Err(error) => return none_of(tricks, &format!("{error:#}")),
    };
    let mut command = sandbox.command("/escape");
    tell(&mut command, ("/ro", "/rw"), control);
    command.args(tricks);
    if let Some(Off::SessionFilter) = control {
        let terminal = File::options().read(true).write(true).open("/dev/tty").expect("/dev/tty");
        command.stdin(terminal);
    }
    if control == Some(Off::Passed) {
        command.fd(9, File::open(at("outside/deep")).expect("a directory"));
        let leaked = File::options().read(true).write(true).open(at("outside/leaked"));
        command.fd(10, leaked.expect("a file"));
    }
    if control == Some(Off::Variable) {
        command.env("PLANTED", "secret");
    }
    if matches!(control, Some(Off::Landlock)) || builder.policy().is_ok_and(|it| it.landlock().is_some()) {
        command.fd(20, File::open(at("outside")).expect("a directory"));
    }
    finish(&mut command, tricks)
}

/// All of them are broken, for this reason.
fn none_of(tricks: &[&str], why: &str) -> Results {
    let seen = Seen { end: 'X', errno: 0, step: why.to_owned() };
    tricks.iter().map(|trick| ((*trick).to_owned(), seen.clone())).collect()
}

/// What each of them told; who told nothing is broken.
pub(crate) fn complete(out: &[u8], err: &[u8], tricks: &[&str], end: &dyn Display) -> Results {
    let why = format!("it told nothing: {end}; {}", String::from_utf8_lossy(err).trim());
    let mut results = none_of(tricks, &why);
    results.extend(parse(&String::from_utf8_lossy(out)));
    results
}

fn finish(command: &mut Command, tricks: &[&str]) -> Results {
    match command.output() {
        Err(error) => none_of(tricks, &format!("{error:#}")),
        Ok(outcome) => complete(&outcome.stdout, &outcome.stderr, tricks, &outcome.verdict()),
    }
}

fn builder(fence: Fence) -> Builder {
    match fence {
        Fence::Default => default_fence(),
        Fence::NoMemoryFiles => default_fence().deny_memfd_exec(()),
        Fence::NoWriteExecute => default_fence().deny_write_execute(()),
        Fence::Landlocked => landlocked(default_fence(), Some(domain())),
    }
}

/// Why there can be no such fence on this kernel, where that is so.
pub(crate) fn absent(fence: Fence) -> Option<String> {
    match fence {
        Fence::Default | Fence::NoMemoryFiles => None,
        Fence::Landlocked => {
            Host::probe().landlock_abi().is_none().then(|| "this kernel has not Landlock".to_owned())
        }
        Fence::NoWriteExecute => {
            let sandbox = builder(fence).build().expect("a sandbox");
            let error = sandbox.command("/escape").arg("list").output().err()?;
            // Before Linux 6.3 there is no such option.
            (error.raw_os_error() == Some(libc::EINVAL)).then(|| error.to_string())
        }
    }
}

/// Runs tricks behind a fence.
pub(crate) fn fenced(fence: Fence, tricks: &[&str]) -> Results {
    run_in(&builder(fence), None, tricks)
}

/// Runs tricks behind the default fence without its filter.
pub(crate) fn unfiltered(tricks: &[&str]) -> Results {
    run_in(&default_fence().allow_all_calls(), None, tricks)
}

/// Runs tricks behind the default fence, set up in a copy of the caller.
pub(crate) fn copied(tricks: &[&str]) -> Results {
    run_in(&default_fence().launch(Launch::Copy), None, tricks)
}

/// Runs tricks behind the default fence, as uid 0 of the user namespace, which a policy may ask for.
pub(crate) fn as_uid_0(tricks: &[&str]) -> Results {
    run_in(&default_fence().ids(0, 0), None, tricks)
}

/// Runs tricks behind the default fence, as PID 1.
pub(crate) fn first(tricks: &[&str]) -> Results {
    run_in(&default_fence().init(Init::Program), None, tricks)
}

/// A policy without a filter, whose memfds the kernel's own knob is to keep from being executed.
pub(crate) fn by_knob() -> Builder {
    let builder = default_fence().deny_memfd_exec(());
    if is_root() { host_root(builder, Namespaces::empty()) } else { builder.allow_all_calls() }
}

/// Runs a trick in that sandbox.
pub(crate) fn behind(builder: &Builder, trick: &str) -> Seen {
    run_in(builder, None, &[trick])[trick].clone()
}

/// Runs tricks with a part of the fence off.
pub(crate) fn control(off: Off, tricks: &[&str]) -> Results {
    match weakened(off) {
        Some(builder) => run_in(&builder, Some(off), tricks),
        None => by_hand(off, tricks),
    }
}

/// The payload as an ordinary process of the arena, with whatever a careless caller leaves it.
fn by_hand(off: Off, tricks: &[&str]) -> Results {
    let mut command = process::Command::new(at("escape"));
    if off == Off::Naive("runtime") {
        // A copy of the payload is the runtime, and starts the only trick that there is for it.
        fs::copy(at("escape"), at("rw/runtime")).expect("a copy");
        command = process::Command::new(at("rw/runtime"));
        command.arg("exe-runtime").arg(at("escape"));
    } else if let Off::Naive(kind) = off {
        command.arg(format!("naive={kind}")).args(tricks);
    } else {
        command.args(tricks);
    }
    command.env("ESC_RO", at("ro")).env("ESC_RW", at("rw")).env("ESC_CONTROL", "1").env("PLANTED", "secret");
    command.env("ESC_INIT_IS_STARTER", "1");
    command.env("ESC_HANDLE", handle_of(&at("outside/secret")));
    let output = command.current_dir(at("outside/deep")).output().expect("the payload");
    complete(&output.stdout, &output.stderr, tricks, &output.status)
}
