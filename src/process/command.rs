//! What one run executes, after std's `Command`: arguments, environment, directory, streams, descriptors.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::channel::Channel;
use super::child::Child;
use super::ends::{self, Ends};
use super::held::Held;
use super::living;
use super::outcome::Outcome;
use super::stdio::Stdio;
use super::terminal::WindowSize;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::plan::{BRIEF_SPAN, Controlling, Program};
use crate::policy::Filter;
use crate::spawn::{
    Fence, NotifiedCall, Request, Response, Running, SharedSupervisor, Site, Streams, Strings, Supervisor,
    When, explain, explain_joining, join, launch,
};
use crate::sys;

/// Where programs are looked for when the environment inside has no `PATH` (execvp(3)).
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Descriptors that one command may pass: the tail of the table grows with each.
const PASSED_MAX: usize = 1_000;

/// The kernel's own ceiling of a table of descriptors (proc(5), `fs.nr_open`, "default 1048576").
const TARGET_MAX: RawFd = 1 << 20;

/// Descriptors, and the numbers that they get inside.
type Passed = Vec<(OwnedFd, i32)>;

/// A program to run behind the fence.
///
/// The environment starts empty and the streams are `/dev/null`, unless said otherwise. A command can be spawned many
/// times, as its descriptors are duplicated for each.
#[derive(Debug)]
pub struct Command {
    fence: Arc<Fence>,
    program: OsString,
    program_fd: Option<OwnedFd>,
    arg0: Option<OsString>,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    stdio: [Option<Stdio>; 3],
    passed: Vec<(RawFd, OwnedFd)>,
    channel: Option<RawFd>,
    terminal: Option<WindowSize>,
    supervisor: Option<SharedSupervisor>,
    name: Option<String>,
    /// The living sandbox that it joins; or why it cannot.
    site: Option<Result<Arc<Site>>>,
}

impl Command {
    pub(super) fn new(fence: Arc<Fence>, program: &OsStr) -> Self {
        Self {
            fence,
            program: program.to_owned(),
            program_fd: None,
            arg0: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: PathBuf::from("/"),
            stdio: [None, None, None],
            passed: Vec::new(),
            channel: None,
            terminal: None,
            supervisor: None,
            name: None,
            site: None,
        }
    }

    /// A command that joins a living sandbox.
    pub(super) fn joining(running: &Running, program: &OsStr) -> Self {
        // What has joined a sandbox is joined by joining that.
        let site = Some(match &running.site {
            _ if running.parent.is_worker() => {
                Err(Self::mistake("sandbox", "a worker's sandbox is its fork server's: a command joins that"))
            }
            Some(site) => Ok(Arc::clone(site)),
            None => Site::of(running).map(Arc::new),
        });
        Self { site, ..Self::new(Arc::clone(&running.fence), program) }
    }

    /// A name for humans, under which [`crate::living`] lists what this command starts, from its release to its end: 1 to 64
    /// bytes without a control character. Default: none, and it is not listed.
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// Executes this open file instead of a path inside (execveat(2), `AT_EMPTY_PATH`); the name stays as `argv[0]`.
    pub fn program_fd(&mut self, fd: impl Into<OwnedFd>) -> &mut Self {
        self.program_fd = Some(fd.into());
        self
    }

    /// `argv[0]`. Default: the program as given.
    pub fn arg0(&mut self, arg0: impl AsRef<OsStr>) -> &mut Self {
        self.arg0 = Some(arg0.as_ref().to_owned());
        self
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable inside.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets variables inside.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Takes a variable over from the caller, if the caller has it now.
    pub fn env_inherit(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        if let Some(value) = env::var_os(name.as_ref()) {
            self.env(name, value);
        }
        self
    }

    /// Removes every variable set so far.
    pub fn env_clear(&mut self) -> &mut Self {
        self.env.clear();
        self
    }

    /// The working directory inside. Default `/`.
    pub fn current_dir(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.cwd = path.into();
        self
    }

    /// Standard input. Default `/dev/null`.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[0] = Some(stdio.into());
        self
    }

