//! Who the caller is. It must not change that.

use nix::unistd::getgroups;
use nix::unistd::getresgid;
use nix::unistd::getresuid;

use super::status::Ids;

/// The caller's ids as its own user namespace sees them, see credentials(7).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The user ids.
    pub uid: Ids,
    /// The group ids.
    pub gid: Ids,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The user's name, if the user database had to be asked and knew it.
    pub name: Option<String>,
}

impl Identity {
    /// An ordinary process of this user and group.
    #[must_use]
    pub const fn of(uid: u32, gid: u32) -> Self {
        Self { uid: Ids::same(uid), gid: Ids::same(gid), groups: Vec::new(), name: None }
    }
}

/// Asks by system calls, which need no /proc. The file-access ids follow the effective ones unless setfsuid(2) was
/// called, which only file servers do.
pub(super) fn probe() -> Identity {
    // These calls cannot fail with valid pointers; the overflow id is what a user namespace shows for "not known here".
    let mut identity = Identity::of(OVERFLOW, OVERFLOW);
    if let Ok(ids) = getresuid() {
        let effective = ids.effective.as_raw();
        identity.uid =
            Ids { real: ids.real.as_raw(), effective, saved: ids.saved.as_raw(), filesystem: effective };
    }
    if let Ok(ids) = getresgid() {
        let effective = ids.effective.as_raw();
        identity.gid =
            Ids { real: ids.real.as_raw(), effective, saved: ids.saved.as_raw(), filesystem: effective };
    }
    identity.groups = getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()).collect();
    identity
}

/// The default of /proc/sys/kernel/overflowuid and overflowgid.
const OVERFLOW: u32 = 65534;
