//! Many sandboxes from many threads, and what they leave in the caller and on the machine. Shared by a test and by the
//! benchmark that states it in numbers.

#[path = "endurance/jobs.rs"]
mod jobs;
#[path = "endurance/traces.rs"]
pub(crate) mod traces;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringfence::{Child, Sandbox, Stdio};

use jobs::{Job, Jobs};
use traces::{Memory, Traces, resident};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Runs of each kind before anything is counted: threads, caches and arenas of the allocator are made once.
const WARM_UP: usize = 4;
/// How often memory is looked at.
const LOOKS: usize = 200;
/// What is given up by threads and processes that are just about to end is waited for.
const SETTLE: Duration = Duration::from_secs(60);
/// Descriptors that a living child may hold in its caller, and then some.
const FDS_EACH: usize = 12;
/// Growth of the middle of the second quarter to that of the last: more than what an allocator's arenas waver by.
const GROWTH_MOST: i64 = 4 << 10;

/// What a storm of spawns left behind.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) spawns: usize,
    pub(crate) took: Duration,
    /// How often each kind of job was done.
    pub(crate) kinds: BTreeMap<&'static str, usize>,
    /// Kinds that this machine cannot do, and why.
    pub(crate) left_out: Vec<(&'static str, String)>,
    /// Jobs that did not end as they have to.
    pub(crate) wrong: Vec<String>,
    pub(crate) before: Traces,
    pub(crate) after: Traces,
    pub(crate) memory: Memory,
}

/// What a crowd of living sandboxes costs, and what it left behind.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) alive: usize,
    pub(crate) launch: Duration,
    pub(crate) end: Duration,
    /// Descriptors in the caller for each.
    pub(crate) fds_each: f64,
    /// KiB of the caller for each.
    pub(crate) caller_each: f64,
    /// KiB of a sandbox's own two processes, proportional share.
    pub(crate) own_each: f64,
    pub(crate) wrong: Vec<String>,
    pub(crate) before: Traces,
    pub(crate) after: Traces,
}

/// Spawns so many from so many threads, each job the next of the mix.
pub(crate) fn storm(spawns: usize, threads: usize) -> Result<Storm, Failure> {
    let jobs = Jobs::new()?;
    let mut kinds = BTreeMap::new();
    let mut wrong = Vec::new();
    for job in jobs.kinds() {
        for _ in 0..WARM_UP {
            wrong.extend(jobs.run(job).err().map(|why| format!("{}: {why}", job.name())));
        }
    }
    // Threads have stacks and arenas that stay.
    let warm = work(&jobs, &jobs.mix(), threads * 4, threads, &mut |_, _| {});
    wrong.extend(warm.wrong);
    let before = Traces::settled(None, SETTLE)?;
    let mut memory = Memory::default();
    let (mix, begun) = (jobs.mix(), Instant::now());
    let done = work(&jobs, &mix, spawns, threads, &mut |done, kib| memory.add(done, kib));
    let took = begun.elapsed();
    for index in 0..spawns {
        *kinds.entry(mix[index % mix.len()].name()).or_insert(0) += 1;
    }
    wrong.extend(done.wrong);
    let left_out = jobs.left_out().to_vec();
    let after = Traces::settled(Some(&before), SETTLE)?;
    drop(jobs);
    Ok(Storm { spawns, took, kinds, left_out, wrong, before, after, memory })
}

struct Worked {
    wrong: Vec<String>,
}

