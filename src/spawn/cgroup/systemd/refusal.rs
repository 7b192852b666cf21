//! Why there is no scope: who refused what, and what can be done about it. It must not talk to anyone.

use crate::error::{Error, ErrorKind, Step, errno_text};
use crate::host::SystemdManager;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No local socket is in the address of the bus.
    Address(String),
    /// A call on the socket to the bus.
    Socket { call: &'static str, errno: i32 },
    /// The bus does not believe who this is.
    NotAuthenticated(String),
    /// The bus has closed the connection.
    Closed,
    /// What it says is not D-Bus.
    Malformed,
    /// The time is over.
    NoAnswer,
    /// The manager counts processes otherwise: it would take the number for another's.
    OtherPids { own: u32, seen: u32 },
    /// An error of D-Bus.
    Answer { name: String, text: String },
    /// The job was queued, and did not come to its end.
    Job(String),
    /// The process that was to be in the scope could not be made, or has ended.
    Keeper { call: &'static str, errno: i32 },
    /// The manager was content, and the kernel does not show the process there.
    NotThere(String),
    /// A call on a file of the scope.
    File(String),
}

/// A refusal, with who and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spawn) struct ScopeRefused {
    pub(super) manager: SystemdManager,
    pub(super) unit: String,
    pub(super) call: &'static str,
    pub(super) why: Why,
}

impl Why {
    fn text(&self) -> String {
        match self {
            Self::Address(address) => format!("{address:?} names no local socket"),
            Self::Socket { call, errno } => format!("the bus: {call}: {}", errno_text(*errno)),
            Self::NotAuthenticated(line) => format!("the bus does not take this process's uid: {line:?}"),
            Self::Closed => "the bus closed the connection".into(),
            Self::Malformed => "what was heard is not D-Bus".into(),
            Self::NoAnswer => "no answer in time".into(),
            Self::OtherPids { own, seen } => {
                format!("it is in another pid namespace: this process is {own} here and {seen} there")
            }
            Self::Answer { name, text } => format!("{name}: {text}"),
            Self::Job(result) => format!("the job ended as {result:?}"),
            Self::Keeper { call, errno } => format!("the process to keep it: {call}: {}", errno_text(*errno)),
            Self::NotThere(seen) => format!("the process is in {seen:?} instead"),
            Self::File(text) => text.clone(),
        }
    }

    /// The like among errnos.
    fn errno(&self) -> i32 {
        match self {
            Self::Socket { errno, .. } | Self::Keeper { errno, .. } => *errno,
            Self::NotAuthenticated(_) => libc::EACCES,
            Self::Closed => libc::ECONNRESET,
            Self::Malformed => libc::EPROTO,
            Self::NoAnswer => libc::ETIMEDOUT,
            Self::OtherPids { .. } => libc::ESRCH,
            Self::Answer { name, .. } if is_denied(name) => libc::EACCES,
            Self::Answer { name, .. } if name.ends_with(".UnitExists") => libc::EEXIST,
            Self::Answer { name, .. } if is_absent(name) => libc::EHOSTUNREACH,
            Self::Address(_) | Self::Answer { .. } => libc::EINVAL,
            Self::Job(_) => libc::ECANCELED,
            Self::NotThere(_) | Self::File(_) => libc::EIO,
        }
    }

    fn remedy(&self, manager: SystemdManager) -> Option<&'static str> {
        match (self, manager) {
            (Self::Answer { name, .. }, SystemdManager::System) if is_denied(name) => Some(
                "a unit of its own with Delegate=yes for the caller, or a rule of polkit for org.freedesktop.systemd1.manage-units",
            ),
            (Self::Answer { name, .. }, SystemdManager::User) if is_denied(name) => {
                Some("is a filter in front of the bus, as in Flatpak?")
            }
            (Self::Answer { name, .. }, _) if is_absent(name) => Some("no systemd is on that bus"),
            (Self::Socket { .. } | Self::Closed, SystemdManager::User) => {
                Some("a user without a session has a manager after `loginctl enable-linger`")
            }
            (Self::OtherPids { .. }, _) => Some("ask from outside of the container, or run systemd in it"),
            _ => None,
        }
    }
}

pub(super) fn is_denied(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed"].contains(&last)
}

/// Nobody has the manager's name on the bus, or whoever had it went before it could answer.
pub(super) fn is_absent(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected"].contains(&last)
}

/// It had the name when it was called.
pub(super) fn was_there(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["NoReply", "Disconnected"].contains(&last)
}

impl ScopeRefused {
    /// In one line.
    pub(in crate::spawn) fn text(&self) -> String {
        let Self { manager, unit, call, why } = self;
        let told = format!("{unit} of the {manager}: {call}: {}", why.text());
        why.remedy(*manager).map_or(told.clone(), |remedy| format!("{told}: {remedy}"))
    }

    /// The call and the like of what it said among errnos.
    pub(in crate::spawn) fn call(&self) -> (&'static str, i32) {
        (self.call, self.why.errno())
    }

    /// As the error of a launch.
    pub(in crate::spawn) fn error(&self) -> Error {
        let (call, errno) = self.call();
        Error::new(ErrorKind::Setup, Step::Cgroup, self.unit.clone()).call(call, errno).detail(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_manager_unit_and_remedy() {
        let refused = |manager, name: &str| ScopeRefused {
            manager,
            unit: "a.scope".into(),
            call: "StartTransientUnit",
            why: Why::Answer { name: name.into(), text: "no".into() },
        };
        let denied = refused(SystemdManager::System, "org.freedesktop.DBus.Error.AccessDenied");
        assert_eq!(denied.call(), ("StartTransientUnit", libc::EACCES));
        for part in ["a.scope of the system manager: StartTransientUnit", "AccessDenied: no", "polkit"] {
            assert!(denied.text().contains(part), "{}", denied.text());
        }
        let taken = refused(SystemdManager::User, "org.freedesktop.systemd1.UnitExists");
        assert_eq!(taken.call().1, libc::EEXIST);
        let absent = refused(SystemdManager::User, "org.freedesktop.DBus.Error.NameHasNoOwner");
        assert!(absent.text().ends_with("no systemd is on that bus"), "{}", absent.text());
    }
}
