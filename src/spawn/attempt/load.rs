//! A child that was launched without a command gets one: its tail, arguments and environment are put into the brief, its
//! descriptors wait for the release. It must not tell the child to go.

use std::fs::File;
use std::os::fd::OwnedFd;

use super::super::request::{Request, Streams, Strings};
use super::Running;
use super::kept::Tail;
use super::memory::command_tail;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::machine::layout::{ARGV, ENVP};
use crate::plan::{Arrival, Listing};

/// Bytes of the brief for a command that comes later: tail, arguments, environment. Pages of it that nothing was written to
/// take no memory.
pub(crate) const ROOM: usize = 1 << 20;

impl Running {
    /// What only the release is left for. Nothing has been told to the child yet: it reads none of this before the release,
    /// and the kernel's locks around that message order these writes before its reads.
    ///
    /// # Errors
    /// `E2BIG` where the command has no room in the brief.
    pub(crate) fn load(&mut self, request: Request<'_>) -> Result<()> {
        let Some(compiled) = self.compiled() else {
            return Err(Error::new(ErrorKind::Setup, Step::Exec, "program"));
        };
        let plan = &compiled.plan;
        let tail = compiled.kept.of(&request, || {
            let how = (&request.program, Arrival::Messages, Listing::Omitted);
            let (code, cells) = command_tail(&self.fence, plan, &request, how);
            Tail::new(code, &cells)
        });
        let segment = &tail.code.segment;
        let mut bytes = Vec::new();
        segment.link(&self.linked.bases, &mut bytes);
        let argv = append(&mut bytes, &request.argv, self.linked.bases.tail);
        let envp = append(&mut bytes, &request.envp, self.linked.bases.tail);
        if bytes.len() > ROOM {
            let error = Error::new(ErrorKind::Exec, Step::Exec, request.name).call("execve", libc::E2BIG);
            return Err(error.detail("a child that waits has 1 MiB for arguments, environment and paths"));
        }
        let map = self.parent.brief().map();
        map.set_bytes(plan.tail_at, &bytes);
        map.set_word(ARGV, argv);
        map.set_word(ENVP, envp);
        let rows = self.linked.bases.tail + segment.rows_at() as u64;
        super::super::fill::enter_tail(self.parent.brief(), rows);
        self.linked.tail = tail;
        self.supervisor = request.supervisor;
        self.cargo = cargo(request.stdio, request.passed, request.program_fd);
        self.told = bytes.len();
        Ok(())
    }

    /// The last process of a sandbox tears its mount namespace down before it counts as ended, which takes longer than a
    /// small program runs. So the namespace of a child that has waited is held here, and let go when nobody waits for it.
    pub(super) fn hold_mounts(&self) {
        // Where it cannot be opened (`hidepid`, a security module) the kernel does it at once, as ever.
        if let Ok(file) = File::open(format!("/proc/{}/ns/mnt", self.program)) {
            self.parent.hold_mounts(file.into());
        }
    }

    /// Init keeps the brief mapped, and the environment of a program is not for it.
    pub(super) fn unload(&mut self) {
        if let (told @ 1.., Some(compiled)) = (self.told, self.compiled()) {
            self.parent.brief().forget(compiled.plan.tail_at, told);
            self.told = 0;
        }
    }
}

/// Standard streams first, then what is passed, then the program: as the tail takes them in.
fn cargo(stdio: Streams, passed: Vec<(OwnedFd, i32)>, program: Option<OwnedFd>) -> Vec<OwnedFd> {
    stdio.into_iter().flatten().chain(passed.into_iter().map(|(fd, _)| fd)).chain(program).collect()
}

/// Puts the table and the strings behind `bytes`, which the child finds at `base`. Returns the table's address there.
fn append(bytes: &mut Vec<u8>, strings: &Strings, base: u64) -> u64 {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let table = base + bytes.len() as u64;
    let list = strings.list();
    let mut at = table + 8 * (list.len() as u64 + 1);
    for text in list {
        bytes.extend_from_slice(&at.to_le_bytes());
        at += text.as_bytes_with_nul().len() as u64;
    }
    bytes.extend_from_slice(&[0; 8]);
    for text in list {
        bytes.extend_from_slice(text.as_bytes_with_nul());
    }
    table
}
