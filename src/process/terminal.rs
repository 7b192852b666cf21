//! A pseudoterminal for the program, and the caller's own terminal made raw meanwhile. It must not connect the two: the
//! program never gets a descriptor of the caller's terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::pty::{posix_openpt, unlockpt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::sys;

/// The size of a terminal's window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

impl Default for WindowSize {
    /// 24 lines of 80 characters.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

impl WindowSize {
    /// That of an open terminal.
    ///
    /// # Errors
    /// `ENOTTY` where it is none.
    pub fn of(terminal: impl AsFd) -> io::Result<Self> {
        let [rows, columns, ..] = sys::window_size(terminal.as_fd()).map_err(io::Error::from_raw_os_error)?;
        Ok(Self { rows, columns })
    }
}

/// The caller's side of the program's terminal (pty(7)): what is written to it the program reads as typed, what the program
/// prints is read from it. Closing it hangs the terminal up: the program's session gets SIGHUP.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Both sides: the caller's, and the one that becomes the program's standard streams.
    pub(super) fn open(size: WindowSize) -> io::Result<(Self, OwnedFd)> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        unlockpt(&master)?;
        let peer = sys::terminal_peer(master.as_fd()).map_err(io::Error::from_raw_os_error)?;
        let terminal = Self(File::from(OwnedFd::from(master)));
        terminal.resize(size)?;
        Ok((terminal, peer))
    }

    /// Changes the size of the window; the program in front gets SIGWINCH.
    ///
    /// # Errors
    /// `EIO` where the terminal is hung up.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        let words = [size.rows, size.columns, 0, 0];
        sys::set_window_size(self.0.as_fd(), words).map_err(io::Error::from_raw_os_error)
    }

    /// Another handle of the same side, for a thread that only reads or only writes.
    ///
    /// # Errors
    /// `EMFILE` where there are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Where no process holds the program's side any more, the kernel says EIO: that is the end.
fn at_end(error: io::Error) -> io::Result<usize> {
    if error.raw_os_error() == Some(libc::EIO) { Ok(0) } else { Err(error) }
}

impl Read for Terminal {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).or_else(at_end)
    }
}

impl Read for &Terminal {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(bytes).or_else(at_end)
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.0).flush()
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The caller's own terminal in raw mode (termios(3), "Raw mode"): every key goes to the program inside. Dropping it
/// restores what was before.
#[derive(Debug)]
#[must_use = "dropping it ends raw mode"]
pub struct RawMode<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> RawMode<T> {
    /// Makes a terminal raw.
    ///
    /// # Errors
    /// `ENOTTY` where it is none.
    pub fn new(terminal: T) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }

    /// Restores what was before, and says whether that worked.
    ///
    /// # Errors
    /// `EIO` where the terminal is gone.
    pub fn end(self) -> io::Result<()> {
        self.restore()
    }

    fn restore(&self) -> io::Result<()> {
        Ok(tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before)?)
    }
}

impl<T: AsFd> Drop for RawMode<T> {
    fn drop(&mut self) {
        // The terminal may be gone by now, and a drop has nobody to tell.
        self.restore().ok();
    }
}
