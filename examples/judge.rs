//! An online judge: compiles a submission in C or Python behind a fence, runs it on every test case of a folder, several at
//! a time, and says for each what came of it.
//!
//! ```text
//! cargo run --release --example judge -- --cases examples/judge/sum examples/judge/sum.c
//! ```

use std::cmp::Reverse;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringfence::{
    Clock, Enforcement, FileItem, Mount, MountKind, Outcome, Sandbox, Stdio, Strength, Verdict, prefer,
};
use serde_json::json;

type Failure = Box<dyn Error + Send + Sync>;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// What a compiler may use.
const COMPILE_TIME: Duration = Duration::from_secs(20);
const COMPILE_MEMORY: u64 = 1 << 30;
/// The largest program that is taken from it.
const PROGRAM_MAX: u64 = 64 << 20;

/// Judge a submission on the test cases of a folder.
///
/// A case is a pair of files NAME.in and NAME.out. What the program prints has to be the same as NAME.out, blanks and line
/// ends at the end of lines aside.
///
/// Exit status: 0 where every case is accepted, 1 where one is not, 2 where the judge itself could not do its work.
#[derive(Parser, Debug)]
#[command(name = "judge", version, verbatim_doc_comment)]
struct Args {
    /// The submission: a file that ends in .c or .py
    submission: PathBuf,

    /// The folder of test cases
    #[arg(long, value_name = "DIR")]
    cases: PathBuf,

    /// CPU time of one case, milliseconds; by the clock on the wall it is three times that and a second
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    time: u64,

    /// Memory of one case, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(4..=65_536))]
    memory: u64,

    /// Processes and threads of one case
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(2..=4_096))]
    processes: u64,

    /// Output of one case, KiB
    #[arg(long, value_name = "KIB", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    output: u64,

    /// Cases that run at a time; default: the number of processors
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Refuse to judge where the kernel cannot hold memory, processes and CPU time for the whole tree (without this they are
    /// bounded as well as can be, and the result says how)
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What a case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Judgement {
    Accepted,
    WrongAnswer(String),
    TimeLimit,
    MemoryLimit,
    OutputLimit,
    ProcessLimit,
    RuntimeError(String),
}

impl Judgement {
    fn short(&self) -> &'static str {
        match self {
            Self::Accepted => "AC",
            Self::WrongAnswer(_) => "WA",
            Self::TimeLimit => "TLE",
            Self::MemoryLimit => "MLE",
            Self::OutputLimit => "OLE",
            Self::ProcessLimit => "PLE",
            Self::RuntimeError(_) => "RE",
        }
    }
}

impl Display for Judgement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::WrongAnswer(why) => write!(f, "wrong answer: {why}"),
            Self::TimeLimit => f.write_str("time limit exceeded"),
            Self::MemoryLimit => f.write_str("memory limit exceeded"),
            Self::OutputLimit => f.write_str("output limit exceeded"),
            Self::ProcessLimit => f.write_str("process limit exceeded"),
            Self::RuntimeError(what) => write!(f, "runtime error: {what}"),
        }
    }
}

#[derive(Debug)]
struct Case {
    name: String,
    input: PathBuf,
    expected: Vec<u8>,
}

#[derive(Debug)]
struct CaseResult {
    name: String,
    judgement: Judgement,
    wall: Duration,
    cpu: Duration,
    /// Bytes, and whether a group counted them; without one it is the largest resident set of a process.
    peak: u64,
    counted: bool,
    limits: String,
}

/// What runs: mounts for the program's own files, and the command line.
struct Prepared {
    files: Vec<(&'static str, FileItem)>,
    command: &'static [&'static str],
}

fn main() -> ExitCode {
    let args = Args::parse();
    match judge(&args) {
        Ok(results) => {
            let accepted = results.iter().all(|result| result.judgement == Judgement::Accepted);
            ExitCode::from(u8::from(!accepted))
        }
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            writeln!(io::stderr(), "judge: {error:#}").ok();
            ExitCode::from(2)
        }
    }
}

fn judge(args: &Args) -> Result<Vec<CaseResult>, Failure> {
    let cases = cases(&args.cases)?;
    let prepared = match prepare(&args.submission)? {
        Ok(prepared) => prepared,
        Err(complaint) => {
            return Err(format!("{} does not compile\n{complaint}", args.submission.display()).into());
        }
    };
    let sandbox = sandbox(args, &prepared)?;
    let results = run_all(args, &sandbox, &prepared, &cases)?;
    match args.format {
        Format::Table => table(&results)?,
        Format::Json => print_json(args, &results)?,
    }
    Ok(results)
}

