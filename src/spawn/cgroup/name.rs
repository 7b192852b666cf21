//! Names of groups, which say who made them. It must not remove anything.
//!
//! `ringfence-PID-START-PIDNS-COUNT-RANDOM`: the maker's pid, when that process began (proc_pid_stat(5), field 22), the
//! inode of the pid namespace that the pid is of, a counter, and a number that nobody can guess. Control groups do not
//! outlive a boot, so no boot is named.

use std::fs;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files::Refused;
use crate::host::LEAF;
use crate::sys;
use std::path::Path;

const PREFIX: &str = "ringfence-";

/// Who made a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) namespace: u64,
}

impl Owner {
    /// This process.
    pub(super) fn own() -> Self {
        let pid = process::id();
        Self { pid, start: start("self").unwrap_or(0), namespace: namespace() }
    }

    /// Whether the process is there. `None` where its pid is of another namespace, or /proc cannot tell.
    pub(super) fn lives(self) -> Option<bool> {
        if self.namespace != namespace() || start("self").is_none() {
            return None;
        }
        Some(start(&self.pid.to_string()) == Some(self.start))
    }
}

/// A new name.
pub(super) fn fresh() -> Result<String, Refused> {
    with(PREFIX)
}

/// A new name of a leaf for this process itself.
pub(super) fn fresh_leaf() -> Result<String, Refused> {
    with(LEAF)
}

fn with(prefix: &str) -> Result<String, Refused> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Owner { pid, start, namespace } = Owner::own();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = sys::secret().map_err(|errno| Refused::new(Path::new("name"), "getrandom", errno))?;
    Ok(format!("{prefix}{pid}-{start}-{namespace}-{count}-{random:016x}"))
}

/// The maker of a group with this name; `None` where the name is not one of ours.
pub(super) fn owner(name: &str) -> Option<Owner> {
    let rest = name.strip_prefix(LEAF).or_else(|| name.strip_prefix(PREFIX))?;
    let fields: Vec<&str> = rest.split('-').collect();
    let [pid, start, namespace, count, random] = fields.as_slice() else { return None };
    count.parse::<u64>().ok()?;
    if random.len() != 16 || !random.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(Owner { pid: pid.parse().ok()?, start: start.parse().ok()?, namespace: namespace.parse().ok()? })
}

/// When a process began. The name in the second field may hold anything, so what counts is behind its last bracket.
fn start(process: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    // Fields are counted from 1, and the first behind the bracket is the third.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // A zombie owns nothing any more.
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn namespace() -> u64 {
    let link = fs::read_link("/proc/self/ns/pid").ok();
    let inode = link.and_then(|link| {
        let text = link.to_str()?.split_once('[')?.1.strip_suffix(']')?.to_owned();
        text.parse().ok()
    });
    inode.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_says_who_made_it() {
        let own = Owner::own();
        assert_eq!(owner(&fresh().expect("a name")), Some(own));
        assert_eq!(owner(&fresh_leaf().expect("a name")), Some(own));
        assert_eq!(own.lives(), Some(true));
        assert_eq!(Owner { start: own.start + 1, ..own }.lives(), Some(false), "the pid is another's now");
        assert_eq!(Owner { namespace: own.namespace + 1, ..own }.lives(), None, "another namespace's pid");
    }

    #[test]
    fn no_two_names_are_the_same() {
        let names: BTreeSet<String> = (0..1000).map(|_| fresh().expect("a name")).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn other_names_have_no_owner_here() {
        for name in [
            "",
            "ringfence-",
            "ringfence-1-2-3",
            "ringfence-1-2-3-4-xyz",
            "ringfence-a-2-3-4-0123456789abcdef",
            "ringfence-1-2-3-4-0123456789abcdef-5",
            "ringfence-leaf-",
            "user.slice",
            "ringfence-1-2-3-4-0123456789abcde\u{e9}",
        ] {
            assert_eq!(owner(name), None, "{name:?}");
        }
    }
}
