//! What the compiler asks a host, in its own words. It must not probe: the host is a value.

use crate::host::{Answer, Features, Host, IdMap};

/// Whether the host has a feature. What the caller copies is attached by the calls on descriptors: a host by hand may have one
/// and lack the other.
pub(super) fn has(host: &Host, feature: Features) -> bool {
    let calls = Features::MOUNT_API | Features::MOUNT_SETATTR;
    let needed = if feature.contains(Features::CLONE_TREES) { feature | calls } else { feature };
    host.features().contains(needed)
}

/// Whether the caller is root in its own user namespace, or the machine's root under another name.
pub(super) fn is_root(host: &Host) -> bool {
    host.identity().uid.effective == 0 || host.is_host_root() == Answer::Yes
}

/// The caller's effective uid and gid.
pub(super) fn ids(host: &Host) -> (u32, u32) {
    (host.identity().uid.effective, host.identity().gid.effective)
}

/// Whether the caller has the capability with this number. Without `/proc` a root caller is taken to have all: the step
/// that needs it tells.
pub(super) fn has_capability(host: &Host, number: u32) -> bool {
    host.capabilities().map_or_else(|| is_root(host), |sets| sets.has_effective(number))
}

/// What the caller is permitted.
pub(super) fn permitted(host: &Host) -> u64 {
    let all = u64::MAX >> (63 - host.last_capability().min(63));
    host.capabilities().map_or(if is_root(host) { all } else { 0 }, |sets| sets.permitted)
}

/// Both helpers that map ranges of ids.
pub(super) fn has_map_helpers(host: &Host) -> bool {
    let subordinate = host.subordinate();
    subordinate.newuidmap.is_some() && subordinate.newgidmap.is_some()
}

/// A map of the caller's; unknown is taken for the initial one, as the map's write tells.
pub(super) fn map_or_identity(map: Option<&IdMap>) -> IdMap {
    map.cloned().unwrap_or_else(IdMap::identity)
}
