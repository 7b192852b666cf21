//! seccompiler as the front end: it compiles the conditions of a rule, with what is delicate in comparing 64 bits by halves.
//! Its dispatch over call numbers is not used: it is a chain, knows two actions, and lets x32 numbers by.

use std::collections::BTreeMap;
use std::result::Result as StdResult;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{ARGS_AT, Instruction, emit};
use crate::policy::{Condition, Test, Width};

/// What stands behind seccompiler's own dispatch for one rule: it ends by allowing where all conditions hold, and by
/// something else where one does not.
pub(super) fn fragment(conditions: &[Condition]) -> StdResult<Vec<Instruction>, Error> {
    let list = conditions.iter().map(lower).collect::<StdResult<Vec<_>, _>>()?.concat();
    let rules = BTreeMap::from([(0, vec![SeccompRule::new(list)?])]);
    // The conditions do not depend on the architecture; all that are supported are little-endian.
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    let instructions = program.iter().map(|filter| Instruction {
        code: filter.code,
        jt: filter.jt,
        jf: filter.jf,
        k: filter.k,
    });
    // Before the first load of an argument there is only the dispatch, and the jumps into the rule.
    Ok(instructions.skip_while(|one| !(one.code == emit::LOAD && one.k >= ARGS_AT)).collect())
}

/// Masks and values are within their width, and no bit of a value is outside its mask: the policy's check has seen to it.
pub(super) fn lower(condition: &Condition) -> StdResult<Vec<SeccompCondition>, Error> {
    let width = || match condition.width {
        Width::Bits32 => SeccompCmpArgLen::Dword,
        Width::Bits64 => SeccompCmpArgLen::Qword,
    };
    let one = |op, value| SeccompCondition::new(condition.argument, width(), op, value);
    Ok(match condition.test {
        Test::Equal(value) => vec![one(SeccompCmpOp::Eq, value)?],
        Test::NotEqual(value) => vec![one(SeccompCmpOp::Ne, value)?],
        Test::MaskedEqual { mask, value } => vec![one(SeccompCmpOp::MaskedEq(mask), value)?],
        Test::Less(value) => vec![one(SeccompCmpOp::Lt, value)?],
        Test::LessEqual(value) => vec![one(SeccompCmpOp::Le, value)?],
        Test::Greater(value) => vec![one(SeccompCmpOp::Gt, value)?],
        Test::GreaterEqual(value) => vec![one(SeccompCmpOp::Ge, value)?],
        Test::Inside { from, to } => vec![one(SeccompCmpOp::Ge, from)?, one(SeccompCmpOp::Le, to)?],
    })
}
