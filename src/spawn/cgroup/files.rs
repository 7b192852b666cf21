//! The files of a group: one write, one read, and whether a file shows what was written. It must not decide what a refusal
//! means.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;

use crate::error::errno_text;
use crate::plan::Shows;
use crate::policy::CpuSet;

/// A call on a file of a group that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) file: PathBuf,
    pub(super) call: &'static str,
    pub(super) errno: i32,
    /// What was read instead of what was written.
    pub(super) seen: Option<String>,
}

impl Refused {
    pub(super) fn new(file: &Path, call: &'static str, errno: i32) -> Self {
        Self { file: file.to_path_buf(), call, errno, seen: None }
    }

    fn io(file: &Path, call: &'static str, error: &io::Error) -> Self {
        Self::new(file, call, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// In one line.
    pub(super) fn text(&self) -> String {
        let file = self.file.display();
        if let Some(seen) = &self.seen {
            return format!("{file} shows {seen:?} after the write");
        }
        let told = format!("{file}: {}: {}", self.call, errno_text(self.errno));
        remedy(self).map_or(told.clone(), |remedy| format!("{told}: {remedy}"))
    }
}

/// What can be done about it, where that is known.
pub(super) fn remedy(refused: &Refused) -> Option<String> {
    if let Some(seen) = &refused.seen {
        return Some(format!("the file shows {seen:?} after the write"));
    }
    if refused.file.ends_with("cgroup.subtree_control") && refused.errno == libc::ENOENT {
        return Some(
            "that group has no such controller: whoever made it, or the group above, does not pass it on (for a user's manager: \
             Delegate= of user@.service)"
                .to_owned(),
        );
    }
    let enables = ["cgroup.subtree_control", "cgroup.procs"].iter().any(|name| refused.file.ends_with(name));
    (enables && refused.errno == libc::EBUSY).then(|| {
        "processes are in that group, and so it can enable nothing for groups in it: run the caller in a subgroup of a unit \
         with Delegate=yes, name a cgroup_parent(), or say manage_own_cgroup()"
            .to_owned()
    })
}

pub(super) fn write(file: &Path, text: &str) -> StdResult<(), Refused> {
    let opened = OpenOptions::new().write(true).open(file);
    let mut opened = opened.map_err(|error| Refused::io(file, "open", &error))?;
    loop {
        // The kernel takes each write for a whole value.
        match opened.write(text.as_bytes()) {
            Ok(length) if length == text.len() => return Ok(()),
            Ok(_) => return Err(Refused::new(file, "write", libc::EIO)),
            // Version 1 gives up a limit of memory for any signal that waits, a stop or a tracer's too.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Refused::io(file, "write", &error)),
        }
    }
}

pub(super) fn read(file: &Path) -> StdResult<String, Refused> {
    fs::read_to_string(file).map_err(|error| Refused::io(file, "read", &error))
}

/// Writes and looks.
pub(super) fn write_and_compare(file: &Path, text: &str, shows: &Shows) -> StdResult<(), Refused> {
    write(file, text)?;
    if *shows == Shows::Nothing {
        return Ok(());
    }
    let seen = read(file)?;
    if agrees(&seen, shows) {
        return Ok(());
    }
    Err(Refused { seen: Some(seen.trim().to_owned()), ..Refused::new(file, "read", 0) })
}

/// The kernel counts memory in pages, and rounds down; the largest are of 64 KiB where the crate runs.
const PAGE_MAX: u64 = 1 << 16;

fn agrees(seen: &str, shows: &Shows) -> bool {
    let number = || seen.trim().parse::<u64>().ok();
    let same = |wanted: &str| seen.split_whitespace().eq(wanted.split_whitespace());
    match shows {
        Shows::Nothing => true,
        Shows::Number(wanted) => number() == Some(*wanted),
        // More than the kernel can count is no limit, which it shows as "max", or as the most that it can count.
        Shows::Bytes(wanted) => match number() {
            Some(seen) => seen <= *wanted && (wanted - seen < PAGE_MAX || seen >= 1 << 62),
            None => seen.trim() == "max" && *wanted >= 1 << 62,
        },
        Shows::Words(wanted) => same(wanted),
        Shows::Line(wanted) => {
            let words: Vec<&str> = wanted.split_whitespace().collect();
            seen.lines().any(|line| {
                let line: Vec<&str> = line.split_whitespace().collect();
                line.first() == words.first() && words.iter().all(|word| line.contains(word))
            })
        }
        Shows::Set(wanted) => CpuSet::parse(seen).as_ref() == Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_is_compared_with_what_was_written() {
        let set = CpuSet::from([0, 1, 2, 5]);
        let yes: [(&str, Shows); 9] = [
            ("32\n", Shows::Number(32)),
            ("8192\n", Shows::Bytes(8193)),
            ("9223372036854771712\n", Shows::Bytes(u64::MAX)),
            ("max\n", Shows::Bytes(u64::MAX)),
            ("50000 100000\n", Shows::Words("50000 100000".into())),
            ("8:0 rbps=1 wbps=max riops=max wiops=max\n", Shows::Line("8:0 rbps=1".into())),
            ("lo 0\neth0 5\n", Shows::Line("eth0 5".into())),
            ("0-2,5\n", Shows::Set(set.clone())),
            ("anything", Shows::Nothing),
        ];
        for (seen, shows) in yes {
            assert!(agrees(seen, &shows), "{seen:?} {shows:?}");
        }
        let no: [(&str, Shows); 8] = [
            ("max\n", Shows::Number(32)),
            ("8194\n", Shows::Bytes(8193)),
            ("0\n", Shows::Bytes(1 << 20)),
            ("max\n", Shows::Bytes(1 << 20)),
            ("max 100000\n", Shows::Words("50000 100000".into())),
            ("8:16 rbps=1\n", Shows::Line("8:0 rbps=1".into())),
            ("0-3\n", Shows::Set(set)),
            ("", Shows::Number(0)),
        ];
        for (seen, shows) in no {
            assert!(!agrees(seen, &shows), "{seen:?} {shows:?}");
        }
    }
}
