//! Opens for a program: what was asked, what may be decided, and how it is carried out without following what the program
//! may have planted. It must not decide.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::result::Result as StdResult;
use std::sync::Arc;

use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{AccessFlags, access};

use super::path::{absolute, below_root, copied, int};
use crate::spawn::{CallError, NotifiedCall, OnExec, Response};
use crate::sys;

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;
/// What a program may ask of an open; everything else it is opened without.
const FLAGS: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_TRUNC
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_PATH;
/// `null`, `zero`, `full`, `random` and `urandom` (mem(4), null(4), random(4)). No terminal: that would be this process's.
const MEMORY: u64 = 1;
const HARMLESS: [u64; 5] = [3, 5, 7, 8, 9];
/// How often a file may appear and vanish while it is opened.
const TRIES: usize = 4;

/// What a program wants a path for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenPurpose {
    /// A descriptor.
    Open,
    /// What stat(2) or access(2) say of it; [`OpenRequest::writes`] where access(2) is asked whether it can be written.
    Look,
}

/// A file that a program wants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenRequest {
    /// Absolute, without `.` and `..`: a relative one stands behind the program's directory as the kernel names it.
    pub path: PathBuf,
    /// The flags of open(2) that can be had: `O_RDONLY`, `O_CREAT`, …
    pub flags: i32,
    /// Permissions of a file that is made, as far as this process's umask leaves them.
    pub mode: u32,
    /// What for.
    pub purpose: OpenPurpose,
    /// The thread that asks, as this process sees it.
    pub thread: u32,
}

impl OpenRequest {
    /// Whether the file is to be written, made or cut.
    ///
    /// A file that was opened to be read only can still be changed in what is not its contents, as far as its owner may: with
    /// fchmod(2), fchown(2), futimens(3), fsetxattr(2). An unprivileged caller's program has the caller's own id and owns what
    /// the caller owns. `O_APPEND` promises nothing: fcntl(2) takes it off again (`F_SETFL`), and then what is there already
    /// can be written over and cut. Where that matters, open from a read-only mount, or give a pipe or a copy
    /// ([`OpenDecision::Fd`]).
    #[must_use]
    pub fn writes(&self) -> bool {
        let path_only = self.flags & libc::O_PATH != 0;
        !path_only
            && (self.flags & libc::O_ACCMODE != libc::O_RDONLY
                || self.flags & (libc::O_CREAT | libc::O_TRUNC) != 0)
    }
}

/// What becomes of it.
///
/// Of this process's tree only regular files are opened: the descriptor of a directory would be a way out of the program's
/// own tree, by `..` and calls that nobody decides about. Nothing of a `/proc` is opened, as what it says of "self" is this
/// process's, and no magic link is followed. For anything else there is [`OpenDecision::Fd`].
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenDecision {
    /// It fails with this errno.
    Refuse(i32),
    /// The path is opened in the program's **own** tree (`/proc/PID/root`, `RESOLVE_IN_ROOT`), a regular file, a directory or
    /// a device like `/dev/null`, **with this process's rights**. The mounts stand as the policy has them, read-only or not; the
    /// files' modes do not: what the program's own user may not open there becomes readable, and on writable mounts writable,
    /// where this process may. A caller that is root should say this of trees only in which nothing is secret.
    Inside,
    /// The path is opened from this process's root, **and no part of it may be a symlink** (`RESOLVE_NO_SYMLINKS`).
    Open,
    /// The same, and symlinks are followed wherever they lead. Only for trees in which nobody who is not trusted can make
    /// one: `/usr`, not a directory that the program may write to.
    OpenFollowingLinks,
    /// This path is opened below this directory, and nothing leads out of it, symlinks included (`RESOLVE_BENEATH`).
    Beneath {
        /// Where.
        directory: Arc<OwnedFd>,
        /// Relative to it.
        path: PathBuf,
    },
    /// The program gets this, whatever it is.
    Fd(OwnedFd),
}

/// What may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    Files,
    /// Directories and the memory devices too.
    Inside,
}

type Decide = dyn Fn(&OpenRequest) -> OpenDecision + Send + Sync;