/// Threads that take one job after the other; meanwhile memory is looked at.
fn work(jobs: &Jobs, mix: &[Job], spawns: usize, threads: usize, look: &mut dyn FnMut(usize, u64)) -> Worked {
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wrong = thread::scope(|scope| {
        let one = || {
            let mut wrong = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= spawns || wrong.len() > 20 {
                    return wrong;
                }
                let job = mix[index % mix.len()];
                wrong.extend(jobs.run(job).err().map(|why| format!("{}: {why}", job.name())));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let watch = scope.spawn(|| {
            let mut looks = Vec::new();
            let step = (spawns / LOOKS).max(1);
            while !over.load(Ordering::Relaxed) {
                let done = next.load(Ordering::Relaxed).min(spawns);
                if looks.last().is_none_or(|(last, _)| done >= last + step) {
                    looks.push((done, resident()));
                }
                thread::sleep(Duration::from_millis(2));
            }
            looks
        });
        let wrong = workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect();
        over.store(true, Ordering::Relaxed);
        for (done, kib) in watch.join().unwrap_or_default() {
            look(done, kib);
        }
        wrong
    });
    Worked { wrong }
}

/// So many sandboxes alive at once; fewer where the limit on descriptors is lower.
pub(crate) fn crowd(wanted: usize) -> Result<Crowd, Failure> {
    let alive = wanted.min(room_for()?);
    let sandbox = Sandbox::builder().system_read_only().build()?;
    let launch = || -> Result<Child, Failure> {
        // It lives until its input ends.
        Ok(sandbox.command("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?)
    };
    launch()?.kill()?;
    let before = Traces::settled(None, SETTLE)?;
    let (fds, kib, begun) = (traces::descriptors(), resident(), Instant::now());
    let children = launch_all(alive, &launch)?;
    let launched = begun.elapsed();
    let each = |total: f64| total / f64::from(u32::try_from(alive.max(1)).unwrap_or(u32::MAX));
    let fds_each = each(traces::as_float(traces::descriptors().saturating_sub(fds)));
    let caller_each = each(traces::as_float(usize::try_from(resident().saturating_sub(kib))?));
    let sample: Vec<f64> = children.iter().take(20).filter_map(own_memory).collect();
    let own_each = sample.iter().sum::<f64>() / traces::as_float(sample.len().max(1));
    let mut wrong = Vec::new();
    for child in &children {
        if let Some(outcome) = child.try_wait()? {
            wrong.push(format!("one ended by itself: {outcome:?}"));
        }
    }
    let begun = Instant::now();
    for (index, mut child) in children.into_iter().enumerate() {
        // One half ends by itself, the other is killed.
        if index % 2 == 0 {
            drop(child.stdin.take());
            let outcome = child.wait()?;
            wrong.extend((!outcome.success()).then(|| format!("one ended so: {outcome:?}")));
        } else {
            child.kill()?;
        }
    }
    let end = begun.elapsed();
    let after = Traces::settled(Some(&before), SETTLE)?;
    Ok(Crowd { alive, launch: launched, end, fds_each, caller_each, own_each, wrong, before, after })
}

/// From eight threads, each its share.
fn launch_all(
    count: usize,
    launch: &(dyn Fn() -> Result<Child, Failure> + Sync),
) -> Result<Vec<Child>, Failure> {
    thread::scope(|scope| {
        let share = |index: usize| count / 8 + usize::from(index < count % 8);
        let workers: Vec<_> = (0..8)
            .map(|index| {
                scope.spawn(move || (0..share(index)).map(|_| launch()).collect::<Result<Vec<_>, _>>())
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| "a thread panicked")??);
        }
        Ok(all)
    })
}

/// KiB of program and init, each page divided by how many share it.
fn own_memory(child: &Child) -> Option<f64> {
    let pss = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
    };
    Some(pss(child.id())? + pss(child.init_id())?)
}

/// How many children the limit on descriptors has room for; the soft limit is raised to the hard one.
fn room_for() -> Result<usize, Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(usize::try_from(hard).unwrap_or(usize::MAX) / FDS_EACH)
}

impl Storm {
    /// What was left behind, and what went wrong.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.wrong.clone();
        faults.truncate(20);
        faults.extend(self.after.beyond(&self.before));
        let growth = self.memory.growth();
        if growth > GROWTH_MOST {
            faults.push(format!("memory grew by {growth} KiB from the second quarter to the last"));
        }
        faults
    }
}

impl Crowd {
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.wrong.clone();
        faults.truncate(20);
        faults.extend(self.after.beyond(&self.before));
        faults
    }
}
