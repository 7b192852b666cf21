//! The scenarios: each is a policy, and a small life of a child of it. They must not know what befalls them.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use nix::unistd::geteuid;
use ringfence::{
    Access, Action, Broker, Builder, Child, ChildStdout, Command, ConnectDecision, Error, FileItem, Filter,
    IdRange, Init, Landlock, Launch, Mapping, Mount, MountKind, OpenDecision, Outcome, PeerAddress, Pool,
    Resource, Response, Sandbox, Stdio, Tmpfs, Usage, prefer,
};

/// The first subordinate uid and gid of the user, for [`Scenario::Helpers`].
pub(crate) const RANGES: &str = "RINGFENCE_TEST_RANGES";

/// What the payload asks its broker for.
const ASK: &str = "read -r line </etc/passwd && echo \"$line\"; : </etc/group;";

/// What the payload shows of its own confinement.
const SHOW: &str = "cat /proc/self/status /proc/self/mountinfo /proc/self/limits /proc/self/cgroup \
    /proc/sys/kernel/hostname /proc/self/uid_map /proc/self/timens_offsets /proc/self/oom_score_adj \
    /proc/self/personality /proc/sys/user/max_user_namespaces /proc/sys/vm/memfd_noexec /proc/self/environ; echo; \
    umask; pwd; nice; cut -d' ' -f6,7 /proc/self/stat; \
    exec ls -ln /proc/self/ns/ /proc/self/fd/";

/// A kind of launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// What most do.
    Default,
    /// By a copy of the caller.
    Copy,
    /// The program is PID 1.
    Bare,
    /// Whatever a policy can ask for.
    Everything,
    /// In control groups, with limits.
    Group,
    /// Its filter notifies.
    Supervised,
    /// Told late what to run.
    Idle,
    /// From a pool.
    Pool,
    /// The life of a child: signals, freezing, statistics, kill, drop.
    Life,
    /// The host is looked at and the policy compiled too.
    Build,
    /// The ids are mapped by newuidmap and newgidmap.
    Helpers,
    /// It is let go.
    Detached,
    /// Its events are watched.
    Events,
    /// Its opens and connects are carried out by the caller.
    Broker,
}

pub(crate) const SCENARIOS: [Scenario; 14] = [
    Scenario::Default,
    Scenario::Copy,
    Scenario::Bare,
    Scenario::Everything,
    Scenario::Group,
    Scenario::Supervised,
    Scenario::Idle,
    Scenario::Pool,
    Scenario::Life,
    Scenario::Build,
    Scenario::Helpers,
    Scenario::Detached,
    Scenario::Events,
    Scenario::Broker,
];

impl Scenario {
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn named(name: &str) -> Self {
        SCENARIOS.into_iter().find(|scenario| scenario.name() == name).expect("a scenario")
    }

    pub(crate) fn builder(self) -> Builder {
        // Each stop of a call costs a switch, which takes long where the processors are busy.
        let limit = Duration::from_secs(100);
        let small = small().setup_timeout(limit);
        match self {
            Self::Default => Sandbox::builder().system_read_only().setup_timeout(limit),
            Self::Copy => small.launch(Launch::Copy),
            Self::Bare => small.init(Init::Program),
            Self::Everything => everything(small),
            Self::Group => small.memory(256 << 20).processes(64).own_cgroup(()),
            Self::Supervised => {
                let filter = Filter::baseline().forget(["uname"]).deny(["uname"], Action::Notify);
                small.seccomp(filter)
            }
            Self::Helpers => subordinate(small),
            Self::Detached if geteuid().is_root() => small.own_cgroup(prefer(())).allow_outliving_caller(),
            Self::Detached => small.allow_outliving_caller(),
            Self::Broker => small.seccomp(broker(0).filter(Filter::baseline())),
            Self::Life | Self::Events if geteuid().is_root() => small.own_cgroup(prefer(())),
            Self::Events | Self::Idle | Self::Pool | Self::Life | Self::Build => small,
        }
    }
}

