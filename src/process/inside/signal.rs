//! One signal to all that run in a sandbox, but its init. It must not signal a process by its number.

use std::collections::BTreeSet;

use super::{Entry, ProcessInfo, ProcessRole, ProcessState, list, unseen};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::process::Child;
use crate::spawn::{Group, Motion, pidfd_of};
use crate::sys;

/// Rounds after which a tree that still grows is left as it is.
const ROUNDS: usize = 50;

impl Child {
    /// Sends a signal to every process inside but init; returns how many got it.
    ///
    /// With a group that can be frozen, the tree stands still meanwhile, so nothing is missed and nothing gets it twice; it
    /// goes on afterwards, unless it was frozen before. Without one, rounds are made until one finds nothing new: a process
    /// that is made between two of them gets the signal in the next, and one whose parent the signal has ended already may
    /// not have got it as its parent did.
    ///
    /// A signal does nothing to a process that stands in a freezer before it goes on; SIGKILL ends one in cgroup v2's. For
    /// the end of everything there is [`Child::kill`].
    ///
    /// # Errors
    /// `EINVAL` for a number that is no signal, `EPERM` where a process may not be signalled; where the freezer fails; where
    /// the tree grows faster than it can be looked at. Some processes may have got the signal by then.
    pub fn signal_all(&self, signal: i32) -> Result<usize> {
        if !(1..=64).contains(&signal) {
            return Err(failed(signal).call("pidfd_send_signal", libc::EINVAL));
        }
        if self.running.parent.ended(0)? {
            return Ok(0);
        }
        let parent = &self.running.parent;
        let motion = parent.group().map_or(Ok(None), Group::motion).map_err(unseen)?;
        let stood = motion == Some(Motion::Frozen);
        let freezes = !stood && parent.set_motion(Motion::Frozen)?.is_some();
        let sent = self.signal_rounds(signal);
        if freezes {
            // What the kernel says of the signals counts more than what it says of the freezer, and both do.
            let thawed = parent.set_motion(Motion::Thawed);
            return sent.and_then(|count| thawed.map(|_| count));
        }
        sent
    }

    fn signal_rounds(&self, signal: i32) -> Result<usize> {
        let mut done = BTreeSet::new();
        let mut count = 0;
        for _ in 0..ROUNDS {
            let mut fresh = false;
            for (entry, info) in list(&self.running)? {
                let gone = matches!(info.state, ProcessState::Zombie | ProcessState::Other('X'));
                let ours = matches!(info.role, ProcessRole::Init | ProcessRole::Attendant);
                if gone || ours || !done.insert((info.pid, info.start)) {
                    continue;
                }
                fresh = true;
                count += usize::from(send(&entry, &info, signal)? == Sent::Yes);
            }
            if !fresh {
                return Ok(count);
            }
        }
        Err(failed(signal)
            .detail("the tree grows faster than it can be looked at: give it processes(), or kill()"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Yes,
    Gone,
}

fn failed(signal: i32) -> Error {
    Error::new(ErrorKind::Process, Step::Kill, format!("signal {signal}"))
}

/// The directory was opened before: as long as it can be read behind the pidfd's opening, the pid was nobody else's.
fn send(entry: &Entry, info: &ProcessInfo, signal: i32) -> Result<Sent> {
    let Some(pidfd) = pidfd_of(entry.pid).map_err(unseen)? else { return Ok(Sent::Gone) };
    if entry.read("stat").map_err(unseen)?.is_none() {
        return Ok(Sent::Gone);
    }
    match sys::send_signal(&pidfd, signal) {
        Ok(()) => Ok(Sent::Yes),
        Err(libc::ESRCH) => Ok(Sent::Gone),
        Err(errno) => {
            Err(failed(signal).call("pidfd_send_signal", errno).detail(format!("pid {}", info.pid)))
        }
    }
}
