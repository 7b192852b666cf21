//! A filter as bytes describe it, and the two ways to say it: ringfence's and seccompiler's. It must not judge answers.

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use ringfence::{Action, Architecture, Argument, Condition, Filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::bpf::Instruction;

pub(crate) const ON: Architecture = if cfg!(target_arch = "x86_64") {
    Architecture::X86_64
} else if cfg!(target_arch = "aarch64") {
    Architecture::Aarch64
} else {
    Architecture::Riscv64
};

#[derive(Debug)]
enum Kind {
    Equal,
    NotEqual,
    Masked(u64),
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Inside(u64),
}

/// One condition.
#[derive(Debug)]
struct One {
    index: u8,
    long: bool,
    kind: Kind,
    value: u64,
}

#[derive(Debug)]
struct Rule {
    call: &'static str,
    conditions: Vec<One>,
    action: Action,
}

#[derive(Debug)]
pub(crate) struct Spec {
    base: Base,
    otherwise: Option<Action>,
    rules: Vec<Rule>,
    pub(crate) launch_only: bool,
}

#[derive(Debug, Clone, Copy)]
enum Base {
    Allow,
    Deny,
    Baseline,
    NoNetwork,
    Worker,
    WorkerDynamic,
    Strict,
}

fn action(input: &mut Unstructured<'_>) -> Result<Action> {
    Ok(match input.int_in_range(0..=9)? {
        0..=2 => Action::Allow,
        3 => Action::Errno(input.int_in_range(0..=4095)?),
        4 => Action::Errno(38),
        5 => Action::KillProcess,
        6 => Action::KillThread,
        7 => Action::Log,
        8 => Action::Trap,
        _ => Action::Notify,
    })
}

impl One {
    fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        let long: bool = input.arbitrary()?;
        let width = if long { u64::MAX } else { u64::from(u32::MAX) };
        let values = [0, 1, 0x5412, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, 0x1_0000_0001, 1 << 63, u64::MAX];
        let value = |input: &mut Unstructured<'_>| -> Result<u64> {
            let value = if input.ratio(3, 4)? { *input.choose(&values)? } else { input.arbitrary()? };
            Ok(value & width)
        };
        let (first, second) = (value(input)?, value(input)?);
        let (kind, value) = match input.int_in_range(0..=7)? {
            0 => (Kind::Equal, first),
            1 => (Kind::NotEqual, first),
            2 => (Kind::Masked(second), first & second),
            3 => (Kind::Less, first),
            4 => (Kind::LessEqual, first),
            5 => (Kind::Greater, first),
            6 => (Kind::GreaterEqual, first),
            _ => (Kind::Inside(first.max(second)), first.min(second)),
        };
        Ok(Self { index: input.int_in_range(0..=5)?, long, kind, value })
    }

    fn condition(&self) -> Condition {
        let argument = if self.long { Argument::long(self.index) } else { Argument::int(self.index) };
        match self.kind {
            Kind::Equal => argument.equal(self.value),
            Kind::NotEqual => argument.not_equal(self.value),
            Kind::Masked(mask) => argument.masked_equal(mask, self.value),
            Kind::Less => argument.less(self.value),
            Kind::LessEqual => argument.less_equal(self.value),
            Kind::Greater => argument.greater(self.value),
            Kind::GreaterEqual => argument.greater_equal(self.value),
            Kind::Inside(to) => argument.inside(self.value..=to),
        }
    }

    fn theirs(&self) -> Vec<SeccompCondition> {
        let one = |operator, value| {
            let width = if self.long { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
            SeccompCondition::new(self.index, width, operator, value).expect("an argument from 0 to 5")
        };
        let only = |operator| vec![one(operator, self.value)];
        match self.kind {
            Kind::Equal => only(SeccompCmpOp::Eq),
            Kind::NotEqual => only(SeccompCmpOp::Ne),
            Kind::Masked(mask) => only(SeccompCmpOp::MaskedEq(mask)),
            Kind::Less => only(SeccompCmpOp::Lt),
            Kind::LessEqual => only(SeccompCmpOp::Le),
            Kind::Greater => only(SeccompCmpOp::Gt),
            Kind::GreaterEqual => only(SeccompCmpOp::Ge),
            Kind::Inside(to) => vec![one(SeccompCmpOp::Ge, self.value), one(SeccompCmpOp::Le, to)],
        }
    }
}

