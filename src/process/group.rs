//! A running sandbox's groups in the user's hands: what it uses, other limits, a stop and a start. It must not know which
//! files do that.

use super::child::Child;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::GroupLimit;
use crate::spawn::{FrozenBy, Group, LimitState, Motion, Stats, Unread, stop_tree};

impl Child {
    fn group(&self) -> Result<&Group> {
        self.running.parent.group().ok_or_else(|| {
            let error = Error::new(ErrorKind::Process, Step::Cgroup, "group");
            error.detail(match self.running.site {
                Some(_) => "the groups are the sandbox's that this command joined: ask its own child",
                None => "this sandbox has no group: give it a limit of the tree, or own_cgroup()",
            })
        })
    }

    /// What the whole tree uses now, as its control groups count it; after the end, what it had used then. A dozen small
    /// files, and nothing that waits.
    ///
    /// # Errors
    /// Where the sandbox has no group, or the kernel shows nothing of it; where a file of it is there and cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let stats = self.group()?.stats().ok_or_else(|| {
            let error = Error::new(ErrorKind::Process, Step::Cgroup, "group");
            error.detail("there is no group of this sandbox that counts anything")
        })?;
        match stats.unread {
            None => Ok(stats),
            Some(Unread { file, errno }) => {
                Err(Error::new(ErrorKind::Process, Step::Cgroup, file).call("read", errno))
            }
        }
    }

    /// Changes a limit of the whole tree, or adds one, where the sandbox has the group for it. It has to be hard or, like
    /// [`crate::Strength::Approximate`] ones of cgroup v1, said to be less in what is returned.
    ///
    /// # Errors
    /// With the file that refused and why; then the old limit holds. Where the sandbox has no group with the controller, or
    /// has ended.
    pub fn set_limit(&self, limit: impl Into<GroupLimit>) -> Result<LimitState> {
        self.group()?.set_limit(&limit.into())
    }

    /// The limits of the tree as they are now, changes included.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitState> {
        let joined = self.running.site.as_ref().and_then(|site| site.group());
        self.running.parent.group().or(joined).map(Group::states).unwrap_or_default()
    }

    /// Stops the whole tree, and returns once it stands still, with what holds it. With a group of cgroup v2 or v1 it is the
    /// kernel's freezer; without one SIGSTOP, which is approximate.
    ///
    /// The freezer holds the sandbox's init too, which then cannot see the caller's end: so while the tree is frozen, a process
    /// called `ringfence-ward` stands beside it, which sees that and ends the tree.
    ///
    /// # Errors
    /// Where the kernel refuses, or has not carried it out within 5 s; where that process cannot be made; without a group, where
    /// what runs inside cannot be looked at. What was stopped by then goes on.
    pub fn freeze(&self) -> Result<FrozenBy> {
        self.set_motion(Motion::Frozen)
    }

    /// Lets a frozen tree go on.
    ///
    /// # Errors
    /// As [`Child::freeze`].
    pub fn thaw(&self) -> Result<FrozenBy> {
        self.set_motion(Motion::Thawed)
    }

    fn set_motion(&self, motion: Motion) -> Result<FrozenBy> {
        let parent = &self.running.parent;
        if parent.ended(0)? {
            let error = Error::new(ErrorKind::Process, Step::Cgroup, "child");
            return Err(error.call("pidfd", libc::ESRCH).detail("the sandbox has ended"));
        }
        if let Some(by) = parent.set_motion(motion)? {
            return Ok(by);
        }
        stop_tree(parent.pid(), self.running.program, motion).map_err(|unseen| unseen.error(Step::Cgroup))
    }
}
