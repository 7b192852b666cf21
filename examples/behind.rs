//! Runs a command behind a filter that takes system calls away, as an older kernel or a container's filter does.
//!
//! ```text
//! cargo run --example behind -- clone3=ENOSYS openat2=EPERM -- ./my-program
//! ```

use std::error::Error;
use std::ffi::OsString;
use std::io::{Write, stderr};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::str::FromStr;

use clap::Parser;
use nix::errno::Errno;
use ringfence::{Action, Filter, Lowering};

/// The command could not be started.
const FAILED: u8 = 125;

/// Run a command behind a filter that answers the named system calls with an errno, to see how it does without them: on
/// an older kernel (ENOSYS), or within a container whose filter does not know them (EPERM).
///
/// All else is allowed. The filter holds for whatever the command starts, and no_new_privs is set: setuid programs
/// behind it gain nothing.
///
/// Exit status: the command's own; 125 where it could not be started.
#[derive(Parser, Debug)]
#[command(name = "behind", version, verbatim_doc_comment)]
struct Args {
    /// A system call (syscalls(2)), and the errno that it answers
    #[arg(required = true, value_name = "CALL=ERRNO")]
    calls: Vec<Answer>,

    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A call, and what it answers.
#[derive(Clone, Debug)]
struct Answer {
    call: String,
    errno: Errno,
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (call, name) = text.split_once('=').ok_or("CALL=ERRNO is wanted")?;
        let errno = (1..200).map(Errno::from_raw).find(|errno| format!("{errno:?}") == name);
        Ok(Self { call: call.to_owned(), errno: errno.ok_or_else(|| format!("no errno is called {name}"))? })
    }
}

fn start(args: &Args) -> Result<(), Box<dyn Error>> {
    let filter = args.calls.iter().fold(Filter::deny_list(), |filter, answer| {
        filter.deny([answer.call.clone()], Action::Errno(answer.errno as i32))
    });
    Lowering::builder().seccomp(filter).build()?.apply()?;
    let (program, arguments) = args.command.split_first().ok_or("no command")?;
    Err(Command::new(program).args(arguments).exec().into())
}

fn main() -> ExitCode {
    let Err(error) = start(&Args::parse()) else { return ExitCode::SUCCESS };
    // Without a standard error there is nobody to tell.
    writeln!(stderr(), "behind: {error}").ok();
    ExitCode::from(FAILED)
}
