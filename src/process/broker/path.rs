//! A path of a notified call, copied and made absolute. It must not look at any file by it.

use std::ffi::{CString, OsStr};
use std::fs::read_link;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::result::Result as StdResult;

use crate::spawn::{CallError, NotifiedCall};

/// `PATH_MAX` of linux/limits.h, less its NUL.
const LONGEST: usize = 4095;

/// Copies a path.
pub(super) fn copied(call: &NotifiedCall<'_>, address: u64) -> StdResult<PathBuf, i32> {
    let text = call.read_c_string(address, LONGEST).map_err(|error| error.errno())?;
    if text.as_bytes().is_empty() {
        return Err(libc::ENOENT);
    }
    Ok(PathBuf::from(OsStr::from_bytes(text.as_bytes())))
}

/// An `int` argument.
pub(super) fn int(argument: u64) -> i32 {
    u32::try_from(argument & 0xffff_ffff).unwrap_or(0).cast_signed()
}

/// The path from the root, without `.` and `..`; `directory` is the call's, or `AT_FDCWD`. A `..` takes the name before it
/// away, whatever that is: so the path that is decided on has no way but down.
pub(super) fn absolute(call: &NotifiedCall<'_>, directory: i32, path: &Path) -> StdResult<PathBuf, i32> {
    if path.is_absolute() {
        return Ok(without_dots(path));
    }
    let base = base(call, directory)?;
    if !base.is_absolute() || base.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return Err(libc::ENOTDIR);
    }
    Ok(without_dots(&base.join(path)))
}

/// What the program's directory is called, as the kernel says while the call waits.
fn base(call: &NotifiedCall<'_>, directory: i32) -> StdResult<PathBuf, i32> {
    let link = |thread: i32| match directory {
        libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        number => format!("/proc/{thread}/fd/{number}"),
    };
    let seen = call.while_waiting(|thread| {
        read_link(link(thread)).map_err(|error| CallError::Refused {
            call: "readlink",
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    });
    seen.map_err(|error| {
        let closed = matches!(error, CallError::Refused { errno: libc::ENOENT, .. });
        if closed { libc::EBADF } else { error.errno() }
    })
}

fn without_dots(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// The same below the root directory, for openat2(2).
pub(super) fn below_root(path: &Path) -> StdResult<CString, i32> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    CString::new(relative.as_os_str().to_os_string().into_vec()).map_err(|_| libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{below_root, without_dots};

    #[test]
    fn dots_lead_nowhere_else() {
        let cases = [
            ("/a/../b", "/b"),
            ("/../../etc", "/etc"),
            ("/a/./b//c/", "/a/b/c"),
            ("/a/b/../../..", "/"),
            ("/", "/"),
        ];
        for (path, wanted) in cases {
            assert_eq!(without_dots(Path::new(path)), Path::new(wanted));
        }
        assert_eq!(below_root(Path::new("/")).unwrap().as_bytes(), b".");
        assert_eq!(below_root(Path::new("/a/b")).unwrap().as_bytes(), b"a/b");
    }
}
