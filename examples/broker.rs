//! Runs a program that opens no file itself: each open is asked about, decided here, and made by this process.
//!
//! ```text
//! cargo run --example broker -- --allow ./data cat ./data/list
//! ```

use std::error::Error;
use std::ffi::OsString;
use std::fs::canonicalize;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ringfence::{Broker, Filter, OpenDecision, OpenPurpose, OpenRequest, Sandbox, Stdio, Verdict};

/// The fence could not be set up, or the program did not exit.
const FAILED: u8 = 2;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// What programs and their loader need. The sandbox has it, and nothing of the user's.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/dev", "/tmp", "/opt"];

/// Run a program behind a fence in which none of your files exist. What it opens is asked about, one by one: files below
/// the directories that --allow names are opened for it, to be read, by this process; no other.
///
/// Their contents cannot be changed. Their mode, times and attributes can, where the program has their owner's id: run by an
/// ordinary user it has yours. Run by root, this process opens for it what root may read, in /etc too.
///
/// Exit status: the program's own; 2 where it did not exit by itself or could not be started.
#[derive(Parser, Debug)]
#[command(name = "broker", version, verbatim_doc_comment)]
struct Args {
    /// Open files below DIR for the program, to be read (mode and times can be changed by their owner). No symlink is followed there
    #[arg(long, value_name = "DIR")]
    allow: Vec<PathBuf>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// One line on standard error, whole.
fn say(text: &str) {
    // Without a standard error there is nobody to tell.
    writeln!(stderr(), "broker: {text}").ok();
}

fn decide(request: &OpenRequest, allowed: &[PathBuf]) -> OpenDecision {
    let below = |place: &Path| request.path.starts_with(place);
    if SYSTEM.iter().any(|place| below(Path::new(place))) && !allowed.iter().any(|place| below(place)) {
        return OpenDecision::Inside;
    }
    let what = match (request.purpose, request.writes()) {
        (OpenPurpose::Open, true) => "write",
        (OpenPurpose::Open, false) => "read",
        _ => "look at",
    };
    let fine = !request.writes() && allowed.iter().any(|place| below(place));
    say(&format!("{what} {}: {}", request.path.display(), if fine { "allowed" } else { "refused" }));
    if fine { OpenDecision::Open } else { OpenDecision::Refuse(libc::EACCES) }
}

fn run(args: &Args) -> Result<u8, Box<dyn Error>> {
    let allowed = args.allow.iter().map(canonicalize).collect::<Result<Vec<_>, _>>()?;
    let broker = Broker::new().on_open(move |request| decide(request, &allowed));
    let sandbox = Sandbox::builder().system_read_only().seccomp(broker.filter(Filter::baseline())).build()?;
    let (program, rest) = args.command.split_first().ok_or("no program")?;
    let mut command = sandbox.command(program);
    command.args(rest).env("PATH", PATH).env("LC_ALL", "C.UTF-8").current_dir("/tmp");
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let outcome = command.supervise(broker).spawn()?.wait()?;
    match outcome.verdict() {
        Verdict::Exited(code) => Ok(u8::try_from(code & 0xff).unwrap_or(FAILED)),
        verdict @ (Verdict::Refused { .. } | _) => {
            say(&verdict.to_string());
            Ok(FAILED)
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
