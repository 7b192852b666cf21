//! The traced process: launches a sandbox again and again, tells in one line what came of it, and whether it left anything. It
//! must not know what befalls it.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, Read, Write, stderr, stdin};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::geteuid;
use ringfence::{
    Access, Action, Builder, Child, Command, Error, FileItem, Filter, Init, Landlock, Launch, Mount,
    MountKind, Outcome, Pool, Resource, Response, Sandbox, Stdio, Tmpfs, Usage, prefer,
};

use super::words::{BEGIN, END, TOLD};

/// Which scenario a process is to play.
pub(crate) const SCENARIO: &str = "RINGFENCE_TEST_SCENARIO";

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
}

pub(crate) const SCENARIOS: [Scenario; 10] = [
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
];

impl Scenario {
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    fn named(name: &str) -> Self {
        SCENARIOS.into_iter().find(|scenario| scenario.name() == name).expect("a scenario")
    }

    fn builder(self) -> Builder {
        let limit = Duration::from_secs(20);
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
            Self::Life if geteuid().is_root() => small.own_cgroup(prefer(())),
            Self::Idle | Self::Pool | Self::Life | Self::Build => small,
        }
    }
}

/// Enough for a shell, in few mounts.
fn small() -> Builder {
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

/// What a round came to: the outcome, and what was reported.
type Tried = Result<(Outcome, String), Error>;

/// Plays rounds until its input ends.
pub(crate) fn serve() {
    let scenario = Scenario::named(&env::var(SCENARIO).unwrap());
    let sandbox = scenario.builder().build();
    let sandbox = match sandbox {
        Ok(sandbox) => sandbox,
        Err(error) => {
            say(&format!("@unfit {error}"));
            return;
        }
    };
    say("@ready");
    for line in stdin().lock().lines() {
        if line.is_err() {
            return;
        }
        let before = state();
        let null = File::open("/dev/null").unwrap();
        let small = small();
        tell(BEGIN);
        let tried = catch_unwind(AssertUnwindSafe(|| play(scenario, &sandbox, (null, small))));
        // SAFETY: no option of that number exists: the kernel refuses it.
        unsafe { libc::prctl(END, 0, 0, 0, 0) };
        let told = match tried {
            Err(_) => "panic".to_owned(),
            Ok(Ok((outcome, report))) => {
                let faults = &outcome.supervisor_faults;
                format!("ok\t{:?}\t{:?}", facts(&outcome), format!("{report} {faults:?}"))
            }
            Ok(Err(error)) => format!(
                "err\t{:?}\t{:?}\t{:?}\t{}\t{}\t{error}",
                error.kind(),
                error.step(),
                error.object(),
                error.failed_call().unwrap_or("-"),
                error.raw_os_error().unwrap_or(0),
            ),
        };
        say(&format!("@{}\t{told}", differences(&before)));
        tell(TOLD);
    }
}

fn say(line: &str) {
    stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Also where the round has left the signal blocked, which the line says.
fn tell(word: Signal) {
    SigSet::from(word).thread_unblock().unwrap();
    raise(word).unwrap();
}

/// One round. `null` is there to be passed: opening it is no call of the crate's.
fn play(scenario: Scenario, sandbox: &Sandbox, (null, small): (File, Builder)) -> Tried {
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
        Scenario::Default | Scenario::Copy | Scenario::Bare | Scenario::Everything | Scenario::Group => {
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
    let outcome = child.wait_with_output()?;
    Ok((outcome, report))
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

/// What the payload said, without what differs from run to run.
fn facts(outcome: &Outcome) -> String {
    let text = String::from_utf8_lossy(&outcome.stdout);
    let mut facts = Vec::new();
    for line in text.lines() {
        let varies =
            ["Pid", "Tgid", "NS", "PPid", "Vm", "Rss", "SigQ", "voluntary", "nonvoluntary", "Hugetlb"];
        if varies.iter().any(|name| line.starts_with(name)) {
            continue;
        }
        facts.push(settled(line));
    }
    // The order of mounts may differ where they were made by other calls.
    facts.sort();
    let measured = outcome.tree_usage != Usage::default();
    format!("{}, measured: {measured}\n{}", outcome.verdict(), facts.join("\n"))
}

/// Inodes become a word that says whether they are the caller's; ids of mounts and devices, and names of groups, go.
fn settled(line: &str) -> String {
    let numbers: Vec<&str> = line.split_whitespace().collect();
    if let [inside, outside, count] = numbers[..]
        && numbers.iter().all(|word| word.parse::<u64>().is_ok())
    {
        // A root caller's sandboxes have ids of their own, which follow their pids.
        let outside = if outside.len() > 8 { "HIGH" } else { outside };
        return format!("{inside} {outside} {count}");
    }
    if line.contains(" / ") || line.contains(" - ") {
        return line.split(' ').skip(3).filter(|word| !word.contains("inode")).collect::<Vec<_>>().join(" ");
    }
    let Some((before, to)) = line.split_once(" -> ") else {
        let word =
            |word: &str| if word.contains("ringfence-") { "GROUP".to_owned() } else { word.to_owned() };
        return line.split('/').map(word).collect::<Vec<_>>().join("/");
    };
    let name = before.rsplit(' ').next().unwrap_or_default();
    let own = fs::read_link(format!("/proc/self/ns/{name}"));
    let same = own.is_ok_and(|own| own.to_string_lossy() == to);
    let kind = to.split('[').next().unwrap_or_default();
    let kind: String = kind.chars().filter(|c| !c.is_ascii_digit()).collect();
    format!("{name} -> {kind}{}", if same { " the caller's" } else { "" })
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
    if geteuid().is_root() {
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
    Ok((outcome, report))
}

/// What belongs to this process.
fn state() -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    let mut note = |name: &str, value: String| state.insert(name.to_owned(), value);
    let mut fds: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let to = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            (!to.ends_with("/fd")).then(|| format!("{} {to}", entry.file_name().display()))
        })
        .collect();
    fds.sort();
    note("descriptors", fds.join(", "));
    note("children", children());
    note("threads", threads());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    note("briefs", maps.lines().filter(|line| line.contains("ringfence-brief")).count().to_string());
    note("mountinfo", fs::read_to_string("/proc/self/mountinfo").unwrap());
    note("cwd", format!("{:?}", env::current_dir()));
    note("groups", groups_of(process::id().cast_signed()).join(", "));
    let files = fs::read_dir(env::temp_dir()).unwrap().flatten();
    note("files", files.map(|entry| entry.file_name().display().to_string()).collect::<Vec<_>>().join(", "));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    for name in ["Umask", "Uid", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp"] {
        let line = status.lines().find(|line| line.starts_with(name));
        note(name, line.unwrap_or_default().to_owned());
    }
    for name in ["limits", "oom_score_adj"] {
        note(name, fs::read_to_string(format!("/proc/self/{name}")).unwrap());
    }
    // Hierarchies in which it is at the root may come and go.
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap();
    let placed = |line: &&str| line.splitn(3, ':').nth(2) != Some("/");
    let places =
        cgroup.lines().filter(placed).filter_map(|line| line.split_once(':').map(|(_, place)| place));
    note("cgroup", places.collect::<Vec<_>>().join(" "));
    // SAFETY: KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING takes numbers only.
    note("keyring", unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }.to_string());
    state
}

fn children() -> String {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.collect::<Vec<_>>().concat()
}

/// Without those that the crate keeps for the whole process, and with how often each of those is there.
fn threads() -> String {
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        *kept.entry(comm.trim().to_owned()).or_default() += 1;
    }
    let lasting = ["ringfence", "ringfence-watch", "ringfence-clock"];
    kept.retain(|name, count| !lasting.contains(&name.as_str()) || *count > 1);
    format!("{kept:?}")
}

/// Groups that a process has made below this one's own, or in one below that.
pub(crate) fn groups_of(pid: i32) -> Vec<String> {
    let prefix = format!("ringfence-{pid}-");
    let mut found = Vec::new();
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    for mount in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let own = mount.path().join(path.trim_start_matches('/'));
            let below = fs::read_dir(&own).into_iter().flatten().flatten();
            let below =
                below.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"ringfence-faults"));
            let places = [own].into_iter().chain(below.map(|entry| entry.path()));
            for entry in places.flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten()) {
                let name = entry.file_name().display().to_string();
                if name.starts_with(&prefix) {
                    found.push(format!("{}/{name}", mount.path().display()));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What is not as it was, once it has had a moment to become so.
fn differences(before: &BTreeMap<String, String>) -> String {
    // Tearing a mount namespace down takes long where many others are.
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let after = state();
        let differ: Vec<String> = before
            .iter()
            .filter(|(name, value)| after.get(*name) != Some(value))
            .map(|(name, value)| format!("{name}: {value:?} became {:?}", after.get(name)))
            .collect();
        if differ.is_empty() || Instant::now() > until {
            return differ.join("; ").replace('\t', " ");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
