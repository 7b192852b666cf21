//! The order: first everything that can be looked at or undone, then what cannot, the filter last, and what holds is read
//! back. It must not go on after a failure.

use std::mem;

use nix::unistd::gettid;

use super::builder::Lowering;
use super::capability::{self, Shedding};
use super::domain::{self, Domain};
use super::filter;
use super::report::{FilterProof, Lowered, LoweredThread};
use super::threads::{Seen, Thread, Threads};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::{Answer, CapabilitySets, SeccompMode, Status};
use crate::spawn::Missing;
use crate::sys;

/// How often a thread is looked at that is not as it should be.
const LOOKS: usize = 2_000;

/// What is ready to be done, and nothing is.
struct Ready {
    threads: Threads,
    capabilities: Option<Shedding>,
    domain: Option<Domain>,
    missing: Vec<Missing>,
}

impl Lowering {
    /// Lowers the calling process: capabilities, `no_new_privs`, the Landlock domain, and the filter last. Everything that
    /// can be looked at beforehand is: whether the kernel has it, whether every thread can be covered, every path of the
    /// domain. Afterwards the status of each thread is read back; what does not hold is an error.
    ///
    /// It may be called again, with the same or another lowering, as far as the filter that then holds lets it.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`]: it cannot be had here, or not for every thread. Nothing was changed.
    /// [`ErrorKind::Lowering`]: a call failed. [`Error::applied`] lists what had been applied before and cannot be undone;
    /// a process that meant to be lowered should then end.
    pub fn apply(&self) -> Result<Lowered> {
        let ready = self.ready()?;
        let mut done = Vec::new();
        self.lower(ready, &mut done).map_err(|error| error.applied_before(&done))
    }

    fn ready(&self) -> Result<Ready> {
        let threads = Threads::look();
        let mut missing = Vec::new();
        if self.program.is_some() {
            filter::check(&threads)?;
        }
        let capabilities = self.keep.map(|keep| capability::prepare(keep, &threads)).transpose()?;
        let domain = match &self.landlock {
            Some(landlock) => domain::prepare(landlock, &threads, &mut missing)?,
            None => None,
        };
        let set = |thread: &Thread| thread.status.no_new_privs == Answer::Yes;
        let reached = self.program.is_some()
            || domain.as_ref().is_some_and(Domain::covers_all_threads)
            || !threads.list.is_empty() && threads.list.iter().skip(1).all(set);
        if !reached {
            let why = "no_new_privs reaches other threads only with a filter";
            threads.only_one("no_new_privs", Step::NoNewPrivs, why)?;
        }
        Ok(Ready { threads, capabilities, domain, missing })
    }

    /// What cannot be undone; each part is in `done` as soon as it holds.
    fn lower(&self, ready: Ready, done: &mut Vec<Step>) -> Result<Lowered> {
        let Ready { threads, capabilities, domain, mut missing } = ready;
        let mut notes: Vec<String> = capabilities.as_ref().and_then(Shedding::note).into_iter().collect();
        let own = match &capabilities {
            Some(drop) => Some(drop.apply(|step| done.push(step))?),
            None => None,
        };
        no_new_privs(done)?;
        let everywhere = domain.as_ref().is_none_or(Domain::covers_all_threads);
        let landlock = match domain {
            Some(domain) => domain.enter(&mut missing)?,
            None => None,
        };
        if landlock.is_some() {
            done.push(Step::Landlock);
        }
        if done.contains(&Step::Capabilities) || !everywhere && landlock.is_some() {
            Threads::still_one()?;
        }
        if threads.list.is_empty() && threads.may_be_several() {
            notes.push("no /proc shows the other threads: what they have is the kernel's answer".into());
        }
        let filter = self.program.as_ref().map(Vec::len);
        let mut report = Lowered { threads: Vec::new(), filter, landlock, missing, notes };
        let keep = capabilities.as_ref().map(Shedding::keep);
        self.filter_and_look(threads.list, (keep, own), done, &mut report)?;
        Ok(report)
    }

