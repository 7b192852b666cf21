//! One command, ready for a launch: strings and descriptors. It must not know policy or plan.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::attempt::Body;
use super::site::Site;
use super::supervise::SharedSupervisor;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::plan::{Controlling, Program, Stream};
use crate::sys;

/// When it is known what a child will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    /// The child waits for it: what this request says of the program is never run.
    Later,
}

/// Standard input, output and error of a program; `None` is `/dev/null`, which a child that waits has there already.
pub(crate) type Streams = [Option<OwnedFd>; 3];

/// Opens what is to be `/dev/null`: once for all, as it remembers nothing of what is written to it. Returns the numbers.
pub(crate) fn open_nulls(streams: &mut Streams) -> Result<[RawFd; 3]> {
    let mut null = None;
    let mut numbers = [-1; 3];
    for ((index, stream), number) in (0..).zip(streams).zip(&mut numbers) {
        let failed = |call, errno| {
            Error::new(ErrorKind::Setup, Step::Descriptors, Object::Fd(index)).call(call, errno)
        };
        let fd = match (stream.take(), null) {
            (Some(fd), _) => fd,
            (None, Some(open)) => sys::duplicate(open, 3).map_err(|errno| failed("fcntl", errno))?,
            (None, None) => open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
                .inspect(|fd| null = Some(fd.as_raw_fd()))
                .map_err(|errno| failed("open", errno as i32))?,
        };
        *number = stream.insert(fd).as_raw_fd();
    }
    Ok(numbers)
}

/// What one launch runs.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) program: Program,
    pub(crate) name: Object,
    pub(crate) argv: Strings,
    pub(crate) envp: Strings,
    pub(crate) cwd: CString,
    /// What become 0, 1 and 2.
    pub(crate) stdio: Streams,
    /// Descriptors and the numbers that they get.
    pub(crate) passed: Vec<(OwnedFd, i32)>,
    /// What is executed, where that is a descriptor.
    pub(crate) program_fd: Option<OwnedFd>,
    /// Whether standard input is the program's terminal.
    pub(crate) terminal: Controlling,
    /// Who answers what the filter notifies of.
    pub(crate) supervisor: Option<SharedSupervisor>,
    pub(crate) when: When,
    /// What runs instead of a program.
    pub(crate) body: Option<Body<'a>>,
    /// The living sandbox that it joins.
    pub(crate) site: Option<Arc<Site>>,
}

impl Request<'_> {
    /// For a child that waits for its command. Its own tail executes nothing.
    pub(crate) fn later() -> Self {
        Self {
            program: Program::Paths(Vec::new()),
            name: Object::None,
            argv: Strings::new(vec![c"ringfence-idle".to_owned()]),
            envp: Strings::new(Vec::new()),
            cwd: c"/".to_owned(),
            stdio: [None, None, None],
            passed: Vec::new(),
            program_fd: None,
            terminal: Controlling::No,
            supervisor: None,
            when: When::Later,
            body: None,
            site: None,
        }
    }
}

impl Request<'_> {
    /// Which streams the child has not got already.
    pub(super) fn given(&self) -> [Stream; 3] {
        self.stdio.each_ref().map(|stream| if stream.is_some() { Stream::Given } else { Stream::Null })
    }
}

/// C strings and the table of their addresses, as execve takes it.
#[derive(Debug)]
pub(crate) struct Strings {
    /// What the table points to.
    list: Vec<CString>,
    table: Vec<u64>,
}

impl Strings {
    pub(crate) fn new(list: Vec<CString>) -> Self {
        let address = |text: &CString| text.as_ptr().expose_provenance() as u64;
        let table = list.iter().map(address).chain([0]).collect();
        Self { list, table }
    }

    /// The strings.
    pub(crate) fn list(&self) -> &[CString] {
        &self.list
    }

    /// The address of the table, valid as long as `self`.
    pub(crate) fn address(&self) -> u64 {
        self.table.as_ptr().expose_provenance() as u64
    }
}
