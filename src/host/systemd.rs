//! Whether systemd runs this machine, and where the manager listens that the caller may ask. It must not talk to it.

use std::env;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::read;
use crate::sys;

/// Which of systemd's managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SystemdManager {
    /// The machine's own, process 1.
    System,
    /// That of the caller's user (user@.service).
    User,
}

impl Display for SystemdManager {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system manager",
            Self::User => "user manager",
        })
    }
}

/// What systemd can do for the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Systemd {
    /// The crate was built without the feature `systemd`.
    #[default]
    NotBuilt,
    /// Something else is this machine's, or this container's, process 1 (sd_booted(3)).
    NotBooted,
    /// There is a manager, and no bus on which it could be asked.
    NoBus {
        /// Which manager.
        manager: SystemdManager,
        /// Where a bus was looked for.
        looked_at: String,
    },
    /// A manager can be asked: for root the machine's, for anyone else that of the user.
    Manager {
        /// Which manager.
        manager: SystemdManager,
        /// The address of its bus, as D-Bus writes it (`unix:path=/run/dbus/system_bus_socket`).
        address: String,
    },
}

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

impl Systemd {
    /// Looks at this machine, for a caller with this effective uid.
    pub(super) fn probe(uid: u32) -> Self {
        if !cfg!(feature = "systemd") {
            return Self::NotBuilt;
        }
        if !read::is_there("/run/systemd/system") {
            return Self::NotBooted;
        }
        if uid == 0 { Self::system() } else { Self::user(uid) }
    }

    fn system() -> Self {
        let manager = SystemdManager::System;
        match variable("DBUS_SYSTEM_BUS_ADDRESS") {
            Some(address) => Self::Manager { manager, address },
            None if read::is_there(SYSTEM_BUS) => {
                Self::Manager { manager, address: format!("unix:path={SYSTEM_BUS}") }
            }
            None => Self::NoBus { manager, looked_at: SYSTEM_BUS.to_owned() },
        }
    }

    /// A session without the variables, such as one of cron or su, finds the bus of a manager that runs all the same.
    fn user(uid: u32) -> Self {
        let manager = SystemdManager::User;
        if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
            return Self::Manager { manager, address };
        }
        let directory = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}"));
        let path = format!("{directory}/bus");
        if fs::metadata(&path).is_ok_and(|file| file.uid() == uid) {
            return Self::Manager { manager, address: format!("unix:path={path}") };
        }
        Self::NoBus { manager, looked_at: path }
    }
}

/// A program that was started with privileges that its caller lacks does not believe that caller.
fn variable(name: &str) -> Option<String> {
    if sys::secure_exec() {
        return None;
    }
    env::var(name).ok().filter(|value| !value.is_empty())
}
