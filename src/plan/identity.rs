//! Ids: who writes the maps, which host ids stand behind the program, and the calls that take them.

use std::fmt::{self, Display, Formatter};
use std::iter;

use super::asm::{Call, Cell, Operand, num, sym};
use super::context::{Context, u64_of};
use super::facts;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::{Answer, Host, IdMap};
use crate::machine::layout::{HOST_GID, HOST_UID};
use crate::policy::{Capability, IdRange, Identity, Mapping, Namespaces, Policy};

/// `SECBIT_KEEP_CAPS` would be cleared by exec; `SECBIT_NO_SETUID_FIXUP` keeps every set over a change of uid.
const SECBIT_NO_SETUID_FIXUP: u64 = 1 << 2;
/// Unused by every distribution and by systemd (systemd.io, "Users, Groups, UIDs and GIDs": 1879048192 to 2147352575).
const POOL_FIRST: u32 = 0x7000_0000;
/// `PID_MAX_LIMIT` of 64-bit kernels: one id for each possible pid.
const POOL_COUNT: u32 = 1 << 22;

/// Who writes the id maps of the new user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MapWriter {
    /// No user namespace, no map.
    Nobody,
    /// The child, a map of the caller's own ids.
    Child,
    /// The caller, which has the capabilities.
    Caller,
    /// `newuidmap` and `newgidmap`.
    Helper,
}

/// Which host ids stand behind the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostIds {
    /// The caller's.
    Callers,
    /// One of a range, by the child's pid.
    Pool { uids: (u32, u32), gids: (u32, u32) },
    /// These.
    Fixed { uid: u32, gid: u32 },
    /// Maps.
    Ranges { uids: Vec<IdRange>, gids: Vec<IdRange> },
}

/// The ids of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdPlan {
    pub(crate) writer: MapWriter,
    pub(crate) host: HostIds,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl IdPlan {
    /// The host ids for the child with this pid, where there is one of each.
    pub(crate) fn chosen(&self, pid: i32) -> Option<(u32, u32)> {
        let pick = |(first, count): (u32, u32)| first + pid.unsigned_abs() % count.max(1);
        match self.host {
            HostIds::Pool { uids, gids } => Some((pick(uids), pick(gids))),
            HostIds::Fixed { uid, gid } => Some((uid, gid)),
            HostIds::Callers | HostIds::Ranges { .. } => None,
        }
    }

    /// Whether the child has to wait for the caller before it can take its ids.
    pub(crate) fn needs_caller(&self) -> bool {
        match self.writer {
            MapWriter::Caller | MapWriter::Helper => true,
            MapWriter::Child => false,
            MapWriter::Nobody => self.host != HostIds::Callers,
        }
    }

    /// The lines of the uid map and the gid map for that child.
    pub(crate) fn maps(&self, pid: i32) -> (Vec<IdRange>, Vec<IdRange>) {
        match (&self.host, self.chosen(pid)) {
            (HostIds::Ranges { uids, gids }, _) => (uids.clone(), gids.clone()),
            (_, Some((uid, gid))) => {
                let one = |inside, outside| vec![IdRange { inside, outside, count: 1 }];
                (one(self.uid, uid), one(self.gid, gid))
            }
            (_, None) => (Vec::new(), Vec::new()),
        }
    }
}

impl Display for IdPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let writer = match self.writer {
            MapWriter::Nobody => "no map",
            MapWriter::Child => "mapped by the child",
            MapWriter::Caller => "mapped by the caller",
            MapWriter::Helper => "mapped by newuidmap and newgidmap",
        };
        write!(f, "{}:{} inside, {writer}, ", self.uid, self.gid)?;
        match &self.host {
            HostIds::Callers => f.write_str("the caller's own outside"),
            HostIds::Pool { uids, gids } => {
                write!(f, "{}+pid:{}+pid outside", uids.0, gids.0)
            }
            HostIds::Fixed { uid, gid } => write!(f, "{uid}:{gid} outside"),
            HostIds::Ranges { uids, gids } => write!(f, "uids {uids:?} gids {gids:?}"),
        }
    }
}

fn unsupported(detail: &str) -> Error {
    Error::new(ErrorKind::Unsupported, Step::IdMap, "identity").detail(detail)
}