impl Spec {
    pub(crate) fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        let base = match input.int_in_range(0..=15)? {
            0 => Base::Baseline,
            1 => Base::NoNetwork,
            2 => Base::Worker,
            3 => Base::WorkerDynamic,
            4 => Base::Strict,
            5..=7 => Base::Deny,
            _ => Base::Allow,
        };
        let otherwise = if input.arbitrary()? { Some(action(input)?) } else { None };
        // A few calls with several rules each tell more than many with one.
        let names: Vec<&'static str> = ON.calls().map(|(name, _)| name).collect();
        let few: Vec<&'static str> =
            (0..input.int_in_range(1..=6)?).map(|_| input.choose(&names).copied()).collect::<Result<_>>()?;
        let often = ["execve", "execveat", "ioctl", "read", "socketcall", "riscv_hwprobe"];
        let same = if input.arbitrary()? { Some(action(input)?) } else { None };
        let mut rules = Vec::new();
        for _ in 0..input.int_in_range(0..=12)? {
            let call = if input.ratio(1, 4)? { input.choose(&often)? } else { input.choose(&few)? };
            let count = input.int_in_range(0..=3)?;
            let conditions = (0..count).map(|_| One::read(input)).collect::<Result<_>>()?;
            rules.push(Rule { call, conditions, action: same.map_or_else(|| action(input), Ok)? });
        }
        Ok(Self { base, otherwise, rules, launch_only: input.ratio(1, 4)? || base.is_launch_only() })
    }

    pub(crate) fn filter(&self) -> Filter {
        let mut filter = match self.base {
            Base::Allow => Filter::allow_list(),
            Base::Deny => Filter::deny_list(),
            Base::Baseline => Filter::baseline(),
            Base::NoNetwork => Filter::no_network(),
            Base::Worker => Filter::worker(),
            Base::WorkerDynamic => Filter::worker_dynamic(),
            Base::Strict => Filter::strict(),
        };
        if !matches!(self.base, Base::Allow | Base::Deny) {
            // Else the preset's own rules decide first, and these are never reached.
            filter = filter.forget(self.rules.iter().map(|rule| rule.call));
        }
        for rule in &self.rules {
            filter = filter.rule(rule.call, rule.conditions.iter().map(One::condition), rule.action);
        }
        if let Some(action) = self.otherwise {
            filter = filter.otherwise(action);
        }
        if self.launch_only { filter.launch_only() } else { filter }
    }

    /// The numbers of its calls.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.rules.iter().filter_map(|rule| ON.number(rule.call))
    }

    /// What its conditions compare to.
    pub(crate) fn constants(&self) -> Vec<u64> {
        let conditions = self.rules.iter().flat_map(|rule| &rule.conditions);
        conditions
            .flat_map(|one| match one.kind {
                Kind::Masked(other) | Kind::Inside(other) => vec![one.value, other],
                _ => vec![one.value],
            })
            .collect()
    }

    /// The same as seccompiler's own program; `None` where it cannot say it: it knows two actions, not all of them, and a
    /// call has either conditions or none.
    pub(crate) fn seccompiler(&self) -> Option<Vec<Instruction>> {
        let default = match self.base {
            Base::Allow => Action::Errno(38),
            Base::Deny => Action::Allow,
            _ => return None,
        };
        let default = their_action(self.otherwise.unwrap_or(default))?;
        let fits = their_action(self.rules.first()?.action)?;
        if fits == default || self.rules.iter().any(|rule| their_action(rule.action).as_ref() != Some(&fits)) {
            return None;
        }
        let always: BTreeSet<&str> =
            self.rules.iter().filter(|rule| rule.conditions.is_empty()).map(|rule| rule.call).collect();
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for rule in &self.rules {
            let Some(number) = ON.number(rule.call) else { continue };
            let chain = rules.entry(i64::from(number)).or_default();
            if !always.contains(rule.call) {
                let conditions = rule.conditions.iter().flat_map(One::theirs).collect();
                chain.push(SeccompRule::new(conditions).ok()?);
            }
        }
        let target = std::env::consts::ARCH.try_into().ok()?;
        let program: BpfProgram = SeccompFilter::new(rules, default, fits, target).ok()?.try_into().ok()?;
        Some(program.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect())
    }
}

impl Base {
    fn is_launch_only(self) -> bool {
        matches!(self, Self::Worker | Self::WorkerDynamic | Self::Strict)
    }
}

fn their_action(action: Action) -> Option<SeccompAction> {
    Some(match action {
        Action::Allow => SeccompAction::Allow,
        Action::Errno(errno) => SeccompAction::Errno(errno.unsigned_abs()),
        Action::KillProcess => SeccompAction::KillProcess,
        Action::KillThread => SeccompAction::KillThread,
        Action::Log => SeccompAction::Log,
        Action::Trap => SeccompAction::Trap,
        _ => return None,
    })
}
