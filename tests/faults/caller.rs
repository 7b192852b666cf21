//! The traced process: launches a sandbox again and again, tells in one line what came of it, and whether it left anything. It
//! must not know what befalls it.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, Read, Write, stderr, stdin};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, raise};

use super::scenario::{Came, Props, Scenario, play, small};
use super::words::{BEGIN, END, TOLD};

/// Which scenario a process is to play.
pub(crate) const SCENARIO: &str = "RINGFENCE_TEST_SCENARIO";

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
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();
    say("@ready");
    for line in stdin().lock().lines() {
        if line.is_err() {
            return;
        }
        let before = state();
        let null = File::open("/dev/null").unwrap();
        let props = Props { null, small: small(), port: peer.local_addr().unwrap().port() };
        tell(BEGIN);
        let tried = catch_unwind(AssertUnwindSafe(|| play(scenario, &sandbox, props)));
        // SAFETY: no option of that number exists: the kernel refuses it.
        unsafe { libc::prctl(END, 0, 0, 0, 0) };
        let told = match tried {
            Err(_) => "panic".to_owned(),
            Ok(Ok(came)) => {
                let report = came.report.clone();
                format!("ok\t{:?}\t{report:?}", facts(came))
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
        while peer.accept().is_ok() {}
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

/// What the payload said, without what differs from run to run.
fn facts(mut came: Came) -> String {
    if let Some(mut unread) = came.unread.take() {
        unread.read_to_end(&mut came.stdout).unwrap();
    }
    let text = String::from_utf8_lossy(&came.stdout);
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
    format!("{}\n{}", came.verdict, facts.join("\n"))
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
    let until = Instant::now() + Duration::from_secs(60);
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
