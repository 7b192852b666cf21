//! Why a rung of a limit's ladder did not hold. It must not decide what follows.

use super::files::Refused;
use super::systemd::ScopeRefused;
use crate::error::{Error, ErrorKind, Step};

/// Why a rung did not hold.
pub(super) enum Failed {
    Refused(Refused),
    Scope(ScopeFailed),
    Other(String),
}

/// Why there is no group in a scope.
#[derive(Clone)]
pub(super) enum ScopeFailed {
    Manager(ScopeRefused),
    Kernel(Refused),
    Unplanned,
}

impl ScopeFailed {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Manager(refused) => refused.text(),
            Self::Kernel(refused) => refused.text(),
            Self::Unplanned => "it was not planned".into(),
        }
    }

    pub(super) fn call(&self) -> Option<(&'static str, i32)> {
        match self {
            Self::Manager(refused) => Some(refused.call()),
            Self::Kernel(refused) => Some((refused.call, refused.errno)),
            Self::Unplanned => None,
        }
    }

    pub(super) fn error(&self) -> Error {
        match self {
            Self::Manager(refused) => refused.error(),
            Self::Kernel(refused) => refused.error(),
            Self::Unplanned => Error::new(ErrorKind::Setup, Step::Cgroup, "scope").detail(self.text()),
        }
    }
}

impl Failed {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Refused(refused) => refused.text(),
            Self::Scope(failed) => failed.text(),
            Self::Other(why) => why.clone(),
        }
    }

    pub(super) fn call(&self) -> Option<(&'static str, i32)> {
        match self {
            Self::Refused(refused) => Some((refused.call, refused.errno)),
            Self::Scope(failed) => failed.call(),
            Self::Other(_) => None,
        }
    }
}