/// Where the parts of an open, or of a look, stand among the arguments.
struct Asked {
    directory: i32,
    path: u64,
    flags: i32,
    mode: u32,
    purpose: OpenPurpose,
    /// Where the `struct stat` goes.
    stat: Option<u64>,
    /// What access(2) asks about.
    access: AccessFlags,
}

fn asked(call: &NotifiedCall<'_>, name: &str) -> StdResult<Asked, i32> {
    let [a, b, c, d, ..] = call.arguments();
    let mode = |argument: u64| int(argument).cast_unsigned();
    let open = |directory, path, flags, mode| Asked {
        directory,
        path,
        flags,
        mode,
        purpose: OpenPurpose::Open,
        stat: None,
        access: AccessFlags::F_OK,
    };
    let look = |directory, path, flags, stat| Asked {
        directory,
        path,
        flags: libc::O_PATH | flags,
        mode: 0,
        purpose: OpenPurpose::Look,
        stat,
        access: AccessFlags::F_OK,
    };
    let may = |directory, path, what, follow| {
        let access = AccessFlags::from_bits_truncate(int(what));
        let written = access.contains(AccessFlags::W_OK);
        let flags = follow | if written { libc::O_WRONLY } else { libc::O_PATH };
        Asked { flags, access, ..look(directory, path, 0, None) }
    };
    let no_follow = |flags: i32| if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { libc::O_NOFOLLOW } else { 0 };
    Ok(match name {
        "open" => open(libc::AT_FDCWD, a, int(b), mode(c)),
        "creat" => open(libc::AT_FDCWD, a, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode(b)),
        "openat" => open(int(a), b, int(c), mode(d)),
        "openat2" => {
            let how = how(call, c, d)?;
            open(int(a), b, how.0, how.1)
        }
        "stat" => look(libc::AT_FDCWD, a, 0, Some(b)),
        "lstat" => look(libc::AT_FDCWD, a, libc::O_NOFOLLOW, Some(b)),
        "newfstatat" => look(int(a), b, no_follow(int(d)), Some(c)),
        "access" => may(libc::AT_FDCWD, a, b, 0),
        "faccessat" => may(int(a), b, c, 0),
        "faccessat2" => may(int(a), b, c, no_follow(int(d))),
        _ => return Err(libc::ENOSYS),
    })
}

/// `struct open_how`: flags, mode, resolve. What a program wants resolved more strictly than here, it cannot have; `EAGAIN`
/// would mean that it is to try again (openat2(2)).
fn how(call: &NotifiedCall<'_>, address: u64, size: u64) -> StdResult<(i32, u32), i32> {
    if size < 24 {
        return Err(libc::EINVAL);
    }
    let bytes = call.read_bytes(address, 24).map_err(|error| error.errno())?;
    let word =
        |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes);
    if word(16) != 0 || size > 24 {
        return Err(libc::EOPNOTSUPP);
    }
    let flags = i32::try_from(word(0)).map_err(|_| libc::EINVAL)?;
    Ok((flags, u32::try_from(word(8)).map_err(|_| libc::EINVAL)?))
}

pub(super) fn answer(call: &NotifiedCall<'_>, name: &str, decide: &Decide) -> StdResult<Response, i32> {
    let asked = asked(call, name)?;
    if asked.flags & libc::O_TMPFILE == libc::O_TMPFILE {
        return Err(libc::EOPNOTSUPP);
    }
    let path = absolute(call, asked.directory, &copied(call, asked.path)?)?;
    let request = OpenRequest {
        path,
        flags: asked.flags & FLAGS,
        mode: asked.mode & 0o777,
        purpose: asked.purpose,
        thread: call.thread_id(),
    };
    let fd = match decide(&request) {
        OpenDecision::Refuse(errno) => return Err(errno),
        OpenDecision::Fd(fd) => fd,
        OpenDecision::Inside => {
            let root = root_inside(call)?;
            let how = (RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT, Kinds::Inside);
            carry_out(&root, &request.path, &request, how)?
        }
        OpenDecision::Open => from_root(&request, RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)?,
        OpenDecision::OpenFollowingLinks => from_root(&request, RESOLVE_NO_MAGICLINKS)?,
        OpenDecision::Beneath { directory, path } => {
            let how = (RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH, Kinds::Files);
            carry_out(&directory, &path, &request, how)?
        }
    };
    match (request.purpose, asked.stat) {
        (OpenPurpose::Open, _) => {
            let on_exec = if asked.flags & libc::O_CLOEXEC != 0 { OnExec::Close } else { OnExec::Keep };
            Ok(Response::Fd { fd, at: None, on_exec })
        }
        (OpenPurpose::Look, Some(address)) => {
            let stat = sys::stat_bytes(&fd)?;
            call.write_bytes(address, &stat).map_err(|error| error.errno())?;
            Ok(Response::Value(0))
        }
        (OpenPurpose::Look, None) => {
            let place = format!("/proc/self/fd/{}", fd.as_raw_fd());
            access(place.as_str(), asked.access).map_err(|errno| errno as i32)?;
            Ok(Response::Value(0))
        }
    }
}

