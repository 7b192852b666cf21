//! Dropping capabilities: the bounding set and the securebits where they can be had, then the other four, read back. It must
//! not run while another thread could keep more.

use super::threads::Threads;
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::host::CapabilitySets;
use crate::plan::{SECUREBITS_LOCKED, capability_name};
use crate::policy::{Capabilities, Capability};
use crate::sys;

/// What is to be done, decided before anything is.
#[derive(Debug)]
pub(super) struct Shedding {
    keep: u64,
    before: CapabilitySets,
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Needed,
    HoldsAlready,
}

/// Looks at every thread; an error where one has to change that is not the calling one.
pub(super) fn prepare(keep: Capabilities, threads: &Threads) -> Result<Shedding> {
    let keep = keep.bits();
    let before = own()?;
    let mut sets = threads.list.iter().map(|thread| thread.status.capabilities);
    let holds = !exceeds(&before, keep)
        && !unlocked(&before)?
        && (!threads.may_be_several() && threads.list.is_empty()
            || !threads.list.is_empty() && sets.all(|sets| sets.is_some_and(|sets| !exceeds(&sets, keep))));
    if holds {
        return Ok(Shedding { keep, before, change: Change::HoldsAlready });
    }
    threads.only_one("all threads", Step::Capabilities, "capabilities are each thread's own")?;
    Ok(Shedding { keep, before, change: Change::Needed })
}

/// Whether nothing is there that should be gone.
pub(super) fn holds(sets: &CapabilitySets, keep: u64) -> bool {
    !exceeds(sets, keep)
}

/// Whether there is something to take away that can be taken.
fn exceeds(sets: &CapabilitySets, keep: u64) -> bool {
    (sets.permitted | sets.effective) & !keep != 0
        || sets.inheritable | sets.ambient != 0
        || can_bound(sets) && sets.bounding & !keep != 0
}

/// Whether the securebits can be locked and are not: an exec would give root its capabilities back.
fn unlocked(sets: &CapabilitySets) -> Result<bool> {
    let failed = |errno| Error::new(ErrorKind::Lowering, Step::Bounding, "securebits").call("prctl", errno);
    Ok(can_bound(sets) && sys::prctl(libc::PR_GET_SECUREBITS, 0, 0).map_err(failed)? != SECUREBITS_LOCKED)
}

fn can_bound(sets: &CapabilitySets) -> bool {
    sets.permitted >> (Capability::Setpcap as u8) & 1 == 1
}

impl Shedding {
    /// What it leaves as it is.
    pub(super) fn note(&self) -> Option<String> {
        let rest = !can_bound(&self.before) && self.before.bounding & !self.keep != 0;
        rest.then(|| {
            "the bounding set and the securebits stay as they are: CAP_SETPCAP is not held".to_owned()
        })
    }

    pub(super) const fn keep(&self) -> u64 {
        self.keep
    }

    /// The sets of this thread afterwards. `begun` is told as soon as something is changed.
    pub(super) fn apply(&self, mut begun: impl FnMut(Step)) -> Result<CapabilitySets> {
        if self.change == Change::HoldsAlready {
            return Ok(self.before);
        }
        let CapabilitySets { inheritable, permitted, .. } = self.before;
        let capset = |sets| {
            let error = || failed(Step::Capabilities, Capabilities::from_bits(self.keep).to_string());
            sys::set_own_capabilities(sets).map_err(|errno| error().call("capset", errno))
        };
        if can_bound(&self.before) {
            // What is permitted can always be made effective.
            capset([permitted, permitted, inheritable])?;
            begun(Step::Bounding);
            self.bounding()?;
        }
        sys::prctl(libc::PR_CAP_AMBIENT, number(libc::PR_CAP_AMBIENT_CLEAR_ALL), 0)
            .map_err(|errno| failed(Step::Capabilities, "ambient set").call("prctl", errno))?;
        begun(Step::Capabilities);
        let kept = permitted & self.keep;
        capset([kept, kept, 0])?;
        let after = own()?;
        let bounding =
            if can_bound(&self.before) { self.before.bounding & self.keep } else { self.before.bounding };
        let wanted =
            CapabilitySets { inheritable: 0, permitted: kept, effective: kept, bounding, ambient: 0 };
        if after == wanted {
            return Ok(after);
        }
        Err(failed(Step::Verify, "capabilities").detail(format!("{after:x?}, wanted {wanted:x?}")))
    }

    fn bounding(&self) -> Result<()> {
        for capability in
            (0..64_u32).filter(|capability| self.before.bounding & !self.keep & 1 << capability != 0)
        {
            sys::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0)
                .map_err(|errno| failed(Step::Bounding, capability_name(capability)).call("prctl", errno))?;
        }
        let securebits = |errno| failed(Step::Bounding, "securebits").call("prctl", errno);
        if sys::prctl(libc::PR_GET_SECUREBITS, 0, 0).map_err(securebits)? != SECUREBITS_LOCKED {
            sys::prctl(libc::PR_SET_SECUREBITS, SECUREBITS_LOCKED, 0).map_err(securebits)?;
        }
        Ok(())
    }
}

/// The five sets of this thread, asked of the kernel and not of `/proc`, which may be missing.
pub(super) fn own() -> Result<CapabilitySets> {
    let error = |call, errno| failed(Step::Capabilities, "this thread's sets").call(call, errno);
    let [effective, permitted, inheritable] =
        sys::own_capabilities().map_err(|errno| error("capget", errno))?;
    let (mut bounding, mut ambient) = (0, 0);
    for capability in 0..=sys::last_capability().min(63) {
        let held =
            |option, first, second| sys::prctl(option, first, second).map_err(|errno| error("prctl", errno));
        let one = u64::from(capability);
        bounding |= held(libc::PR_CAPBSET_READ, one, 0)? << capability;
        ambient |= held(libc::PR_CAP_AMBIENT, number(libc::PR_CAP_AMBIENT_IS_SET), one)? << capability;
    }
    Ok(CapabilitySets { inheritable, permitted, effective, bounding, ambient })
}

fn number(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn failed(step: Step, object: impl Into<Object>) -> Error {
    Error::new(ErrorKind::Lowering, step, object)
}