    /// Standard output. Default `/dev/null`; a pipe for [`Command::output`].
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[1] = Some(stdio.into());
        self
    }

    /// Standard error. Default `/dev/null`; a pipe for [`Command::output`].
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[2] = Some(stdio.into());
        self
    }

    /// Passes an open descriptor under the number `target`, 3 or more. Every descriptor that is not passed is closed.
    /// A file that can only be read through its descriptor may be opened for writing through `/proc/self/fd` inside, as
    /// far as its mode and its file system allow: pass pipes and sockets where that matters.
    pub fn fd(&mut self, target: RawFd, fd: impl Into<OwnedFd>) -> &mut Self {
        self.passed.push((target, fd.into()));
        self
    }

    /// Gives the program one end of a [`Channel`] under the number `target`, 3 or more, and that number in the environment
    /// variable [`Channel::VARIABLE`]. The other end is [`Child::channel`], a new one for each spawn.
    pub fn channel(&mut self, target: RawFd) -> &mut Self {
        self.channel = Some(target);
        self.env(Channel::VARIABLE, target.to_string())
    }

    /// A terminal of this size as the program's standard streams and controlling terminal, in a session of its own; what was
    /// said of the streams does not count. The caller's side is [`Child::terminal`], a new one for each spawn.
    ///
    /// A resize sends SIGWINCH to the group in front, a hang-up SIGHUP to the program, and to the group in front when the
    /// program has ended by that. A program that is PID 1 itself ([`crate::Init::Program`]) ignores what it has no handler for
    /// (pid_namespaces(7)), SIGHUP too.
    ///
    /// It is a device of the caller's `/dev/pts`: the program has it open, and finds no name for it inside (ttyname(3)).
    pub fn terminal(&mut self, size: WindowSize) -> &mut Self {
        self.terminal = Some(size);
        self
    }

    /// Who answers the calls that the filter's rules answer with [`crate::Action::Notify`], for every child of this command:
    /// a thread of this process for each, from its exec to the end of whatever runs inside.
    ///
    /// A filter that notifies needs one, and one needs a filter that notifies: the spawn fails otherwise.
    pub fn supervise(&mut self, supervisor: impl Supervisor + 'static) -> &mut Self {
        self.supervisor = Some(SharedSupervisor(Arc::new(supervisor)));
        self
    }

    /// The same with a closure.
    ///
    /// ```no_run
    /// use ringfence::{Action, Filter, Response, Sandbox};
    ///
    /// # fn main() -> ringfence::Result<()> {
    /// let filter = Filter::baseline().forget(["uname"]).deny(["uname"], Action::Notify);
    /// let sandbox = Sandbox::builder().system_read_only().seccomp(filter).build()?;
    /// let mut command = sandbox.command("uname");
    /// let outcome = command.on_notify(|call| {
    ///     println!("{:?} {:x?}", call.name(), call.arguments());
    ///     Response::Errno(libc::EPERM)
    /// });
    /// # let _ = outcome.output()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_notify(
        &mut self,
        answer: impl Fn(&NotifiedCall<'_>) -> Response + Send + Sync + 'static,
    ) -> &mut Self {
        self.supervise(answer)
    }

    /// Sets up and confines a child that waits before it becomes the program.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidCommand`] for a mistake in the command; [`ErrorKind::Setup`] with step, object, call, errno and
    /// causes where the fence could not be set up. Then nothing is left behind.
    pub fn spawn_held(&mut self) -> Result<Held> {
        self.held(&Stdio::null())
    }

    /// Runs the program. `Ok` means that `execve` has happened.
    ///
    /// # Errors
    /// As [`Command::spawn_held`]; [`ErrorKind::Exec`] where the program could not be executed.
    pub fn spawn(&mut self) -> Result<Child> {
        self.held(&Stdio::null())?.release()
    }

    /// The dry run of this command: for each namespace set the plan, and behind it what belongs to the command.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidCommand`] for a mistake in the command.
    pub fn explain(&self) -> Result<String> {
        let request = self.request([None, None, None], self.passed()?, None)?;
        match &self.site {
            Some(Ok(site)) => explain_joining(site, &request),
            Some(Err(error)) => Err(error.again()),
            None => Ok(explain(&self.fence, &request)),
        }
    }

    /// Runs the program to its end and collects what it wrote.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn output(&mut self) -> Result<Outcome> {
        self.held(&Stdio::piped())?.release()?.wait_with_output()
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn status(&mut self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    fn held(&self, default: &Stdio) -> Result<Held> {
        let (request, ends) = self.prepared(default)?;
        Ok(Held::new(self.start(request)?, ends))
    }

    fn start(&self, mut request: Request) -> Result<Running> {
        match &self.site {
            Some(Ok(site)) => {
                request.site = Some(Arc::clone(site));
                join(site, request)
            }
            Some(Err(error)) => Err(error.again()),
            None => launch(&self.fence, request),
        }
    }

    /// Runs in a child of its own.
    pub(super) fn launched(&self, request: Request<'_>, ends: Ends) -> Result<Child> {
        Held::new(self.start(request)?, ends).release()
    }

    /// A child that waits is of one sandbox: what another one says of a command does not hold there.
    pub(super) fn check_fence(&self, fence: &Arc<Fence>) -> Result<()> {
        if self.site.is_some() {
            let why = "it is a command for a sandbox that runs already, and joins no other";
            return Err(Self::mistake("sandbox", why));
        }
        if Arc::ptr_eq(&self.fence, fence) {
            return Ok(());
        }
        Err(Self::mistake("sandbox", "the command is of another sandbox than the child that waits"))
    }

    /// All that a launch takes: strings, descriptors, and the caller's ends of what is connected with the program.
    pub(super) fn prepared(&self, default: &Stdio) -> Result<(Request<'static>, Ends)> {
        // First what must be open already: a number that is closed would be taken by the descriptors that follow.
        let mut passed = self.passed()?;
        let program_fd = self.program_fd.as_ref().map(|fd| duplicate(fd.as_raw_fd())).transpose()?;
        let null = Stdio::null();
        self.check_supervisor()?;
        if let Some(why) = self.name.as_deref().and_then(living::mistake) {
            return Err(Self::mistake("name", why));
        }
        if self.name.is_some() && self.site.is_some() {
            return Err(Self::mistake("name", "a name is a sandbox's, and this command joins one"));
        }
        let stream = |number: usize, default| self.stdio[number].as_ref().unwrap_or(default);
        let (streams, mut ends) = match self.terminal {
            Some(size) => ends::terminal(size)?,
            None => ends::streams([stream(0, &null), stream(1, default), stream(2, default)])?,
        };
        if let Some(target) = self.channel {
            check_target(target, &passed)?;
            let (ours, theirs) = ends::channel()?;
            ends.channel = Some(ours);
            passed.push((theirs, target));
        }
        ends.name.clone_from(&self.name);
        Ok((self.request(streams, passed, program_fd)?, ends))
    }

    /// What nobody would answer is not started, and who would never be asked is a mistake.
    fn check_supervisor(&self) -> Result<()> {
        let notifies = self.fence.policy.seccomp.as_ref().is_some_and(Filter::notifies);
        match (notifies, &self.supervisor) {
            (true, None) => Err(Self::mistake(
                "supervisor",
                "the filter has rules that notify, and nobody to answer: on_notify()",
            )),
            (false, Some(_)) => Err(Self::mistake("supervisor", "the filter has no rule that notifies")),
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }

    fn mistake(object: impl Into<Object>, why: &str) -> Error {
        Error::new(ErrorKind::InvalidCommand, Step::Command, object).detail(why)
    }

    fn request(
        &self,
        stdio: Streams,
        passed: Passed,
        program_fd: Option<OwnedFd>,
    ) -> Result<Request<'static>> {
        let name = Object::SandboxPath(PathBuf::from(&self.program));
        let arg0 = self.arg0.as_ref().unwrap_or(&self.program);
        let mut argv = vec![c_string(arg0, || "argument 0".to_owned())?];
        for (number, arg) in (1..).zip(&self.args) {
            argv.push(c_string(arg, || format!("argument {number}"))?);
        }
        let mut envp = Vec::new();
        for (key, value) in &self.env {
            let bytes = key.as_bytes();
            if bytes.is_empty() || bytes.contains(&b'=') {
                return Err(Self::mistake(
                    format!("variable {key:?}"),
                    "a name is not empty and holds no \"=\"",
                ));
            }
            let mut text = key.clone();
            text.push("=");
            text.push(value);
            envp.push(c_string(&text, || format!("variable {key:?}"))?);
        }
        let program = self.program_paths()?;
        Ok(Request {
            program,
            name,
            argv: Strings::new(argv),
            envp: Strings::new(envp),
            cwd: c_string(self.cwd.as_os_str(), || "working directory".to_owned())?,
            stdio,
            passed,
            program_fd,
            terminal: if self.terminal.is_some() { Controlling::Stdin } else { Controlling::No },
            supervisor: self.supervisor.clone(),
            when: When::Now,
            body: None,
            site: None,
        })
    }

    /// The paths to try, as execvp(3) would.
    fn program_paths(&self) -> Result<Program> {
        if self.program_fd.is_some() {
            return Ok(Program::Fd);
        }
        let program = self.program.as_bytes();
        if program.is_empty() {
            return Err(Self::mistake("program", "it is empty"));
        }
        let path = |bytes: &[u8]| c_string(OsStr::from_bytes(bytes), || "program".to_owned());
        if program.contains(&b'/') {
            return Ok(Program::Paths(vec![path(program)?]));
        }
        let search = self.env.get(OsStr::new("PATH")).map_or(DEFAULT_PATH, |value| value.as_bytes());
        let mut paths = Vec::new();
        for directory in search.split(|byte| *byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            paths.push(path(&[directory, b"/", program].concat())?);
        }
        let length: usize = paths.iter().map(|path| path.as_bytes().len() + 512).sum();
        if i64::try_from(length).is_ok_and(|length| length > BRIEF_SPAN / 2) {
            return Err(Self::mistake("PATH", "it is too long"));
        }
        Ok(Program::Paths(paths))
    }

    fn passed(&self) -> Result<Passed> {
        if self.passed.len() > PASSED_MAX {
            return Err(Self::mistake("descriptors", "at most 1000 can be passed"));
        }
        let mut list: Passed = Vec::new();
        for (target, fd) in &self.passed {
            check_target(*target, &list)?;
            list.push((duplicate(fd.as_raw_fd())?, *target));
        }
        Ok(list)
    }
}

fn check_target(target: RawFd, taken: &[(OwnedFd, i32)]) -> Result<()> {
    let mistake = |why| Err(Command::mistake(Object::Fd(target), why));
    if target < 3 {
        return mistake("0, 1 and 2 are stdin, stdout and stderr");
    }
    if target > TARGET_MAX {
        return mistake("the number is larger than any table of descriptors");
    }
    if taken.iter().any(|(_, other)| *other == target) {
        return mistake("two descriptors for one number");
    }
    Ok(())
}

fn duplicate(fd: RawFd) -> Result<OwnedFd> {
    sys::duplicate(fd, 3).map_err(|errno| {
        Error::new(ErrorKind::InvalidCommand, Step::Descriptors, Object::Fd(fd)).call("fcntl", errno)
    })
}

fn c_string(text: &OsStr, what: impl Fn() -> String) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Command::mistake(what(), "it holds a NUL"))
}