/// The pairs of a folder, by name.
fn cases(folder: &Path) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let input = entry?.path();
        if input.extension() != Some(OsStr::new("in")) {
            continue;
        }
        let expected = input.with_extension("out");
        let expected = fs::read(&expected).map_err(|error| format!("{}: {error}", expected.display()))?;
        let name = input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.push(Case { name, input, expected });
    }
    if cases.is_empty() {
        return Err(format!("{}: no NAME.in in it", folder.display()).into());
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Compiles the submission, behind a fence of its own: a compiler reads untrusted text. The inner error is what the
/// compiler said.
fn prepare(submission: &Path) -> Result<Result<Prepared, String>, Failure> {
    let source = fs::read(submission).map_err(|error| format!("{}: {error}", submission.display()))?;
    let file = |contents: Vec<u8>, mode| FileItem { contents, mode };
    match submission.extension().and_then(OsStr::to_str) {
        Some("c") => {
            let script = "gcc -x c -O2 -std=gnu17 -o /tmp/program /submission.c -lm && cat /tmp/program";
            let program = match compile(script, file(source, 0o444), "/submission.c")? {
                Ok(program) => program,
                Err(complaint) => return Ok(Err(complaint)),
            };
            Ok(Ok(Prepared { files: vec![("/program", file(program, 0o555))], command: &["/program"] }))
        }
        Some("py") => {
            let script = "python3 -c 'compile(open(\"/submission.py\").read(), \"submission.py\", \"exec\")'";
            if let Err(complaint) = compile(script, file(source.clone(), 0o444), "/submission.py")? {
                return Ok(Err(complaint));
            }
            let command = &["python3", "/submission.py"];
            Ok(Ok(Prepared { files: vec![("/submission.py", file(source, 0o444))], command }))
        }
        _ => Err(format!("{}: the name has to end in .c or .py", submission.display()).into()),
    }
}

fn compile(script: &str, source: FileItem, at: &str) -> Result<Result<Vec<u8>, String>, Failure> {
    let sandbox = Sandbox::builder()
        .system_read_only()
        .mount(Mount::new(at, MountKind::File(source)))
        .wall_time(COMPILE_TIME)
        .memory(prefer(COMPILE_MEMORY))
        .processes(prefer(64))
        .output_limit(PROGRAM_MAX)
        .build()?;
    let outcome =
        sandbox.command("sh").args(["-c", script]).env("PATH", PATH).current_dir("/tmp").output()?;
    let complaint = || String::from_utf8_lossy(&outcome.stderr).into_owned();
    Ok(match outcome.code() {
        Some(0) => Ok(outcome.stdout),
        Some(_) => Err(complaint()),
        None => Err(format!("the compiler: {}", outcome.verdict())),
    })
}

fn sandbox(args: &Args, prepared: &Prepared) -> Result<Sandbox, Failure> {
    let cpu = Duration::from_millis(args.time);
    let mut builder = Sandbox::builder()
        .system_read_only()
        .wall_time(3 * cpu + Duration::from_secs(1))
        .output_limit(args.output << 10);
    // Swap would only make a case slow before it fails.
    builder = if args.strict {
        builder.memory(args.memory << 20).processes(args.processes).cpu_time(cpu)
    } else {
        builder
            .memory(prefer(args.memory << 20))
            .swap(prefer(0))
            .processes(prefer(args.processes))
            .cpu_time(prefer(cpu))
    };
    for (at, file) in &prepared.files {
        builder = builder.mount(Mount::new(*at, MountKind::File(file.clone())));
    }
    Ok(builder.build()?)
}

/// Every case once, several at a time; the results in the order of the cases.
fn run_all(
    args: &Args,
    sandbox: &Sandbox,
    prepared: &Prepared,
    cases: &[Case],
) -> Result<Vec<CaseResult>, Failure> {
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let bar = progress(cases.len());
    let work = || -> Result<(), Failure> {
        while let Some((index, case)) = {
            let index = next.fetch_add(1, Ordering::SeqCst);
            cases.get(index).map(|case| (index, case))
        } {
            let result = run(sandbox, prepared, case)?;
            bar.set_message(format!("{} {}", result.name, result.judgement.short()));
            bar.inc(1);
            done.lock().map_err(|_| "a worker panicked")?.push((index, result));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, cases.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;
    bar.finish_and_clear();
    let mut results = done.into_inner().map_err(|_| "a worker panicked")?;
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn progress(length: usize) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(u64::try_from(length).ok(), target);
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {elapsed} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn run(sandbox: &Sandbox, prepared: &Prepared, case: &Case) -> Result<CaseResult, Failure> {
    let (program, arguments) = prepared.command.split_first().ok_or("no command")?;
    let input = File::open(&case.input).map_err(|error| format!("{}: {error}", case.input.display()))?;
    let mut command = sandbox.command(program);
    command.args(arguments).env("PATH", PATH).current_dir("/tmp");
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let limits = limits(child.enforcement());
    let begun = Instant::now();
    let outcome = child.wait_with_output()?;
    let wall = begun.elapsed();
    let memory = outcome.stats.and_then(|stats| stats.memory.peak);
    let cpu = outcome.stats.and_then(|stats| Some(stats.cpu.user? + stats.cpu.system?));
    Ok(CaseResult {
        name: case.name.clone(),
        judgement: judgement(&outcome, &case.expected),
        wall,
        cpu: cpu.unwrap_or(outcome.usage.user + outcome.usage.system),
        peak: memory.unwrap_or(outcome.usage.max_resident),
        counted: memory.is_some(),
        limits,
    })
}

/// How well the limits of the tree hold: the weakest.
fn limits(enforcement: &Enforcement) -> String {
    let mut states: Vec<_> = enforcement.limits.iter().collect();
    states.sort_by_key(|state| {
        Reverse(match state.strength {
            Strength::None => 2,
            Strength::Approximate => 1,
            Strength::Hard => 0,
        })
    });
    states.first().map_or_else(|| "none".to_owned(), |state| state.strength.to_string())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else ends a program is its own fault")]
fn judgement(outcome: &Outcome, expected: &[u8]) -> Judgement {
    match outcome.verdict() {
        Verdict::Exited(0) => compare(&outcome.stdout, expected),
        Verdict::TimedOut { clock: Clock::Wall | Clock::Cpu, .. } => Judgement::TimeLimit,
        Verdict::OutOfMemory { .. } => Judgement::MemoryLimit,
        Verdict::TooMuchOutput { .. } => Judgement::OutputLimit,
        Verdict::TooManyProcesses { .. } => Judgement::ProcessLimit,
        other => Judgement::RuntimeError(other.to_string()),
    }
}

/// Line by line, without what stands at the end of a line or of the file in blanks.
fn compare(got: &[u8], expected: &[u8]) -> Judgement {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    };
    let (got, expected) = (lines(got), lines(expected));
    let pairs = got.iter().zip(&expected);
    if let Some((number, _)) = (1..).zip(pairs).find(|(_, (got, expected))| got != expected) {
        return Judgement::WrongAnswer(format!("line {number} differs"));
    }
    if got.len() == expected.len() {
        return Judgement::Accepted;
    }
    Judgement::WrongAnswer(format!("{} lines, expected {}", got.len(), expected.len()))
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn table(results: &[CaseResult]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = results.iter().map(|result| result.name.chars().count()).max().unwrap_or(0).max(4);
    writeln!(out, "{:width$}  verdict  time ms  cpu ms  peak MiB  limits", "case")?;
    for result in results {
        let CaseResult { name, judgement, wall, cpu, peak, limits, .. } = result;
        let (wall, cpu, peak) = (wall.as_millis(), cpu.as_millis(), mebibytes(*peak));
        let short = judgement.short();
        writeln!(out, "{name:width$}  {short:7}  {wall:7}  {cpu:6}  {peak:>8}  {limits}")?;
        if !matches!(judgement, Judgement::Accepted) {
            writeln!(out, "{:width$}  {judgement}", "")?;
        }
    }
    let accepted = results.iter().filter(|result| result.judgement == Judgement::Accepted).count();
    writeln!(out, "{accepted} of {} accepted", results.len())
}

fn print_json(args: &Args, results: &[CaseResult]) -> io::Result<()> {
    let cases: Vec<_> = results
        .iter()
        .map(|result| {
            json!({
                "case": result.name,
                "verdict": result.judgement.short(),
                "detail": result.judgement.to_string(),
                "wall_ms": u64::try_from(result.wall.as_millis()).unwrap_or(u64::MAX),
                "cpu_ms": u64::try_from(result.cpu.as_millis()).unwrap_or(u64::MAX),
                "peak_bytes": result.peak,
                "peak_of": if result.counted { "tree" } else { "largest process" },
                "limits": result.limits,
            })
        })
        .collect();
    let accepted = results.iter().filter(|result| result.judgement == Judgement::Accepted).count();
    let all = json!({
        "submission": args.submission.to_string_lossy(),
        "accepted": accepted,
        "of": results.len(),
        "cases": cases,
    });
    writeln!(io::stdout(), "{all:#}")
}
