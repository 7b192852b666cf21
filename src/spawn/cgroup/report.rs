//! What became of each limit. It must not claim what the kernel did not show.

use std::fmt::{self, Display, Formatter};
use std::result::Result as StdResult;

use super::dir::Dir;
use super::protection::less_than_written;
use super::weight::Heed;
use crate::error::errno_text;
use crate::plan::{LimitRung, Strength};
use crate::policy::{GroupLimit, Need};

/// One limit of the tree, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitState {
    /// What was wanted.
    pub limit: GroupLimit,
    /// How much.
    pub need: Need,
    /// How it holds.
    pub strength: Strength,
    /// The rung that holds it.
    pub rung: Option<LimitRung>,
    /// The file and what it shows, or the call.
    pub by: Option<String>,
    /// Why it is less than hard, and why each rung before was passed over.
    pub reasons: Vec<String>,
}

impl LimitState {
    /// Nothing holds it yet.
    pub(super) fn wanted(limit: &GroupLimit, need: Need) -> Self {
        Self {
            limit: limit.clone(),
            need,
            strength: Strength::None,
            rung: None,
            by: None,
            reasons: Vec::new(),
        }
    }

    /// Its files took it. A weight that no device heeds is less than it says.
    pub(super) fn held(
        &mut self,
        (rung, strength): (LimitRung, Strength),
        by: Option<String>,
        caveat: Option<&str>,
    ) {
        let is_weight = matches!(self.limit, GroupLimit::IoWeight(_));
        let unheeded = is_weight.then(|| Heed::look(rung).reason()).flatten();
        let strength = if unheeded.is_some() { strength.min(Strength::Approximate) } else { strength };
        (self.strength, self.rung, self.by) = (strength, Some(rung), by);
        self.reasons.extend(caveat.into_iter().chain(unheeded).map(str::to_owned));
    }

    /// A protection that a group above bounds is less than it says.
    pub(super) fn bounded_above(&mut self, group: Option<&Dir>) {
        if let Some(why) = group.and_then(|dir| less_than_written(dir.path(), &self.limit)) {
            self.strength = self.strength.min(Strength::Approximate);
            self.reasons.push(why);
        }
    }

    /// The limit of the program's process was set, or refused.
    pub(super) fn bounded(&mut self, name: &str, value: u64, set: StdResult<(), i32>) {
        match set {
            Ok(()) => self.by = Some(format!("{name} = {value} of the program")),
            Err(errno) => {
                (self.strength, self.rung) = (Strength::None, None);
                self.reasons.push(format!("{name}: prlimit64: {}", errno_text(errno)));
            }
        }
    }
}

impl Display for LimitState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.limit, self.strength)?;
        if let Some(rung) = self.rung {
            write!(f, ", by {rung}")?;
        }
        if let Some(by) = &self.by {
            write!(f, ": {by}")?;
        }
        for reason in &self.reasons {
            write!(f, "; {reason}")?;
        }
        Ok(())
    }
}
