//! The one error type: step, object, call, errno, causes. It must not know how a sandbox is built.

use std::result::Result as StdResult;
mod cause;
mod mistake;
mod step;

pub use cause::{Cause, Powerless, Runtime};
pub use mistake::Mistake;
pub use step::{Object, Step};

use std::error::Error as StdError;
use std::fmt::{self, Debug, Display, Formatter};
use std::io;

use nix::errno::Errno;

/// `Result` with the crate's [`Error`].
pub type Result<T> = StdResult<T, Error>;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The policy holds mistakes: [`Error::mistakes`]. Nothing was tried.
    InvalidPolicy,
    /// The command holds a mistake (a NUL, a descriptor that is closed). Nothing was tried.
    InvalidCommand,
    /// This host cannot do what is required. Nothing was run.
    Unsupported,
    /// A step of the set-up failed. The program did not run.
    Setup,
    /// `execve` failed. The program did not run.
    Exec,
    /// An operation on a running sandbox failed.
    Process,
    /// Lowering the calling process failed: [`Error::applied`] says what holds all the same.
    Lowering,
}

/// Why something could not be done: which step, on which object, by which call, with which errno, and what was found to be
/// the cause.
///
/// `{}` is one line; `{:#}` adds every cause with its evidence and remedy.
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    step: Step,
    object: Object,
    call: Option<&'static str>,
    errno: Option<i32>,
    detail: Option<String>,
    causes: Vec<Cause>,
    mistakes: Vec<Mistake>,
    attempts: Vec<Attempt>,
    applied: Vec<Step>,
}

/// One namespace set that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The set, as text (`{user|mnt|pid}`).
    pub set: String,
    /// `None`: it was had.
    pub refused: Option<Refusal>,
}

/// How a namespace set was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The step that showed it.
    pub step: Step,
    /// The kernel call.
    pub call: &'static str,
    /// Its errno; 0 where the set could not even be compiled for this host.
    pub errno: i32,
    /// The whole of the error, in one line.
    pub text: String,
    /// What was found to be the cause.
    pub causes: Vec<Cause>,
}

impl Error {
    /// An error of this kind at this step.
    pub(crate) fn new(kind: ErrorKind, step: Step, object: impl Into<Object>) -> Self {
        Self(Box::new(Inner {
            kind,
            step,
            object: object.into(),
            call: None,
            errno: None,
            detail: None,
            causes: Vec::new(),
            mistakes: Vec::new(),
            attempts: Vec::new(),
            applied: Vec::new(),
        }))
    }

    pub(crate) fn invalid_policy(mistakes: Vec<Mistake>) -> Self {
        let mut error = Self::new(ErrorKind::InvalidPolicy, Step::Policy, Object::None);
        error.0.mistakes = mistakes;
        error
    }

    pub(crate) fn call(mut self, call: &'static str, errno: i32) -> Self {
        (self.0.call, self.0.errno) = (Some(call), Some(errno));
        self
    }

    pub(crate) fn nix(self, call: &'static str, errno: Errno) -> Self {
        self.call(call, errno as i32)
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub(crate) fn causes_found(mut self, causes: Vec<Cause>) -> Self {
        self.0.causes = causes;
        self
    }

    pub(crate) fn attempted(mut self, attempts: Vec<Attempt>) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// What was done before this, and cannot be undone.
    pub(crate) fn applied_before(mut self, steps: &[Step]) -> Self {
        self.0.applied = steps.to_vec();
        self
    }

    /// The same error once more, for a failure that is reported at every launch.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step that failed.
    #[must_use]
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// What the step was about.
    #[must_use]
    pub fn object(&self) -> &Object {
        &self.0.object
    }

    /// The kernel call that failed.
    #[must_use]
    pub fn failed_call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// The errno of that call.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.errno
    }

    /// What was found to be the cause, most likely first; empty where looking found nothing.
    #[must_use]
    pub fn causes(&self) -> &[Cause] {
        &self.0.causes
    }

    /// Every mistake of an invalid policy.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0.mistakes
    }

    /// What [`crate::Lowering::apply`] had done to the calling process before it failed, and cannot undo. Empty: nothing was
    /// changed.
    #[must_use]
    pub fn applied(&self) -> &[Step] {
        &self.0.applied
    }

    /// The namespace sets that were tried before this failure.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }
}

/// `EPERM (Operation not permitted)`.
pub(crate) fn errno_text(errno: i32) -> String {
    let known = Errno::from_raw(errno);
    if known == Errno::UnknownErrno {
        return format!("errno {errno}");
    }
    format!("{known:?} ({})", known.desc().to_lowercase())
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if !inner.mistakes.is_empty() {
            f.write_str("policy: ")?;
            for (index, mistake) in inner.mistakes.iter().enumerate() {
                write!(f, "{}{mistake}", if index == 0 { "" } else { "; " })?;
            }
            return Ok(());
        }
        write!(f, "{}", inner.step)?;
        if inner.object != Object::None {
            write!(f, " {}", inner.object)?;
        }
        if let Some(call) = inner.call {
            write!(f, ": {call}")?;
        }
        if let Some(errno) = inner.errno {
            write!(f, ": {}", errno_text(errno))?;
        }
        if let Some(detail) = &inner.detail {
            write!(f, ": {detail}")?;
        }
        for (index, step) in inner.applied.iter().enumerate() {
            let before = if index == 0 { "; applied before, for good: " } else { ", " };
            write!(f, "{before}{step}")?;
        }
        if f.alternate() {
            for attempt in &inner.attempts {
                if let Some(refused) = &attempt.refused {
                    write!(f, "\n  tried {}: {}", attempt.set, refused.text)?;
                }
            }
            for cause in &inner.causes {
                write!(f, "\n  cause: {}\n  remedy: {}", cause.evidence(), cause.remedy())?;
            }
        }
        Ok(())
    }
}

impl Debug for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}

impl StdError for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind =
            error.raw_os_error().map_or(io::ErrorKind::Other, |errno| Self::from_raw_os_error(errno).kind());
        Self::new(kind, error)
    }
}