fn subordinate(small: Builder) -> Builder {
    let text = env::var(RANGES).unwrap_or_default();
    let firsts: Vec<u32> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [uid, gid] = firsts[..] else { panic!("{RANGES}: {text:?}") };
    let range = |outside| vec![IdRange { inside: 1000, outside, count: 10 }];
    small.mapping(Mapping::Ranges { uids: range(uid), gids: range(gid) }).ids(1001, 1002)
}

/// Opens one file of the caller's, and connects to one port of it.
fn broker(port: u16) -> Broker {
    let broker = Broker::new().on_open(|request| match request.path.to_str() {
        Some("/etc/passwd") => OpenDecision::Open,
        Some("/etc/group") => OpenDecision::Refuse(libc::EXDEV),
        _ => OpenDecision::Inside,
    });
    broker.on_connect(move |request| {
        let fine = matches!(&request.peer, PeerAddress::V4(peer) if peer.port() == port);
        if fine { ConnectDecision::Connect } else { ConnectDecision::Refuse(libc::EACCES) }
    })
}

/// Enough for a shell, in few mounts.
pub(crate) fn small() -> Builder {
    let mut small = Sandbox::builder().bind("/usr", "/usr", Access::ReadOnly);
    for path in ["/bin", "/lib", "/lib64"] {
        small = match fs::read_link(path) {
            Ok(to) => small.symlink(to, path),
            Err(_) => small.mount(Mount::bind(path, path).if_exists()),
        };
    }
    small.dev().proc().tmpfs("/tmp", 1 << 20)
}

fn everything(system: Builder) -> Builder {
    let file = FileItem { contents: b"contents".to_vec(), mode: 0o444 };
    system
        .bind("/usr", "/again", Access::ReadOnly)
        .bind(env::temp_dir(), "/writable", Access::ReadWrite)
        .mount(Mount::bind("/no/such", "/absent").if_exists())
        .mount(Mount::tmpfs("/scratch", Tmpfs { size: 1 << 20, ..Tmpfs::default() }))
        .mount(Mount::new("/scratch/file", MountKind::File(file)))
        .directory("/directory")
        .symlink("/usr", "/link")
        .mask("/again/bin")
        .hostname("faulty")
        .domain_name("domain")
        .limit(Resource::OpenFiles, 100)
        .limit(Resource::Core, 0)
        .nice(5)
        .oom_score_adj(500)
        .umask(0o027)
        .timer_slack(Duration::from_micros(100))
        .deny_write_execute(prefer(()))
        .disable_aslr(prefer(()))
        .deny_memfd_exec(prefer(()))
        .landlock(Landlock::from_mounts().preferred())
}

/// What a round is given. Making it is no call of the crate's.
pub(crate) struct Props {
    pub(crate) null: File,
    pub(crate) small: Builder,
    pub(crate) port: u16,
}

/// What came of a round: how it ended, what the payload said, and what was reported.
pub(crate) struct Came {
    pub(crate) verdict: String,
    pub(crate) stdout: Vec<u8>,
    /// Where the test itself is to read that: its calls are none of the crate's.
    pub(crate) unread: Option<ChildStdout>,
    pub(crate) report: String,
}

type Tried = Result<Came, Error>;

