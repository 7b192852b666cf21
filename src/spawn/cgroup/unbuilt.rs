//! What stands for scopes of systemd in a build without the feature `systemd`: there is none. It must not do anything.

use std::convert::Infallible;
use std::path::Path;
use std::result::Result as StdResult;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Step};
use crate::host::SystemdManager;
use crate::plan::ScopePlace;

/// A refusal: always the same one.
#[derive(Clone, Copy, Debug)]
pub(in crate::spawn) struct ScopeRefused {
    manager: SystemdManager,
}

impl ScopeRefused {
    pub(in crate::spawn) fn text(self) -> String {
        format!("{}: built without the feature `systemd`", self.manager)
    }

    pub(in crate::spawn) fn call(self) -> (&'static str, i32) {
        ("StartTransientUnit", libc::EOPNOTSUPP)
    }

    pub(in crate::spawn) fn error(self) -> Error {
        Error::new(ErrorKind::Unsupported, Step::Cgroup, "scope").detail(self.text())
    }
}

/// How a process of this caller gets into a group of the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "no scope is ever made")]
pub(in crate::spawn) enum Moves {
    Directly,
    ByManager,
}

/// No scope.
#[derive(Debug)]
pub(in crate::spawn) struct Scope(Infallible);

pub(super) fn scope(place: &ScopePlace, _: Instant) -> StdResult<Arc<Scope>, ScopeRefused> {
    // A host that was made by hand may have a manager.
    debug_assert!(!place.address.is_empty());
    Err(ScopeRefused { manager: place.manager })
}

impl Scope {
    pub(super) fn path(&self) -> &Path {
        match self.0 {}
    }

    pub(super) fn moves(&self) -> Moves {
        match self.0 {}
    }

    pub(super) fn text(&self) -> String {
        match self.0 {}
    }

    pub(super) fn attach(&self, _: &str, _: i32, _: Instant) -> StdResult<(), ScopeRefused> {
        match self.0 {}
    }
}
