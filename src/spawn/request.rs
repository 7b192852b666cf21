//! One command, ready for a launch: strings and descriptors. It must not know policy or plan.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::site::Site;
use super::supervise::SharedSupervisor;
use crate::error::Object;
use crate::plan::{Controlling, Program};

/// When it is known what a child will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    /// The child waits for it: what this request says of the program is never run.
    Later,
}

/// What one launch runs.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) program: Program,
    pub(crate) name: Object,
    pub(crate) argv: Strings,
    pub(crate) envp: Strings,
    pub(crate) cwd: CString,
    /// What become 0, 1 and 2.
    pub(crate) stdio: [OwnedFd; 3],
    /// Descriptors and the numbers that they get.
    pub(crate) passed: Vec<(OwnedFd, i32)>,
    /// What is executed, where that is a descriptor.
    pub(crate) program_fd: Option<OwnedFd>,
    /// Whether standard input is the program's terminal.
    pub(crate) terminal: Controlling,
    /// Who answers what the filter notifies of.
    pub(crate) supervisor: Option<SharedSupervisor>,
    pub(crate) when: When,
    /// The living sandbox that it joins.
    pub(crate) site: Option<Arc<Site>>,
}

impl Request {
    /// For a child that waits for its command, with these streams until then. Its own tail executes nothing.
    pub(crate) fn later(stdio: [OwnedFd; 3]) -> Self {
        Self {
            program: Program::Paths(Vec::new()),
            name: Object::None,
            argv: Strings::new(vec![c"ringfence-idle".to_owned()]),
            envp: Strings::new(Vec::new()),
            cwd: c"/".to_owned(),
            stdio,
            passed: Vec::new(),
            program_fd: None,
            terminal: Controlling::No,
            supervisor: None,
            when: When::Later,
            site: None,
        }
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
