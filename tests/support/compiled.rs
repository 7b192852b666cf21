//! Static programs made of C, each in a directory of its own that everyone may enter, which goes with the program's name.

use std::env;
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::thread;

/// The path of the program.
pub(crate) struct Compiled(PathBuf);

impl Deref for Compiled {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(self.0.parent().expect("a directory"));
        // A test that fails already says enough.
        assert!(removed.is_ok() || thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

/// Compiles it to `p` in its directory.
pub(crate) fn compile(name: &str, source: &str, flags: &[&str]) -> Compiled {
    let directory = env::temp_dir().join(format!("ringfence-compiled-{}-{name}", id()));
    fs::create_dir_all(&directory).expect("a directory");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("its mode");
    let (file, made) = (directory.join("p.c"), Compiled(directory.join("p")));
    fs::write(&file, source).expect("a source");
    let mut gcc = Command::new("gcc");
    let done = gcc.args(["-static", "-O1", "-o"]).arg(&*made).arg(&file).args(flags).output().expect("gcc");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    made
}
