//! Id maps that the child cannot write itself: written by this process, or by newuidmap and newgidmap.

use std::fs::OpenOptions;
use std::io;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::Host;
use crate::machine::layout::{HOST_GID, HOST_UID};
use crate::plan::{IdPlan, MapWriter};
use crate::policy::IdRange;
use crate::sys::{self, SharedMap};

/// So many bytes of what a helper says stand in an error.
const MOST_SAID: usize = 4096;

/// Does the caller's part for the ids of the child with this pid. A helper has until the deadline: what it looks up may hang.
pub(super) fn write(
    ids: &IdPlan,
    pid: i32,
    brief: &SharedMap,
    (host, deadline): (&Host, Instant),
) -> Result<()> {
    if let Some((uid, gid)) = ids.chosen(pid) {
        brief.set_word(HOST_UID, u64::from(uid));
        brief.set_word(HOST_GID, u64::from(gid));
    }
    let (uids, gids) = ids.maps(pid);
    match ids.writer {
        MapWriter::Nobody | MapWriter::Child => Ok(()),
        MapWriter::Caller => {
            file(pid, "gid_map", &gids)?;
            file(pid, "uid_map", &uids)
        }
        MapWriter::Helper => {
            let known = host.subordinate();
            helper((known.newgidmap.as_deref(), "newgidmap"), pid, &gids, deadline)?;
            helper((known.newuidmap.as_deref(), "newuidmap"), pid, &uids, deadline)
        }
    }
}

/// One write for the whole map, as the kernel wants it (user_namespaces(7)).
fn file(pid: i32, name: &'static str, ranges: &[IdRange]) -> Result<()> {
    let text: String =
        ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect();
    let failed = |call, error: io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        Error::new(ErrorKind::Setup, Step::IdMap, name).call(call, errno)
    };
    let mut file = OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/{name}"))
        .map_err(|error| failed("open", error))?;
    file.write(text.as_bytes()).map_err(|error| failed("write", error)).map(drop)
}

fn helper(
    (path, name): (Option<&Path>, &'static str),
    pid: i32,
    ranges: &[IdRange],
    deadline: Instant,
) -> Result<()> {
    let failed = || Error::new(ErrorKind::Setup, Step::IdMap, name);
    let Some(path) = path else {
        return Err(failed().detail("the helper is not installed (package uidmap)"));
    };
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
    let mut child = Command::new(path)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed().call("posix_spawn", error.raw_os_error().unwrap_or(0)))?;
    let said = child.stderr.take().and_then(|stderr| listen(stderr, deadline));
    if said.is_none() && child.kill().is_err() {
        return Err(failed().detail("it did not end in time, and cannot be killed"));
    }
    // Once more where it failed: nobody else would reap it.
    let status = child.wait().or_else(|_| child.wait());
    let Some(said) = said else { return Err(failed().detail("it did not end in time and was killed")) };
    let status = status.map_err(|error| failed().call("wait4", error.raw_os_error().unwrap_or(0)))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let said = if said.is_empty() { format!("it ended with {status}") } else { said };
    Err(failed().call("write", libc::EPERM).detail(said))
}

/// What it says until its end; `None` where that does not come in time. It is for the text of an error only: where it cannot be
/// heard its end is waited for all the same.
fn listen(mut stderr: ChildStderr, deadline: Instant) -> Option<Vec<u8>> {
    let (mut said, mut buffer) = (Vec::new(), [0; 512]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        match sys::poll_fd(stderr.as_fd(), i32::try_from(left).unwrap_or(i32::MAX)) {
            Ok(false) if left == 0 => return None,
            Ok(false) | Err(libc::EINTR) => continue,
            Ok(true) => {}
            Err(_) => return Some(said),
        }
        match stderr.read(&mut buffer) {
            Ok(length @ 1..) if said.len() < MOST_SAID => said.extend_from_slice(&buffer[..length]),
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return Some(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::helper;
    use crate::policy::IdRange;

    /// With the arguments `1000 0 1000 1`.
    fn run(path: &str, limit: Duration) -> Result<(), String> {
        let range = IdRange { inside: 0, outside: 1000, count: 1 };
        let ended = helper((Some(Path::new(path)), "newuidmap"), 1000, &[range], Instant::now() + limit);
        ended.map_err(|error| error.to_string())
    }

    #[test]
    fn a_helper_has_until_the_deadline() {
        let long = Duration::from_secs(100);
        assert_eq!(run("/bin/true", long), Ok(()));
        let failed = run("/bin/false", long).unwrap_err();
        assert!(failed.contains("newuidmap") && failed.contains("exit status: 1"), "{failed}");
        let said = run("/bin/ls", long).unwrap_err();
        assert!(said.contains("1000"), "what it said: {said}");
        let late = run("/bin/sleep", Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("did not end in time and was killed"), "{late}");
    }
}
