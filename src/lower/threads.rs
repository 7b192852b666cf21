//! The threads of this process, as `/proc` shows them, or the kernel's answer where there is no `/proc`. It must not change
//! any of them.

use std::fs::{self, File};
use std::io::{Error as IoError, ErrorKind as IoKind};
use std::os::unix::fs::FileExt;
use std::result::Result as StdResult;

use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::host::Status;
use crate::sys;

/// More is not read of one thread's status: only thousands of groups would make it longer.
const STATUS_MAX: usize = 64 << 10;
/// Threads that come and go while they are listed are listed again, so often at most: the kernel covers them anyway.
const ROUNDS: usize = 8;

/// One thread.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) tid: i32,
    pub(super) name: String,
    pub(super) status: Status,
    /// Its status, to be read again when nothing can be opened any more.
    pub(super) again: File,
}

/// What is known of the threads.
#[derive(Debug)]
pub(super) struct Threads {
    /// The calling thread first; empty where `/proc` does not show them.
    pub(super) list: Vec<Thread>,
    /// Whether there is one only; where that cannot be known, the errno.
    alone: StdResult<bool, i32>,
}

/// What one more look at a thread showed.
#[derive(Debug)]
pub(super) enum Seen {
    Alive(Box<Status>),
    /// It has ended.
    Ended,
}

impl Threads {
    pub(super) fn look() -> Self {
        let list = list().unwrap_or_default();
        let alone = match (list.len(), ask()) {
            (0, asked) => asked,
            // A process that shares the memory makes the kernel say no too: it would not be covered either.
            (1, asked) => Ok(asked.unwrap_or(true)),
            _ => Ok(false),
        };
        Self { list, alone }
    }

    /// An error where a thread has come since, which the calling thread's signal handlers could have made.
    pub(super) fn still_one() -> Result<()> {
        match ask() {
            Ok(false) => Err(Error::new(ErrorKind::Lowering, Step::Threads, "another thread")
                .call("unshare", libc::EINVAL)
                .detail(
                    "it was made while the process lowered itself, and may have kept what this one lost",
                )),
            // Refused: it was known otherwise before, and nothing else could have made one.
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// An error where there may be more threads than the calling one.
    pub(super) fn only_one(&self, object: impl Into<Object>, step: Step, why: &str) -> Result<()> {
        let error = Error::new(ErrorKind::Unsupported, step, object);
        match self.alone {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.detail(format!("{why}, and {}", self.others()))),
            Err(errno) => Err(Error::new(ErrorKind::Unsupported, Step::Threads, "/proc/self/task")
                .call("unshare", errno)
                .detail(format!("{why}, and how many threads there are cannot be known"))),
        }
    }

    /// Whether more than the calling thread may be there.
    pub(super) fn may_be_several(&self) -> bool {
        self.alone != Ok(true)
    }

    fn others(&self) -> String {
        match self.list.as_slice() {
            [_, other, ..] => {
                format!("this process has {} threads, one of them {}", self.list.len(), other.named())
            }
            _ => "this process has several threads, or another process shares its memory".to_owned(),
        }
    }
}

impl Thread {
    pub(super) fn named(&self) -> String {
        format!("thread {} {:?}", self.tid, self.name)
    }

    /// Its status now.
    pub(super) fn look_again(&self) -> Result<Seen> {
        match read(&self.again) {
            Ok(text) if is_dead(&text) => Ok(Seen::Ended),
            Ok(text) => Ok(Seen::Alive(Box::new(Status::parse(&text)))),
            Err(error) if has_ended(&error) => Ok(Seen::Ended),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                Err(Error::new(ErrorKind::Lowering, Step::Verify, self.named()).call("read", errno))
            }
        }
    }
}

/// A thread of this process by its number.
pub(super) fn name_of(tid: i32) -> String {
    let comm = fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap_or_default();
    format!("thread {tid} {:?}", comm.trim_end())
}

/// `unshare(CLONE_THREAD)`: nothing to unshare in a process of one thread, EINVAL in any other (unshare(2)).
fn ask() -> StdResult<bool, i32> {
    let number = u32::try_from(libc::SYS_unshare).map_err(|_| libc::ENOSYS)?;
    let flag = u64::from(libc::CLONE_THREAD.cast_unsigned());
    match sys::probe_call(number, [flag, 0, 0, 0, 0, 0]) {
        Ok(()) => Ok(true),
        Err(libc::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `None` where `/proc` does not show all of them.
fn list() -> Option<Vec<Thread>> {
    let mut list: Vec<Thread> = Vec::new();
    for _ in 0..ROUNDS {
        let tids = tids()?;
        list.retain(|thread| tids.contains(&thread.tid));
        let known = list.len();
        for tid in tids {
            if !list.iter().any(|thread| thread.tid == tid) {
                list.extend(thread(tid).ok()?);
            }
        }
        if list.len() == known {
            break;
        }
    }
    let own = own()?;
    list.sort_by_key(|thread| (thread.tid != own, thread.tid));
    Some(list)
}

fn tids() -> Option<Vec<i32>> {
    let entries = fs::read_dir("/proc/self/task").ok()?;
    entries.map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn own() -> Option<i32> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    link.file_name()?.to_str()?.parse().ok()
}

/// `Ok(None)`: it has ended.
fn thread(tid: i32) -> StdResult<Option<Thread>, IoError> {
    let path = format!("/proc/self/task/{tid}/status");
    let made = File::open(&path).and_then(|file| Ok((read(&file)?, file)));
    let (text, again) = match made {
        Ok(made) => made,
        Err(error) if has_ended(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if is_dead(&text) {
        return Ok(None);
    }
    let name = text.lines().find_map(|line| line.strip_prefix("Name:")).unwrap_or_default();
    Ok(Some(Thread { tid, name: name.trim().to_owned(), status: Status::parse(&text), again }))
}

fn has_ended(error: &IoError) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// A first thread that has ended stays in the list as long as there are others.
fn is_dead(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"))
}

/// From the beginning, by `pread` alone: behind a filter every other call may be the last one.
fn read(file: &File) -> StdResult<String, IoError> {
    let mut bytes = vec![0_u8; STATUS_MAX];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, u64::try_from(length).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == IoKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
