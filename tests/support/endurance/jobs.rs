//! The mix: policies of every kind, and failures of every kind, each with the end that it must come to.

use std::result::Result as StdResult;
use std::time::Duration;

use ringfence::{
    Access, Builder, Capability, Child, Error, ErrorKind, Init, Launch, Mount, Outcome, Pool, Result,
    Sandbox, Stdio, Verdict, prefer,
};

use super::Failure;

/// One kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    System,
    BareBinds,
    Limited,
    Held,
    Dropped,
    FromPool,
    NoInit,
    Copied,
    Output,
    Killed,
    NoProgram,
    NoSource,
    NotExecutable,
    TimedOut,
    OutOfMemory,
    SetUpCut,
}

const ALL: [Job; 16] = [
    Job::System,
    Job::BareBinds,
    Job::Limited,
    Job::Held,
    Job::Dropped,
    Job::FromPool,
    Job::NoInit,
    Job::Copied,
    Job::Output,
    Job::Killed,
    Job::NoProgram,
    Job::NoSource,
    Job::NotExecutable,
    Job::TimedOut,
    Job::OutOfMemory,
    Job::SetUpCut,
];

impl Job {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "read-only system",
            Self::BareBinds => "bare binds, an exit code",
            Self::Limited => "limits of the tree, capabilities",
            Self::Held => "held, then released",
            Self::Dropped => "held, then dropped",
            Self::FromPool => "from a pool",
            Self::NoInit => "no init",
            Self::Copied => "a copy of the caller",
            Self::Output => "output through pipes",
            Self::Killed => "killed while it runs",
            Self::NoProgram => "no such program",
            Self::NoSource => "a bind of nothing",
            Self::NotExecutable => "a program that is no program",
            Self::TimedOut => "out of time",
            Self::OutOfMemory => "out of memory",
            Self::SetUpCut => "set-up out of time",
        }
    }

    /// How often it comes in a hundred.
    fn share(self) -> usize {
        match self {
            Self::System | Self::BareBinds => 16,
            Self::Limited | Self::NoProgram => 10,
            Self::Held | Self::Dropped | Self::FromPool | Self::NoInit | Self::NoSource => 7,
            Self::Output | Self::NotExecutable => 4,
            Self::Copied | Self::Killed | Self::SetUpCut => 2,
            Self::TimedOut | Self::OutOfMemory => 1,
        }
    }
}

/// Everything is compiled once and shared by all threads.
pub(crate) struct Jobs {
    system: Sandbox,
    bare: Sandbox,
    limited: Sandbox,
    no_init: Sandbox,
    copied: Sandbox,
    no_source: Sandbox,
    timed: Sandbox,
    small: Sandbox,
    hasty: Sandbox,
    pool: Pool,
    left_out: Vec<(&'static str, String)>,
}

fn system() -> Builder {
    Sandbox::builder().system_read_only()
}

fn bare() -> Builder {
    ["/usr", "/bin", "/lib", "/lib64"]
        .into_iter()
        .fold(Sandbox::builder(), |builder, path| builder.mount(Mount::bind(path, path).mirror()))
}

impl Jobs {
    pub(crate) fn new() -> StdResult<Self, Failure> {
        let system_box = system().build()?;
        let mut jobs = Self {
            pool: Pool::new(&system_box, 4)?,
            bare: bare().tmpfs("/tmp", 1 << 20).build()?,
            limited: system()
                .memory(prefer(256 << 20))
                .processes(prefer(16))
                .capabilities([Capability::NetBindService])
                .build()?,
            no_init: system().init(Init::Program).build()?,
            copied: system().launch(Launch::Copy).build()?,
            no_source: bare().bind("/no/such/place", "/place", Access::ReadOnly).build()?,
            timed: system().wall_time(Duration::from_millis(30)).build()?,
            small: system().memory(prefer(24 << 20)).swap(prefer(0)).processes(prefer(8)).build()?,
            hasty: system().setup_timeout(Duration::from_micros(900)).build()?,
            system: system_box,
            left_out: Vec::new(),
        };
        // Where no group can be had, nothing ends for want of memory.
        let hard =
            system().memory(24 << 20).build().and_then(|sandbox| sandbox.command("/bin/true").output());
        if let Err(error) = hard {
            jobs.left_out.push((Job::OutOfMemory.name(), error.to_string()));
        }
        Ok(jobs)
    }