/// One round.
pub(crate) fn play(scenario: Scenario, sandbox: &Sandbox, props: Props) -> Tried {
    let Props { null, small, port } = props;
    match scenario {
        Scenario::Idle => {
            let idle = sandbox.hold()?;
            collected(idle.spawn(&show(sandbox, null))?)
        }
        Scenario::Pool => {
            let pool = Pool::new(sandbox, 2)?;
            let told = collected(pool.spawn(&show(sandbox, null))?)?;
            pool.wait_until_full(Duration::from_millis(300));
            Ok(told)
        }
        Scenario::Life => life(sandbox),
        Scenario::Build => collected(show(&small.build()?, null).spawn()?),
        Scenario::Supervised => {
            let mut command = show(sandbox, null);
            collected(command.on_notify(|_| Response::Errno(libc::EPERM)).spawn()?)
        }
        Scenario::Detached => detached(show(sandbox, null).spawn()?),
        Scenario::Events => watched(show(sandbox, null).spawn()?),
        Scenario::Broker => {
            let mut command = sandbox.command("/bin/bash");
            command.args(["-c", &format!("{ASK} exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected")]);
            collected(command.supervise(broker(port)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
        }
        Scenario::Bare => {
            // It ends by its kill alone: no group, nor anything that it could hear of.
            drop(sandbox.command("/bin/sleep").arg("1000").spawn()?);
            collected(show(sandbox, null).spawn()?)
        }
        Scenario::Default | Scenario::Copy | Scenario::Everything | Scenario::Group | Scenario::Helpers => {
            collected(show(sandbox, null).spawn()?)
        }
    }
}

fn show(sandbox: &Sandbox, null: File) -> Command {
    let mut command = sandbox.command("/bin/sh");
    command.args(["-c", SHOW]).env("GIVEN", "1").fd(7, null).stdout(Stdio::piped());
    command
}

fn collected(child: Child) -> Tried {
    let report = report(&child);
    Ok(came(child.wait_with_output()?, &report))
}

fn came(outcome: Outcome, report: &str) -> Came {
    let measured = outcome.tree_usage != Usage::default();
    let verdict = format!("{}, measured: {measured}", outcome.verdict());
    let report = format!("{report} {:?}", outcome.supervisor_faults);
    let stdout = [outcome.stdout, outcome.stderr].concat();
    Came { verdict, stdout, unread: None, report }
}

fn detached(mut child: Child) -> Tried {
    let report = report(&child);
    let unread = child.stdout.take();
    let detached = child.detach()?;
    // What it writes has room in the pipe. Who lets go of it before its end leaves it, and its groups, as is promised.
    let status = detached.wait().or_else(|error| detached.wait().and(Err(error)))?;
    let verdict = match status.map(|status| (status.signal(), status)) {
        None => "init ended by SIGKILL".to_owned(),
        Some((Some(libc::SIGKILL), _)) => "ended by SIGKILL".to_owned(),
        Some((_, status)) => format!("{status:?}"),
    };
    Ok(Came { verdict, stdout: Vec::new(), unread, report })
}

fn watched(child: Child) -> Tried {
    let mut events = child.events()?;
    let mut came = collected(child)?;
    came.report = format!("{} {:?}", came.report, events.unavailable());
    while let Some(event) = events.next(Some(Duration::from_secs(10)))? {
        came.verdict = format!("{} {event:?}", came.verdict);
    }
    Ok(came)
}

fn report(child: &Child) -> String {
    let held = child.enforcement();
    let limits: Vec<String> =
        held.limits.iter().map(|limit| format!("{:?}", (limit.strength, limit.rung))).collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {limits:?}",
        held.method, held.choices, held.missing, held.absent, held.supervisor, held.landlock, held.notes
    )
}

/// Where init fails, the sandbox ends, which every method may tell; why it did is for the wait to tell.
fn unless_ended<T>(told: Result<T, Error>) -> Result<(), Error> {
    match told {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        told => told.map(drop),
    }
}

fn life(sandbox: &Sandbox) -> Tried {
    let mut command = sandbox.command("/bin/sh");
    command.args(["-c", "echo up; exec sleep 1000"]).stdout(Stdio::piped()).name("life");
    let mut child = command.spawn()?;
    let report = report(&child);
    let mut said = [0; 3];
    let stdout = child.stdout.as_mut().unwrap();
    // A signal, or a kill by the test, may end it first.
    stdout.read_exact(&mut said).ok();
    child.try_wait()?;
    // A group is preferred: without one, which the report has, nothing is counted.
    let counted = child.enforcement().notes.iter().all(|note| !note.starts_with("no control group"));
    if geteuid().is_root() && counted {
        unless_ended(child.stats())?;
    }
    unless_ended(child.freeze())?;
    child.processes()?;
    unless_ended(child.thaw())?;
    unless_ended(child.signal(libc::SIGURG))?;
    child.wait_timeout(Duration::from_millis(1))?;
    child.kill()?;
    let outcome = child.wait()?;
    drop(child);
    drop(command.spawn_held()?);
    drop(command.spawn()?);
    Ok(came(outcome, &report))
}
