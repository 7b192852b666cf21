//! What of a Landlock domain a kernel of some ABI knows. It must not know who enters the domain: a child or this process.

use crate::error::{Cause, Error, ErrorKind, Result, Step};
use crate::policy::{AccessFs, AccessNet, AuditLog, Handled, Landlock, Need, Rights, Scopes};

/// ABIs from which on `struct landlock_ruleset_attr` has its second and third word.
const NET_SINCE: u32 = 4;
const SCOPES_SINCE: u32 = 6;

/// What is handled on a host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) abi: Option<u32>,
    pub(crate) files: AccessFs,
    pub(crate) net: AccessNet,
    pub(crate) scopes: Scopes,
    pub(crate) log: AuditLog,
    /// Preferred rights that this kernel does not know, by the kernel's names.
    pub(crate) unknown: Vec<String>,
}

impl Known {
    /// What of `landlock` a kernel of this ABI knows; an error where it lacks what is required.
    pub(crate) fn new(landlock: &Landlock, abi: Option<u32>, running: &str) -> Result<Self> {
        let mut unknown = Vec::new();
        Ok(Self {
            abi,
            files: part(landlock.files, (abi, running), &mut unknown)?,
            net: part(landlock.net, (abi, running), &mut unknown)?,
            scopes: part(landlock.scopes, (abi, running), &mut unknown)?,
            log: part(landlock.log, (abi, running), &mut unknown)?,
            unknown,
        })
    }

    pub(crate) fn holds_something(&self) -> bool {
        !(self.files.is_empty() && self.net.is_empty() && self.scopes.is_empty())
    }

    /// The domain is required as soon as one right is that this kernel knows.
    pub(crate) fn need(&self, landlock: &Landlock) -> Need {
        let required = self.files.intersects(landlock.files.required)
            || self.net.intersects(landlock.net.required)
            || self.scopes.intersects(landlock.scopes.required);
        if required { Need::Required } else { Need::Preferred }
    }

    /// `struct landlock_ruleset_attr`, only the words that this ABI has: a kernel refuses those that it does not know unless
    /// they are 0, so a shorter structure is what every version takes.
    pub(crate) fn attributes(&self) -> Vec<u64> {
        let mut words = vec![self.files.bits(), self.net.bits(), self.scopes.bits()];
        words.truncate(match self.abi.unwrap_or(0) {
            abi if abi < NET_SINCE => 1,
            abi if abi < SCOPES_SINCE => 2,
            _ => 3,
        });
        words
    }

    /// Those of these rights that this kernel does not know.
    pub(crate) fn unknown_of(&self, rights: AccessFs) -> AccessFs {
        rights.difference(self.abi.map_or(AccessFs::empty(), AccessFs::of_abi))
    }
}

fn part<F: Rights>(
    handled: Handled<F>,
    (abi, running): (Option<u32>, &str),
    unknown: &mut Vec<String>,
) -> Result<F> {
    let has = abi.map_or_else(F::empty, F::of_abi);
    let lost = handled.required.difference(has);
    if !lost.is_empty() {
        return Err(lacks((abi, running), lost));
    }
    unknown.extend(handled.preferred.difference(has).kernel_names());
    Ok(handled.all().intersection(has))
}

fn lacks<F: Rights>((abi, running): (Option<u32>, &str), lost: F) -> Error {
    let error = Error::new(ErrorKind::Unsupported, Step::Landlock, lost.kernel_names().join("|"));
    let (needs, since) = lost.since();
    match abi {
        None => error
            .call("landlock_create_ruleset", libc::EOPNOTSUPP)
            .detail(format!("this kernel offers no Landlock; these rights came with Linux {since} (ABI {needs})"))
            .causes_found(vec![Cause::KernelLacks { what: "Landlock", since, running: running.to_owned() }]),
        Some(abi) => error.call("landlock_create_ruleset", libc::EINVAL).detail(format!(
            "they came with Linux {since} (ABI {needs}), this kernel has ABI {abi}: prefer them, or lower the floor"
        )),
    }
}
