//! A filter: rules by call, first match wins, and a default. It must not know numbers' programs, nor what is attached.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::action::Action;
use super::call::{Architecture, X32_BIT, is_known};
use super::condition::Condition;
use super::told::Kills;
use crate::error::Mistake;

/// One rule: a call, what all has to hold of its arguments, and what is done then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) call: Cow<'static, str>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) action: Action,
}

/// Which `execve` the launch itself makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaunchCalls {
    /// It is a call like any other: the rules have to allow it.
    ByRule,
    /// The launch's own is let through, whatever the rules say, and no other.
    OwnOnly,
    /// The launch's own waits for the supervisor, which lets it through; the rules decide about every other.
    Notified,
}

/// Which system calls a program may make: typed rules by call, each with its own action, and an action for all the rest.
///
/// Of several rules for one call the first whose conditions all hold decides. Names are those of syscalls(2); a name that no
/// architecture knows is a mistake, one that only this architecture lacks is skipped. A call of a foreign architecture
/// (`int 0x80` on x86_64) always kills the process, and a number of the x32 ABI always answers `ENOSYS`: no rule opens them.
///
/// ```
/// use ringfence::{Action, Argument, Filter};
///
/// const TIOCSTI: u64 = 0x5412;
/// let filter = Filter::allow_list()
///     .allow(["read", "write", "exit_group", "execve", "execveat"])
///     .rule("ioctl", [Argument::int(1).equal(TIOCSTI)], Action::KillProcess)
///     .rule("ioctl", [], Action::Allow);
/// # let _ = filter;
/// ```
#[doc = include_str!("presets.md")]
#[doc = include_str!("calls.md")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    pub(crate) default: Action,
    pub(crate) rules: Vec<Rule>,
    pub(crate) launch: LaunchCalls,
    pub(crate) kills: Kills,
}

/// `ENOSYS`: the C library falls back to an older call, which it does not do on `EPERM`.
pub(super) const ENOSYS: i32 = 38;

impl Filter {
    /// Nothing but what rules allow: all other calls answer `ENOSYS`, as a kernel without them does, so that the C library
    /// falls back. [`Filter::otherwise`] chooses another answer.
    pub const fn allow_list() -> Self {
        Self {
            default: Action::Errno(ENOSYS),
            rules: Vec::new(),
            launch: LaunchCalls::ByRule,
            kills: Kills::Told,
        }
    }

    /// Everything but what rules refuse. A call that a later kernel brings is allowed too: prefer [`Filter::allow_list`].
    pub const fn deny_list() -> Self {
        Self { default: Action::Allow, rules: Vec::new(), launch: LaunchCalls::ByRule, kills: Kills::Told }
    }

    /// What is done with calls that no rule fits.
    pub fn otherwise(mut self, action: Action) -> Self {
        self.default = action;
        self
    }

