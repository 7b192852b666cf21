//! A policy compiled for this machine: reusable, shared between threads, cheap to clone.

use std::ffi::OsStr;
use std::sync::Arc;

use super::command::Command;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::Host;
use crate::plan::{Plan, compile};
use crate::policy::{Builder, Policy};
use crate::spawn::{Compiled, Fence};
use crate::sys;

/// A checked and compiled description of a fence. Nothing runs until a [`Command`] of it is spawned.
///
/// ```no_run
/// use ringfence::Sandbox;
///
/// # fn main() -> ringfence::Result<()> {
/// let sandbox = Sandbox::builder().system_read_only().build()?;
/// let outcome = sandbox.command("python3").args(["-c", "print(6 * 7)"]).output()?;
/// assert_eq!(outcome.stdout, b"42\n");
/// # Ok(())
/// # }
/// ```
/// (`no_run`: a documentation test may not assume that `python3` is installed.)
#[derive(Clone, Debug)]
pub struct Sandbox {
    fence: Arc<Fence>,
}

impl Sandbox {
    /// A builder: nothing shared, no network, no capability, everything required.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Compiles a policy for a host. [`Builder::build`] does it for this machine.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where no namespace set of the policy can be compiled for the host, or where the program
    /// was started with raised privileges (`AT_SECURE`): the crate is not for setuid programs.
    pub fn new(policy: Policy, host: Host) -> Result<Self> {
        if sys::secure_exec() {
            let error = Error::new(ErrorKind::Unsupported, Step::Policy, "AT_SECURE");
            return Err(error.detail("a program with raised privileges cannot be a safe caller"));
        }
        let plans: Vec<_> = policy
            .namespaces()
            .sets
            .iter()
            .map(|set| {
                let plan = compile(&policy, &host, *set);
                (*set, plan.and_then(|plan| Compiled::new(plan, policy.launch)))
            })
            .collect();
        if plans.iter().all(|(_, plan)| plan.is_err())
            && let Some((_, Err(error))) = plans.first()
        {
            return Err(error.again());
        }
        Ok(Self { fence: Arc::new(Fence { policy, host, plans }) })
    }

    /// A command for `program`: a path inside, or a name that is looked up in `PATH` inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(Arc::clone(&self.fence), program.as_ref())
    }

    /// The plans, strongest namespace set first; each prints as its dry run. A set that cannot be compiled for this host
    /// has none.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.fence.plans.iter().filter_map(|(_, plan)| plan.as_ref().ok()).map(|compiled| &compiled.plan)
    }

    pub(super) fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.fence.policy
    }

    /// What was found out about this machine.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.fence.host
    }
}

impl Builder {
    /// Checks the policy and compiles it for this machine.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidPolicy`] with every mistake; or as [`Sandbox::new`].
    pub fn build(self) -> Result<Sandbox> {
        Sandbox::new(self.policy()?, Host::probe())
    }
}
