//! For the crate's own tests, benchmarks and fuzz targets: no promise is made about anything in it.

use std::ffi::OsString;
use std::path::PathBuf;

pub use crate::machine::isa::{Condition, INSN_SIZE, Insn, Kind, Opcode};
pub use crate::machine::model::{End, Model, Progress, World};
pub use crate::plan::{Found, Linked, LinkedSource, Optional};

use crate::error::Result;
use crate::host::{self, IdRange, KeyUsage, MountTable};
use crate::plan;
use crate::policy::Filter;
use crate::process::{self, ProcessInfo};
use crate::spawn::{self, IoStats, Stall};
use crate::sys;

/// The program of a filter on this architecture: code, jt, jf, k.
///
/// # Errors
/// A filter over the kernel's length.
pub fn compile_filter(filter: &Filter) -> Result<Vec<(u16, u8, u8, u32)>> {
    plan::compile_filter(filter)
}

/// The machine's text of this architecture.
#[must_use]
pub fn machine_text() -> &'static [u8] {
    sys::machine_text()
}

/// The ranges of subuid(5) that belong to one of these owners.
#[must_use]
pub fn subordinate_ranges(text: &str, owners: &[&str]) -> Vec<IdRange> {
    host::subordinate_ranges(text, owners)
}

/// The services of nsswitch.conf that give subordinate ids, but for the files.
#[must_use]
pub fn subordinate_service(text: &str) -> Option<String> {
    host::subordinate_service(text)
}

/// A user's line of `/proc/key-users`.
#[must_use]
pub fn key_usage(text: &str, uid: u32) -> Option<KeyUsage> {
    host::key_usage(text, uid)
}

/// Where the group that counts processes lies: its hierarchy, and its own directory.
#[must_use]
pub fn process_group(text: &str, mounts: &MountTable) -> Option<(PathBuf, PathBuf)> {
    host::process_group(text, mounts)
}

/// A process by the texts of its `stat` and `status`.
#[must_use]
pub fn process_info(stat: &[u8], status: &str, depth: usize) -> Option<ProcessInfo> {
    process::process_info(stat, status, depth)
}

/// The arguments in the text of `cmdline`.
#[must_use]
pub fn process_arguments(bytes: &[u8]) -> Vec<OsString> {
    process::process_arguments(bytes)
}

/// The clock ticks of a process and of what it reaped, by its `stat`.
#[must_use]
pub fn process_ticks(stat: &str) -> u64 {
    process::process_ticks(stat)
}

/// The text of `io.stat`.
#[must_use]
pub fn group_io(text: &str) -> IoStats {
    spawn::group_io(text)
}

/// The text of a file of pressure.
#[must_use]
pub fn group_stall(text: &str) -> Option<Stall> {
    spawn::group_stall(text)
}