    /// Allows these calls.
    pub fn allow<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.deny(names, Action::Allow)
    }

    /// Answers these calls with `action`.
    pub fn deny<N: Into<Cow<'static, str>>>(
        self,
        names: impl IntoIterator<Item = N>,
        action: Action,
    ) -> Self {
        names.into_iter().fold(self, |filter, name| filter.rule(name, [], action))
    }

    /// Answers a call with `action` if every one of `conditions` holds; none means always. It stands behind the rules that
    /// the call has already, and for "one or the other" a call gets two rules.
    pub fn rule(
        mut self,
        name: impl Into<Cow<'static, str>>,
        conditions: impl IntoIterator<Item = Condition>,
        action: Action,
    ) -> Self {
        let conditions = conditions.into_iter().collect();
        self.rules.push(Rule { call: name.into(), conditions, action });
        self
    }

    /// Drops every rule of these calls, so that new ones can be given; until then the default decides.
    pub fn forget<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        for name in names {
            self.rules.retain(|rule| rule.call != name.as_ref());
        }
        self
    }

    /// Only the `execve` or `execveat` of the launch itself is let through, by a secret that the program never sees; the
    /// rules decide about every other one. For programs that execute nothing.
    pub fn launch_only(mut self) -> Self {
        self.launch = LaunchCalls::OwnOnly;
        self
    }

    /// Both filters have to agree: for each call and its arguments the **stricter** answer wins, as if both were attached
    /// (kill process, kill thread, trap, errno, notify, log, allow). Of two errnos the one of `self` stays.
    pub fn narrow(self, other: &Self) -> Self {
        self.combine(other, Action::stricter)
    }

    /// Either filter is enough: for each call and its arguments the **looser** answer wins. Of two errnos the one of `self`
    /// stays.
    pub fn extend(self, other: &Self) -> Self {
        self.combine(other, Action::looser)
    }

    fn combine(self, other: &Self, pick: fn(Action, Action) -> Action) -> Self {
        let mut launch = self.launch;
        if other.launch == LaunchCalls::OwnOnly {
            launch = LaunchCalls::OwnOnly;
        }
        let kills = if other.kills == Kills::ByKernel { other.kills } else { self.kills };
        let mut out = Self { default: pick(self.default, other.default), rules: Vec::new(), launch, kills };
        let mut seen = Vec::new();
        for rule in self.rules.iter().chain(&other.rules) {
            if !seen.contains(&&rule.call) {
                seen.push(&rule.call);
                out.combine_call(&rule.call, [&self, other], pick);
            }
        }
        out
    }

    /// Each pair of a rule of one and a rule of the other, in the order of both: the first pair that fits is the pair of the
    /// first that fit.
    fn combine_call(&mut self, call: &str, of: [&Self; 2], pick: fn(Action, Action) -> Action) {
        let begin = self.rules.len();
        for (first, a) in of[0].answers(call) {
            for (second, b) in of[1].answers(call) {
                let mut conditions = first.to_vec();
                conditions.extend(second.iter().filter(|condition| !first.contains(condition)));
                let rule = Rule { call: Cow::Owned(call.to_owned()), conditions, action: pick(a, b) };
                if !self.rules[begin..].iter().any(|earlier| earlier.covers(&rule)) {
                    self.rules.push(rule);
                }
            }
        }
        while self.rules.len() > begin
            && self.rules.last().is_some_and(|r| r.conditions.is_empty() && r.action == self.default)
        {
            self.rules.pop();
        }
    }

    /// The rules of a call in order, the default last.
    pub(crate) fn answers<'a>(&'a self, call: &'a str) -> impl Iterator<Item = (&'a [Condition], Action)> {
        let rules = self.rules.iter().filter(move |rule| rule.call == call);
        rules.map(|rule| (rule.conditions.as_slice(), rule.action)).chain([(&[] as &[_], self.default)])
    }

    /// What the rules say to a call: the meaning of the filter, which the attached program is held against.
    #[must_use]
    pub fn answer(&self, on: Architecture, audit: u32, number: u32, args: &[u64; 6]) -> Action {
        if audit != on.audit() {
            return Action::KillProcess;
        }
        if on == Architecture::X86_64 && number >= X32_BIT {
            return Action::Errno(ENOSYS);
        }
        let name = on.name(number).unwrap_or_default();
        let mut answers = self.answers(name);
        let fits = |conditions: &[Condition]| conditions.iter().all(|condition| condition.holds(args));
        answers.find(|(conditions, _)| fits(conditions)).map_or(self.default, |(_, action)| action)
    }

    /// Whether the rules let every `call` through.
    pub(crate) fn lets_through(&self, call: &str) -> bool {
        for (conditions, action) in self.answers(call) {
            if !action.makes_call() || conditions.is_empty() {
                return action.makes_call();
            }
        }
        true
    }

    /// Everything that is wrong with it.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut by_call: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
        if !self.default.is_valid() {
            mistakes.push(Mistake::BadErrno { call: "the default".into(), action: self.default.to_string() });
        }
        for rule in &self.rules {
            let call = || rule.call.to_string();
            let earlier = by_call.entry(&rule.call).or_default();
            if earlier.is_empty() && !is_known(&rule.call) {
                mistakes.push(Mistake::UnknownCall { name: call() });
            }
            if !rule.action.is_valid() {
                mistakes.push(Mistake::BadErrno { call: call(), action: rule.action.to_string() });
            }
            for condition in &rule.conditions {
                if let Some(why) = condition.fault() {
                    mistakes.push(Mistake::BadCondition {
                        call: call(),
                        condition: condition.to_string(),
                        why,
                    });
                }
            }
            if let Some(before) = earlier.iter().find(|before| before.covers(rule)) {
                mistakes
                    .push(Mistake::RuleNeverReached { rule: rule.to_string(), before: before.to_string() });
            }
            earlier.push(rule);
        }
        // A supervisor lets the launch's own through.
        let supervised = self.answers("execve").next().is_some_and(|(_, action)| action == Action::Notify);
        if self.launch == LaunchCalls::ByRule && !supervised && !self.lets_through("execve") {
            mistakes.push(Mistake::FilterForbidsLaunch);
        }
        // Where execve fails the child has to end, and a filter that is attached stays.
        let ends = |action: Action| {
            action.makes_call() || matches!(action, Action::KillProcess | Action::KillThread)
        };
        if !self.answers("exit_group").all(|(_, action)| ends(action)) && !self.lets_through("exit_group") {
            mistakes.push(Mistake::FilterForbidsEnd);
        }
        mistakes
    }
}

impl Rule {
    /// Whether whatever fits `later` fits this one already.
    fn covers(&self, later: &Self) -> bool {
        self.conditions.iter().all(|condition| later.conditions.contains(condition))
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if index == 0 { " if " } else { " and " })?;
        }
        write!(f, ": {}", self.action)
    }
}