fn from_root(request: &OpenRequest, resolve: u64) -> StdResult<OwnedFd, i32> {
    let root = File::open("/").map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    carry_out(&OwnedFd::from(root), &request.path, request, (resolve, Kinds::Files))
}

/// The program's own root directory.
fn root_inside(call: &NotifiedCall<'_>) -> StdResult<OwnedFd, i32> {
    let root = call.while_waiting(|thread| {
        File::open(format!("/proc/{thread}/root")).map_err(|error| CallError::Refused {
            call: "open",
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    });
    root.map(OwnedFd::from).map_err(|error| error.errno())
}

/// A place in the tree first, which has no effect on whatever is there; and only if it is a file or a directory the file.
fn carry_out(
    directory: &OwnedFd,
    path: &Path,
    request: &OpenRequest,
    (resolve, kinds): (u64, Kinds),
) -> StdResult<OwnedFd, i32> {
    let name = below_root(path)?;
    let only_place = request.flags & (libc::O_NOFOLLOW | libc::O_DIRECTORY) | libc::O_PATH | libc::O_CLOEXEC;
    for _ in 0..TRIES {
        match sys::open_beneath(directory, &name, (only_place, 0), resolve) {
            Ok(place) => return from_place(place, request, kinds),
            Err(libc::ENOENT) if request.flags & libc::O_CREAT != 0 => {}
            Err(errno) => return Err(errno),
        }
        // Made by this very call, or not at all: what somebody else made meanwhile is looked at anew.
        let flags = request.flags & !libc::O_TRUNC | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOCTTY;
        match sys::open_beneath(directory, &name, (flags, request.mode), resolve) {
            Err(libc::EEXIST) => {}
            made => return made,
        }
    }
    Err(libc::EAGAIN)
}

fn from_place(place: OwnedFd, request: &OpenRequest, kinds: Kinds) -> StdResult<OwnedFd, i32> {
    let flags = request.flags;
    if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 {
        return Err(libc::EEXIST);
    }
    let stat = fstat(&place).map_err(|errno| errno as i32)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let look = request.purpose == OpenPurpose::Look;
    if kind == SFlag::S_IFLNK && !look {
        return Err(libc::ELOOP);
    }
    let harmless =
        kind == SFlag::S_IFCHR && major(stat.st_rdev) == MEMORY && HARMLESS.contains(&minor(stat.st_rdev));
    let inside = kinds == Kinds::Inside && (kind == SFlag::S_IFDIR || harmless);
    if !look && kind != SFlag::S_IFREG && !inside {
        return Err(libc::EACCES);
    }
    // What it says of "self" is this process's.
    if fstatfs(&place).map_err(|errno| errno as i32)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Err(libc::EACCES);
    }
    if look || flags & libc::O_PATH != 0 {
        return Ok(place);
    }
    let access = flags & libc::O_ACCMODE;
    let rest = flags & !(libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW);
    // The open file itself, and no name: nothing can be put in its place any more.
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(rest | libc::O_NOCTTY | libc::O_CLOEXEC);
    let opened = options.open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    opened.map(OwnedFd::from).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}