/// The ids that can be had for this policy on this host with this set.
pub(super) fn plan(policy: &Policy, host: &Host, set: Namespaces) -> Result<IdPlan> {
    let Identity { uid, gid, mapping, .. } = &policy.identity;
    let (uid, gid) = (*uid, *gid);
    let can_set = facts::has_capability(host, Capability::Setuid as u32)
        && facts::has_capability(host, Capability::Setgid as u32);
    let root = facts::is_root(host);
    let user = set.contains(Namespaces::USER);
    let privileged = if user { MapWriter::Caller } else { MapWriter::Nobody };
    let (writer, ids) = match mapping {
        Mapping::KeepHostRoot => (if user { MapWriter::Child } else { MapWriter::Nobody }, HostIds::Callers),
        Mapping::Own if !root => (if user { MapWriter::Child } else { MapWriter::Nobody }, HostIds::Callers),
        // Root only in its own eyes: there the id is an unprivileged one's already, and no other is to be had.
        Mapping::Own if user && alone(host) => (MapWriter::Child, HostIds::Callers),
        Mapping::Own if can_set => (privileged, pool(host)?),
        Mapping::Own => {
            return Err(unsupported(
                "a root caller without CAP_SETUID and CAP_SETGID cannot leave host uid 0: give it both, or say keep_host_root()",
            ));
        }
        Mapping::Host { uid, gid } if can_set => (privileged, HostIds::Fixed { uid: *uid, gid: *gid }),
        Mapping::Host { .. } => return Err(unsupported("chosen host ids need CAP_SETUID and CAP_SETGID")),
        Mapping::Ranges { .. } if !user => return Err(unsupported("ranges of ids need a user namespace")),
        Mapping::Ranges { uids, gids } => {
            let ranges = HostIds::Ranges { uids: uids.clone(), gids: gids.clone() };
            if can_set {
                (MapWriter::Caller, ranges)
            } else if facts::has_map_helpers(host) {
                (MapWriter::Helper, ranges)
            } else {
                return Err(unsupported(
                    "ranges of ids need CAP_SETUID and CAP_SETGID, or newuidmap and newgidmap (package uidmap)",
                ));
            }
        }
    };
    Ok(IdPlan { writer, host: ids, uid, gid })
}

/// Whether the caller's user namespace maps its own id only, and not to id 0 outside.
fn alone(host: &Host) -> bool {
    let (uids, gids) = (facts::map_or_identity(host.uid_map()), facts::map_or_identity(host.gid_map()));
    let one = |map: &IdMap| match map.extents() {
        [extent] => extent.count == 1 && extent.outside != 0,
        _ => false,
    };
    host.is_host_root() == Answer::No && one(&uids) && one(&gids)
}

/// The unprivileged ids that a root caller can give away, one for each pid where its own map has that many.
fn pool(host: &Host) -> Result<HostIds> {
    let (uid, gid) = facts::ids(host);
    let taken = [0, u64::from(uid), u64::from(gid)];
    let range = |map: &IdMap| {
        if map.is_identity() {
            return Some((POOL_FIRST, POOL_COUNT));
        }
        // Around the ids that may be the machine's root: 0, and whatever the caller is.
        let parts = map.extents().iter().flat_map(|extent| {
            let (first, end) = (u64::from(extent.inside), u64::from(extent.inside) + u64::from(extent.count));
            let mut cuts: Vec<u64> = taken.iter().copied().filter(|id| (first..end).contains(id)).collect();
            cuts.sort_unstable();
            let starts = iter::once(first).chain(cuts.iter().map(|id| id + 1));
            let ends = cuts.iter().copied().chain(iter::once(end));
            starts.zip(ends).map(|(from, to)| (from, to.saturating_sub(from))).collect::<Vec<_>>()
        });
        let (from, count) = parts.filter(|(_, count)| *count > 0).max_by_key(|(_, count)| *count)?;
        Some((u32::try_from(from).ok()?, u32::try_from(count).unwrap_or(u32::MAX)))
    };
    match (range(&facts::map_or_identity(host.uid_map())), range(&facts::map_or_identity(host.gid_map()))) {
        (Some(uids), Some(gids)) => Ok(HostIds::Pool { uids, gids }),
        _ => Err(unsupported(
            "the caller is root in a user namespace that maps no other id: say keep_host_root(), or give it a range of subordinate ids",
        )),
    }
}