    /// Behind the attachment nothing but what the filter lets through.
    fn filter_and_look(
        &self,
        mut list: Vec<Thread>,
        (keep, own): (Option<u64>, Option<CapabilitySets>),
        done: &mut Vec<Step>,
        report: &mut Lowered,
    ) -> Result<()> {
        let before = list.first().and_then(|own| own.status.seccomp_filters).unwrap_or(0);
        let filtered = self.program.as_ref().map(|_| before.saturating_add(1));
        let proof = filtered.map_or(FilterProof::NotAsked, |_| FilterProof::Answered);
        report.threads.reserve(list.len().max(1));
        if list.is_empty() {
            let tid = gettid().as_raw();
            report.threads.push(LoweredThread { tid, name: String::new(), capabilities: own, filter: proof });
        }
        if !self.filter.as_ref().is_none_or(filter::lets_read) {
            // Their files could not be closed any more.
            for thread in mem::take(&mut list) {
                let seen = if report.threads.is_empty() { own } else { None };
                let capabilities = seen.or(thread.status.capabilities);
                report.threads.push(proven(thread, capabilities, proof));
            }
        }
        done.reserve(1);
        if let Some(program) = &self.program {
            filter::attach(program)?;
            done.push(Step::Seccomp);
        }
        for thread in list {
            report.threads.push(look(thread, keep, filtered)?);
        }
        Ok(())
    }
}

fn no_new_privs(done: &mut Vec<Step>) -> Result<()> {
    let is_set = || sys::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0) == Ok(1);
    if is_set() {
        return Ok(());
    }
    let error = |step| Error::new(ErrorKind::Lowering, step, "no_new_privs");
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
        .map_err(|errno| error(Step::NoNewPrivs).call("prctl", errno))?;
    done.push(Step::NoNewPrivs);
    if is_set() { Ok(()) } else { Err(error(Step::Verify).detail("it is not set")) }
}

/// Reads one thread back and compares. A thread that is about to end is passed over by the kernel, so one look that shows
/// too little is not enough.
fn look(thread: Thread, keep: Option<u64>, filtered: Option<u32>) -> Result<LoweredThread> {
    let mut wrong = None;
    for _ in 0..LOOKS {
        let status = match thread.look_again()? {
            Seen::Alive(status) => status,
            Seen::Ended => return Ok(proven(thread, None, FilterProof::Ended)),
        };
        wrong = fault(&status, keep, filtered);
        if wrong.is_none() {
            let filters = status.seccomp_filters;
            let proof = filtered.map_or(FilterProof::NotAsked, |_| FilterProof::ReadBack { filters });
            return Ok(proven(thread, status.capabilities, proof));
        }
    }
    let error = Error::new(ErrorKind::Lowering, Step::Verify, thread.named());
    Err(error.detail(wrong.unwrap_or_default()))
}

fn proven(thread: Thread, capabilities: Option<CapabilitySets>, filter: FilterProof) -> LoweredThread {
    LoweredThread { tid: thread.tid, name: thread.name, capabilities, filter }
}

/// What a thread has too much of, or lacks: `filtered` is how many filters it has to have.
fn fault(status: &Status, keep: Option<u64>, filtered: Option<u32>) -> Option<String> {
    if status.no_new_privs != Answer::Yes {
        return Some(format!("no_new_privs: {:?}", status.no_new_privs));
    }
    if let Some(keep) = keep
        && !status.capabilities.is_some_and(|sets| capability::holds(&sets, keep))
    {
        return Some(format!("capabilities: {:x?}, wanted at most {keep:#x}", status.capabilities));
    }
    let wanted = filtered?;
    if status.seccomp == Some(SeccompMode::Filter) && status.seccomp_filters.is_none_or(|has| has >= wanted) {
        return None;
    }
    Some(format!("filters: {:?} {:?}, wanted {wanted}", status.seccomp, status.seccomp_filters))
}