    pub(crate) fn left_out(&self) -> &[(&'static str, String)] {
        &self.left_out
    }

    pub(crate) fn kinds(&self) -> Vec<Job> {
        let out = |job: &Job| self.left_out.iter().any(|(name, _)| *name == job.name());
        ALL.into_iter().filter(|job| !out(job)).collect()
    }

    /// A hundred jobs, those of a kind far from each other.
    pub(crate) fn mix(&self) -> Vec<Job> {
        let kinds = self.kinds();
        let mut places: Vec<(usize, Job)> = Vec::new();
        for job in kinds {
            let share = job.share();
            places.extend((0..share).map(|index| (index * 1_000 / share, job)));
        }
        places.sort_by_key(|(place, _)| *place);
        places.into_iter().map(|(_, job)| job).collect()
    }

    /// Does it: how it ended if that is not how it has to.
    pub(crate) fn run(&self, job: Job) -> StdResult<(), String> {
        match job {
            Job::System => exits(self.system.command("/bin/true").output(), 0),
            Job::BareBinds => exits(self.bare.command("/bin/sh").args(["-c", "exit 7"]).output(), 7),
            Job::Limited => exits(self.limited.command("/bin/true").output(), 0),
            Job::Held => exits(
                self.system.command("/bin/false").spawn_held().and_then(|held| held.release()?.wait()),
                1,
            ),
            Job::Dropped => self.system.command("/bin/true").spawn_held().map(drop).map_err(told),
            Job::FromPool => exits(self.pool.output(&self.system.command("/bin/true")), 0),
            Job::NoInit => exits(self.no_init.command("/bin/true").output(), 0),
            Job::Copied => exits(self.copied.command("/bin/true").output(), 0),
            Job::Output => self.output(),
            Job::Killed => self.killed(),
            Job::NoProgram => fails(self.system.command("/no/such/program").output(), &[ErrorKind::Exec]),
            Job::NoSource => fails(self.no_source.command("/bin/true").output(), &[ErrorKind::Setup]),
            Job::NotExecutable => fails(self.system.command("/etc/passwd").output(), &[ErrorKind::Exec]),
            Job::TimedOut => ends(self.timed.command("/bin/sleep").arg("100").output(), |verdict| {
                matches!(verdict, Verdict::TimedOut { .. })
            }),
            Job::OutOfMemory => self.out_of_memory(),
            // A machine may be fast enough.
            Job::SetUpCut => match self.hasty.command("/bin/true").output() {
                Err(error) if error.kind() == ErrorKind::Setup => Ok(()),
                other => exits(other, 0),
            },
        }
    }

    fn output(&self) -> StdResult<(), String> {
        let mut command = self.system.command("/bin/sh");
        command.args(["-c", "echo out; echo err >&2"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let outcome = command.output().map_err(told)?;
        let same = outcome.stdout == b"out\n" && outcome.stderr == b"err\n" && outcome.success();
        if same { Ok(()) } else { Err(format!("{outcome:?}")) }
    }

    fn killed(&self) -> StdResult<(), String> {
        let child: Child = self.system.command("/bin/sleep").arg("100").spawn().map_err(told)?;
        child.kill().map_err(told)?;
        ends(child.wait(), |verdict| verdict == Verdict::Killed)
    }

    fn out_of_memory(&self) -> StdResult<(), String> {
        let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
        ends(self.small.command("/bin/sh").args(["-c", script]).output(), |verdict| {
            matches!(verdict, Verdict::OutOfMemory { .. })
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err() hands over")]
fn told(error: Error) -> String {
    format!("{error:#}")
}

fn exits(outcome: Result<Outcome>, code: i32) -> StdResult<(), String> {
    ends(outcome, |verdict| verdict == Verdict::Exited(code))
}

fn ends(outcome: Result<Outcome>, holds: impl Fn(Verdict) -> bool) -> StdResult<(), String> {
    let verdict = outcome.map_err(told)?.verdict();
    if holds(verdict) { Ok(()) } else { Err(verdict.to_string()) }
}

fn fails(outcome: Result<Outcome>, kinds: &[ErrorKind]) -> StdResult<(), String> {
    match outcome {
        Err(error) if kinds.contains(&error.kind()) => Ok(()),
        Err(error) => Err(told(error)),
        Ok(outcome) => Err(format!("it ran: {}", outcome.verdict())),
    }
}
