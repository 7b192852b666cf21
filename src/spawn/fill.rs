//! What a child finds when it starts: words of its brief, and descriptors under their numbers. It must not start anything.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::brief::Brief;
use super::request::{Request, When};
use super::source::Found;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::Status;
use crate::machine::layout::{
    ARGV, ENVP, FD_BRIEF, FD_CALLER, FD_END, FD_FIRST_FREE, FD_SANDBOX, FD_SCRATCH, FD_SCRATCH_TARGET,
    FD_SOCKET, FREE_FD, SECRET, SECRET_HIGH, SECRET_LOW, TAIL_ENTRY, WAITS,
};
use crate::plan::Plan;
use crate::sys;

/// What the caller decides at each launch.
pub(super) fn fill(brief: &Brief, plan: &Plan, sources: &[Found], request: &Request<'_>) {
    let map = brief.map();
    map.set_word(ARGV, request.argv.address());
    map.set_word(ENVP, request.envp.address());
    map.set_word(WAITS, u64::from(request.when == When::Later));
    for (source, found) in plan.sources.iter().zip(sources) {
        map.set_word(source.facts, found.kind);
        map.set_word(source.facts + 8, found.inode);
        map.set_word(source.facts + 16, found.device);
        if let (Some(at), Some(path)) = (source.path_at, &found.path) {
            map.set_bytes(at, &path[..path.len().min(4095)]);
        }
    }
}

/// A secret that the launch's own execve carries and the filter looks for: fresh for each launch.
pub(super) fn draw_secret(brief: &Brief) -> Result<()> {
    let failed = |errno| Error::new(ErrorKind::Setup, Step::Seccomp, "secret").call("getrandom", errno);
    let secret = sys::secret().map_err(failed)?;
    brief.map().set_word(SECRET, secret);
    brief.map().set_word(SECRET_LOW, secret << 32);
    brief.map().set_word(SECRET_HIGH, secret & 0xffff_ffff_0000_0000);
    Ok(())
}

/// Init keeps the brief, so the secret goes once it has been used.
pub(super) fn forget_secret(brief: &Brief) {
    for at in [SECRET, SECRET_LOW, SECRET_HIGH] {
        brief.map().set_word(at, 0);
    }
}

pub(super) fn enter_tail(brief: &Brief, entry: u64) {
    brief.map().set_word(TAIL_ENTRY, entry);
}

/// For hosts without `close_range`: the first free number, and one past every number that the caller's table could hold.
/// The table may grow while this runs, so twice its size is taken.
pub(super) fn note_descriptors(brief: &Brief, free: i32) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = Status::parse(&text).fd_size.unwrap_or(1 << 16);
    brief.map().set_word(FREE_FD, u64::from(free.cast_unsigned()));
    brief.map().set_word(FD_END, 2 * size + 1024);
}

/// Descriptors of this process and the numbers that the child finds them under.
pub(super) fn descriptors(
    plan: &Plan,
    request: &Request<'_>,
    sources: &[Found],
    (stdio, socket, brief, caller): ([RawFd; 3], &OwnedFd, &Brief, &OwnedFd),
) -> Vec<(i32, i32)> {
    let mut place: Vec<(i32, i32)> = (0..).zip(stdio).map(|(number, fd)| (fd, number)).collect();
    place.push((socket.as_raw_fd(), FD_SOCKET));
    place.push((brief.map().as_fd().as_raw_fd(), FD_BRIEF));
    // The scratch numbers are taken too, so that no call of the set-up hands them out.
    for number in [FD_CALLER, FD_SCRATCH, FD_SCRATCH_TARGET] {
        place.push((caller.as_raw_fd(), number));
    }
    for (source, found) in plan.sources.iter().zip(sources) {
        if let (Some(plan), Some(tree)) = (source.tree, &found.tree) {
            place.push((tree.as_raw_fd(), plan.fd));
        }
    }
    let passed = request.passed.iter().map(|(fd, _)| fd).chain(&request.program_fd);
    place.extend(passed.zip(plan.passed_at..).map(|(fd, number)| (fd.as_raw_fd(), number)));
    place
}

/// A child that joins a living sandbox finds that sandbox, and those of its namespaces that it joins one by one.
pub(super) fn place_joined(place: &mut Vec<(i32, i32)>, door: &OwnedFd, namespaces: &[OwnedFd]) {
    place.retain(|(_, to)| *to != FD_SANDBOX);
    place.push((door.as_raw_fd(), FD_SANDBOX));
    place.extend(namespaces.iter().zip(FD_FIRST_FREE..).map(|(fd, to)| (fd.as_raw_fd(), to)));
}
