//! How long a spawn takes, from `spawn` to the reaped child: beside std, bwrap and unshare; and whether it grows with the
//! caller's memory.
//!
//! ```text
//! cargo bench --bench spawn
//! ```
//!
//! It needs about 5 GiB of free memory for its last part, and says so where that is not there. Every contender runs the
//! same program: a static one that does nothing where gcc can build it, else `/bin/true`.
//!
//! On a machine that has other work the last part tells little; the control, a pair of equally small callers, shows how
//! much. `taskset -c 1 cargo bench --bench spawn` keeps everything on one CPU, which helps.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use std::{env, process};

use criterion::Criterion;
use nix::sys::prctl::set_thp_disable;
use ringfence::{Launch, Sandbox};

/// A process of this benchmark that touches so many bytes and then spawns at each byte that it reads.
const TOUCHED: &str = "RINGFENCE_BENCH_TOUCHED";
/// How that process spawns.
const LAUNCH: &str = "RINGFENCE_BENCH_LAUNCH";
const PROGRAM: &str = "RINGFENCE_BENCH_PROGRAM";
const MIB: usize = 1 << 20;
/// What the flatness of the image is held to: the ratio of medians.
const TARGET: f64 = 1.2;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    if let Some(bytes) = env::var_os(TOUCHED) {
        return spawn_on_demand(bytes.to_str().unwrap_or_default().parse()?);
    }
    let program = Program::make();
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    latency(&mut criterion, &program.path)?;
    criterion.final_summary();
    if env::args().any(|arg| arg == "--test" || arg == "--list") {
        return Ok(());
    }
    flatness(&program.path)
}

/// A static program that does nothing, gone when this ends; or the host's own.
struct Program {
    path: PathBuf,
    directory: Option<PathBuf>,
}

impl Program {
    fn make() -> Self {
        Self::compile().unwrap_or_else(|| {
            println!(
                "note: no static program (is gcc installed, with a static libc?): /bin/true is run instead"
            );
            Self { path: "/bin/true".into(), directory: None }
        })
    }

    fn compile() -> Option<Self> {
        let directory = env::temp_dir().join(format!("ringfence-bench-{}", process::id()));
        fs::create_dir(&directory).ok()?;
        let (source, path) = (directory.join("true.c"), directory.join("true"));
        let made = Self { path: path.clone(), directory: Some(directory) };
        fs::write(&source, "int main(void) { return 0; }\n").ok()?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-static", "-o"]).args([&path, &source]).stderr(Stdio::null());
        gcc.status().is_ok_and(|status| status.success()).then_some(made)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            fs::remove_dir_all(directory).ok();
        }
    }
}

/// The host's programs read-only, and the program at `/true`.
fn system(program: &Path, launch: Launch) -> ringfence::Result<Sandbox> {
    let builder = Sandbox::builder().system_read_only().launch(launch);
    builder.mount(ringfence::Mount::bind(program, "/true")).build()
}

