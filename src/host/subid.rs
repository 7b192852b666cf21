//! The subordinate ids that this user may map, and the helpers that map them. It must not run the helpers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::unistd::Uid;
use nix::unistd::User;

use super::read;

/// A range of ids that /etc/subuid or /etc/subgid gives to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// The first id.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// What a user may map beyond the own ids, see subuid(5), subgid(5) and newuidmap(1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Subordinate {
    /// Ranges in /etc/subuid.
    pub uids: Vec<IdRange>,
    /// Ranges in /etc/subgid, which names users too, not groups.
    pub gids: Vec<IdRange>,
    /// The services that /etc/nsswitch.conf names in its `subid:` line, where they are others than `files`: then the
    /// ranges of the files are not the ones that count (shadow 4.9 and later).
    pub service: Option<String>,
    /// Where newuidmap(1) lies.
    pub newuidmap: Option<PathBuf>,
    /// Where newgidmap(1) lies.
    pub newgidmap: Option<PathBuf>,
}

/// Where the helpers are looked for. Not in PATH: a program that the caller's environment chooses must not be handed
/// the caller's privileges to map ids. /run/wrappers/bin is where NixOS keeps its set-user-ID programs.
const PLACES: [&str; 6] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"];

/// Looks up what the user with this uid has.
pub(super) fn look_up(uid: u32) -> (Subordinate, Option<String>) {
    let (subuid, subgid) = (read::text("/etc/subuid"), read::text("/etc/subgid"));
    // A user database may live behind a network: it is asked only where a name can matter.
    let wanted = subuid.iter().chain(&subgid).any(|text| !text.trim().is_empty());
    let name = if wanted { user_name(uid) } else { None };
    let number = uid.to_string();
    let owners: Vec<&str> = name.as_deref().into_iter().chain([number.as_str()]).collect();
    let found = Subordinate {
        uids: ranges(&subuid.unwrap_or_default(), &owners),
        gids: ranges(&subgid.unwrap_or_default(), &owners),
        service: read::text("/etc/nsswitch.conf").and_then(|text| service(&text)),
        newuidmap: helper("newuidmap"),
        newgidmap: helper("newgidmap"),
    };
    (found, name)
}

fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

fn helper(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| PathBuf::from(place).join(name)).find(|path| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// The ranges of those lines `owner:start:count` whose owner, a name or a number, is among `owners`.
pub(crate) fn ranges(text: &str, owners: &[&str]) -> Vec<IdRange> {
    text.lines().filter_map(|line| range(line.trim(), owners)).collect()
}

fn range(line: &str, owners: &[&str]) -> Option<IdRange> {
    let mut fields = line.split(':');
    let owner = fields.next()?;
    let start: u32 = fields.next()?.parse().ok()?;
    let count: u32 = fields.next()?.parse().ok()?;
    let usable = owners.contains(&owner) && fields.next().is_none();
    if usable && count > 0 && start.checked_add(count).is_some() {
        Some(IdRange { start, count })
    } else {
        None
    }
}

/// The services of the `subid:` line of /etc/nsswitch.conf, unless they are just `files`.
pub(crate) fn service(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("subid:"))?;
    let services = line.split('#').next()?.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if services.is_empty() || services == "files" { None } else { Some(services) }
}
