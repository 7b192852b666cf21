//! What a process wants to do without, as data, checked and compiled. It must not look at the process or the machine.

use crate::error::{Error, Mistake, Result};
use crate::plan::compile_program;
use crate::policy::{Action, Capabilities, Filter, Landlock, LaunchCalls, Mirror, StandIn, landlock_alone};

/// What the calling process is to do without from now on: what a browser's renderer does after start-up.
///
/// The same filter, Landlock rules and capabilities as for a program behind the fence, and always `no_new_privs`, here
/// applied by a process to itself. It needs no privilege, cannot be undone, and what the process starts later inherits it.
/// A child that was started behind namespaces can lower itself further, as far as its first filter lets it
/// ([`Filter::baseline`] does; others with [`Filter::with_lowering`]).
///
/// ```no_run
/// use ringfence::{AccessFs, Filter, Landlock, Lowering};
///
/// # fn main() -> ringfence::Result<()> {
/// let lowering = Lowering::builder()
///     .seccomp(Filter::worker())
///     .landlock(Landlock::closed().floor(1).allow("/usr/share", AccessFs::READ))
///     .drop_capabilities()
///     .build()?;                        // every mistake at once; changes nothing
/// // Open files, read the configuration, then:
/// let lowered = lowering.apply()?;      // for good
/// println!("{lowered}");
/// # Ok(())
/// # }
/// ```
///
/// # Threads
///
/// The kernel keeps all of this for each thread. Either every thread is covered, or [`Lowering::apply`] is an error that
/// changes nothing:
///
/// * The filter goes to all threads in one step (`SECCOMP_FILTER_FLAG_TSYNC`, since Linux 3.17), and `no_new_privs` with
///   it. A thread that has a filter which the calling thread lacks cannot be had: the error names it.
/// * A Landlock domain covers several threads since Linux 7.0 (ABI 8, `LANDLOCK_RESTRICT_SELF_TSYNC`; it replaces what
///   domain a single thread may have made for itself). Before, the process must have one thread.
/// * Capabilities are each thread's own: the process must have one thread, unless no thread has more than it is to keep.
/// * `no_new_privs` alone reaches other threads only with a filter, or with such a domain.
///
/// A thread that is made meanwhile is covered too: whichever thread makes it is either lowered already, and hands that on,
/// or not yet, and then the kernel finds the new one in the same step. Where one thread is needed, nothing but the calling
/// one could make a second; that there is one is asked before and after. Threads are counted in `/proc/self/task`, and
/// where no `/proc` is mounted by `unshare(CLONE_THREAD)`, which succeeds, without any effect, in a process of one thread
/// only (unshare(2)). A *process* that shares this one's memory (vfork(2), `CLONE_VM`) is not a thread of it and is not
/// covered.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowering {
    /// The program, an instruction a word.
    pub(super) program: Option<Vec<u64>>,
    pub(super) filter: Option<Filter>,
    pub(super) landlock: Option<Landlock>,
    pub(super) keep: Option<Capabilities>,
}

/// Collects a [`Lowering`]; made by [`Lowering::builder`].
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct LoweringBuilder {
    filter: Option<Filter>,
    landlock: Option<Landlock>,
    keep: Option<Capabilities>,
}

impl Lowering {
    /// Nothing yet but `no_new_privs`.
    pub fn builder() -> LoweringBuilder {
        LoweringBuilder::default()
    }
}

impl LoweringBuilder {
    /// Attaches this filter beside those that are there: of all answers the strictest holds (seccomp(2)). Default: none. The
    /// last call counts.
    ///
    /// Nothing is launched, so [`Filter::launch_only`] lets nothing through here: the rules decide about every `execve`. A
    /// rule with [`Action::Notify`] is a mistake, as there is no supervisor.
    pub fn seccomp(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Enters this domain. Default: none. Paths are opened when it is applied, with the rights that the process has then;
    /// one that is not there is reported, and the rest holds. The last call counts.
    pub fn landlock(mut self, landlock: Landlock) -> Self {
        self.landlock = Some(landlock);
        self
    }

    /// Drops every capability. Default: they stay as they are.
    pub fn drop_capabilities(self) -> Self {
        self.capabilities(Capabilities::NONE)
    }

    /// Drops every capability but these, as far as they are held: they stay permitted and effective, and no program that is
    /// executed later gets them (the ambient and inheritable sets are emptied). With `CAP_SETPCAP` the bounding set is cut
    /// to them too, and the securebits are locked (`NOROOT`, `NO_SETUID_FIXUP`, `NO_CAP_AMBIENT_RAISE`; capabilities(7)).
    pub fn capabilities(mut self, keep: impl Into<Capabilities>) -> Self {
        self.keep = Some(keep.into());
        self
    }

    /// Checks and compiles; changes nothing, asks the machine nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidPolicy`] with every mistake: nothing to lower, an invalid filter or domain, a filter that
    /// has no end for the process or that notifies.
    pub fn build(self) -> Result<Lowering> {
        let Self { filter, landlock, keep } = self;
        let mut mistakes = Vec::new();
        if filter.is_none() && landlock.is_none() && keep.is_none() {
            mistakes.push(Mistake::EmptyLowering);
        }
        // The launch's own execve would be known by its argument, and here is no launch.
        let filter = filter.map(|filter| Filter { launch: LaunchCalls::ByRule, ..filter });
        if let Some(filter) = &filter {
            mistakes.extend(filter.mistakes().into_iter().filter(|m| *m != Mistake::FilterForbidsLaunch));
            mistakes.extend(notifying(filter));
        }
        if let Some(landlock) = &landlock {
            landlock_alone(landlock, &mut mistakes);
            if landlock.mirror == Mirror::Mounts || landlock.stand_in == StandIn::ForMounts {
                mistakes.push(Mistake::LandlockWithoutMounts);
            }
        }
        if !mistakes.is_empty() {
            return Err(Error::invalid_policy(mistakes));
        }
        let compiled = filter.as_ref().map(compile_program).transpose()?;
        let program =
            compiled.map(|program| program.code.iter().map(|instruction| instruction.word()).collect());
        Ok(Lowering { program, filter, landlock, keep })
    }
}

fn notifying(filter: &Filter) -> Vec<Mistake> {
    let mut calls: Vec<String> = Vec::new();
    if filter.default == Action::Notify {
        calls.push("the default".into());
    }
    for rule in filter.rules.iter().filter(|rule| rule.action == Action::Notify) {
        if !calls.iter().any(|call| *call == rule.call) {
            calls.push(rule.call.to_string());
        }
    }
    calls.into_iter().map(|call| Mistake::FilterNotifiesNobody { call }).collect()
}
