//! Id maps that the child cannot write itself: written by this process, or by newuidmap and newgidmap.

use std::fs::OpenOptions;
use std::io;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::Host;
use crate::machine::layout::{HOST_GID, HOST_UID};
use crate::plan::{IdPlan, MapWriter};
use crate::policy::IdRange;
use crate::sys::SharedMap;

/// So many bytes of what a helper says stand in an error.
const MOST_SAID: u64 = 4096;

/// Does the caller's part for the ids of the child with this pid.
pub(super) fn write(ids: &IdPlan, pid: i32, brief: &SharedMap, host: &Host) -> Result<()> {
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
            helper(known.newgidmap.as_deref(), "newgidmap", pid, &gids)?;
            helper(known.newuidmap.as_deref(), "newuidmap", pid, &uids)
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

fn helper(path: Option<&Path>, name: &'static str, pid: i32, ranges: &[IdRange]) -> Result<()> {
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
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // It is for the text of the error only. Where it is not read to its end, the helper's next write fails, and it ends.
        stderr.take(MOST_SAID).read_to_end(&mut said).ok();
    }
    // Once more where it failed: nobody else would reap it.
    let status = child.wait().or_else(|_| child.wait());
    let status = status.map_err(|error| failed().call("wait4", error.raw_os_error().unwrap_or(0)))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let said = if said.is_empty() { format!("it ended with {status}") } else { said };
    Err(failed().call("write", libc::EPERM).detail(said))
}