fn latency(criterion: &mut Criterion, program: &Path) -> Result<(), Failure> {
    let mut group = criterion.benchmark_group("spawn to reap");
    let default = system(program, Launch::Auto)?;
    let empty = Sandbox::builder().empty().mount(ringfence::Mount::bind(program, "/true")).build()?;
    for (name, sandbox) in [("ringfence, system_read_only", default), ("ringfence, empty", empty)] {
        // Once before, so that a fence that cannot be set up is an error with its text.
        sandbox.command("/true").status()?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(sandbox.command("/true").status().is_ok_and(|o| o.success())));
        });
    }
    let peers: [(&str, &str, &[&str]); 3] = [
        ("std::process::Command, no fence", "", &[]),
        (
            "bwrap --unshare-all",
            "bwrap",
            &["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"],
        ),
        ("unshare -Urmpf", "unshare", &["-Urmpf"]),
    ];
    for (name, tool, options) in peers {
        let run = || {
            let mut command = match tool {
                "" => Command::new(program),
                tool => Command::new(tool),
            };
            if !tool.is_empty() {
                command.args(options).arg(program);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
        };
        match run() {
            Ok(status) if status.success() => {
                group.bench_function(name, |bencher| {
                    bencher.iter(|| black_box(run().is_ok_and(|status| status.success())));
                });
            }
            Ok(status) => println!("{name}: does not work here ({status})"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => println!("{name}: not installed"),
            Err(error) => println!("{name}: {error}"),
        }
    }
    group.finish();
    Ok(())
}

/// The same spawn from a small process and from a large one, turn by turn.
fn flatness(program: &Path) -> Result<(), Failure> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = available_parallelism()?;
    println!(
        "\nspawn to reap, by the caller's touched memory (4 KiB pages); Linux {}, {cpus} CPUs to run on",
        kernel.trim()
    );
    for (launch, large, pairs) in [("image", 10, 400), ("image", 4096, 400), ("copy", 1024, 40)] {
        let free = free_memory()? / MIB;
        if free < large + large / 8 {
            println!("{launch}: skipped, it needs {large} MiB of free memory and there are {free}");
            continue;
        }
        let (small, big) = pairs_of(launch, large, pairs, program)?;
        let ratio = big.median.as_secs_f64() / small.median.as_secs_f64();
        let verdict = match (launch, large) {
            (_, 10) => " (the control: 1 on a quiet machine)".to_owned(),
            ("image", _) if ratio <= TARGET => format!(" (at most {TARGET} is wanted: met)"),
            ("image", _) => format!(" (at most {TARGET} is wanted: MISSED)"),
            _ => String::new(),
        };
        println!("{launch:<6} {:>5} MiB: {small}\n{launch:<6} {large:>5} MiB: {big}", 10);
        println!("{launch:<6} ratio of medians, {pairs} pairs: {ratio:.2}{verdict}");
    }
    Ok(())
}

/// Times of a caller with 10 MiB and of one with `large` MiB.
fn pairs_of(launch: &str, large: usize, pairs: usize, program: &Path) -> Result<(Times, Times), Failure> {
    let mut few = Caller::start(launch, 10 * MIB, program)?;
    let mut many = Caller::start(launch, large * MIB, program)?;
    let (mut small_times, mut large_times) = (Vec::new(), Vec::new());
    for pair in 0..pairs + 10 {
        // Who is first changes, so that neither always finds the caches warm.
        let (a, b) = if pair % 2 == 0 {
            let a = few.spawn_once()?;
            (a, many.spawn_once()?)
        } else {
            let b = many.spawn_once()?;
            (few.spawn_once()?, b)
        };
        // The first pairs warm up.
        if pair >= 10 {
            small_times.push(a);
            large_times.push(b);
        }
    }
    Ok((Times::of(small_times), Times::of(large_times)))
}

struct Times {
    median: Duration,
    tenth: Duration,
    ninetieth: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        Self { median: at(50), tenth: at(10), ninetieth: at(90) }
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (low, high) = (ms(self.tenth), ms(self.ninetieth));
        write!(f, "median {:.2} ms, 10 % to 90 %: {low:.2} to {high:.2} ms", ms(self.median))
    }
}

fn free_memory() -> Result<usize, Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// A process of this benchmark with so much memory.
struct Caller {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Caller {
    fn start(launch: &str, bytes: usize, program: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env::current_exe()?);
        command.env(TOUCHED, bytes.to_string()).env(LAUNCH, launch).env(PROGRAM, program);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = process.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut caller = Self { process, ask, answers };
        // The first answer comes when the memory has been touched.
        caller.answer()?;
        Ok(caller)
    }

    fn answer(&mut self) -> Result<Duration, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse()?))
    }

    fn spawn_once(&mut self) -> Result<Duration, Failure> {
        self.ask.write_all(b"x")?;
        self.answer()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The other half of [`Caller`].
fn spawn_on_demand(bytes: usize) -> Result<(), Failure> {
    // Page tables of small pages are what a copy has to copy.
    set_thp_disable(true)?;
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let launch = if env::var(LAUNCH)? == "copy" { Launch::Copy } else { Launch::Image };
    let sandbox = system(Path::new(&env::var(PROGRAM)?), launch)?;
    println!("0");
    let mut stdin = io::stdin().lock();
    while stdin.read(&mut [0])? == 1 {
        let begun = Instant::now();
        let outcome = sandbox.command("/true").status()?;
        let time = begun.elapsed();
        if !outcome.success() {
            return Err(outcome.verdict().to_string().into());
        }
        println!("{}", time.as_nanos());
    }
    black_box(memory);
    Ok(())
}