/// The map of the child's own ids, written by itself; or nothing where someone else writes it.
pub(super) fn own_map(context: &mut Context<'_>, ids: &IdPlan) {
    if ids.writer != MapWriter::Child {
        return;
    }
    context.asm.step(Step::IdMap, "/proc/self/setgroups");
    context.write_file("/proc/self/setgroups", "deny");
    let (uid, gid) = facts::ids(context.host);
    context.asm.step(Step::IdMap, "/proc/self/uid_map");
    context.write_file("/proc/self/uid_map", &format!("{} {uid} 1\n", ids.uid));
    context.asm.step(Step::IdMap, "/proc/self/gid_map");
    context.write_file("/proc/self/gid_map", &format!("{} {gid} 1\n", ids.gid));
}

/// Takes the ids. In a user namespace that is here, right after the map, as the kernel refuses files made by ids that the
/// namespace does not map (EOVERFLOW); every capability stays.
pub(super) fn take(context: &mut Context<'_>, ids: &IdPlan) {
    let changes = matches!(ids.writer, MapWriter::Caller | MapWriter::Helper)
        || (ids.writer == MapWriter::Nobody && ids.host != HostIds::Callers);
    context.asm.step(Step::Ids, format!("{}:{}", ids.uid, ids.gid));
    if changes {
        keep_capabilities(context);
        change(context, ids);
    } else {
        inherited(context, ids);
    }
    let inside = ids.writer != MapWriter::Nobody;
    if inside {
        verify(context, ids);
    }
    if context.joins() {
        // What already runs inside must never look into it.
        return;
    }
    // A change of ids makes the process non-dumpable, and files of /proc its own no longer; the image holds no secret.
    let (option, one) = (sym(u64_of(libc::PR_SET_DUMPABLE), "PR_SET_DUMPABLE"), num(1));
    context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(one));
}

/// Who will own what the tree gives to the program, where files are not made by the program's own ids.
pub(super) fn late_owner(ids: &IdPlan, set: Namespaces) -> Option<(Operand, Operand)> {
    let late = !set.contains(Namespaces::USER) && ids.host != HostIds::Callers;
    late.then(|| (Cell::brief(HOST_UID, "host_uid").word(), Cell::brief(HOST_GID, "host_gid").word()))
}

/// What an unprivileged caller cannot change is said.
fn inherited(context: &mut Context<'_>, ids: &IdPlan) {
    if !context.host.identity().groups.is_empty() {
        let note = "supplementary groups are the caller's: an unprivileged caller cannot drop them (user_namespaces(7))";
        context.notes.push(note.into());
    }
    if ids.writer == MapWriter::Nobody {
        context.notes.push("uid and gid are the caller's: there is no user namespace to map others".into());
    }
}

fn keep_capabilities(context: &mut Context<'_>) {
    let option = sym(u64_of(libc::PR_SET_SECUREBITS), "PR_SET_SECUREBITS");
    let bits = sym(SECBIT_NO_SETUID_FIXUP, "SECBIT_NO_SETUID_FIXUP");
    context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(bits));
}

fn change(context: &mut Context<'_>, ids: &IdPlan) {
    let groups = &context.policy.identity.groups;
    let count = num(i64::try_from(groups.len()).unwrap_or(0));
    let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
    let list = context.asm.bytes(&bytes, format!("{groups:?}"));
    context.asm.call(Call::new(libc::SYS_setgroups, "setgroups").arg(count).arg(list));
    let mapped = ids.writer != MapWriter::Nobody;
    let own = |id: u32, at: u32, name| if mapped { num(i64::from(id)) } else { Cell::brief(at, name).word() };
    let gid = own(ids.gid, HOST_GID, "host_gid");
    let uid = own(ids.uid, HOST_UID, "host_uid");
    let [a, b, c] = [gid.clone(), gid.clone(), gid];
    context.asm.call(Call::new(libc::SYS_setresgid, "setresgid").arg(a).arg(b).arg(c));
    let [a, b, c] = [uid.clone(), uid.clone(), uid];
    context.asm.call(Call::new(libc::SYS_setresuid, "setresuid").arg(a).arg(b).arg(c));
}

/// A map that was not written leaves the overflow id, with odd rights.
fn verify(context: &mut Context<'_>, ids: &IdPlan) {
    let seen = context.asm.cell("id");
    for (number, name, wanted) in
        [(libc::SYS_getuid, "getuid", ids.uid), (libc::SYS_getgid, "getgid", ids.gid)]
    {
        context.asm.call(Call::new(number, name).into(seen));
        context.asm.assert_equal(&seen.word(), u64::MAX, num(i64::from(wanted)), "the id map does not hold");
    }
}
