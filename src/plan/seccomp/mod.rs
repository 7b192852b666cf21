//! From a filter to the program that is attached: the arch check, the x32 guard, a balanced tree over call numbers, and
//! behind each leaf what seccompiler made of its conditions. It must not decide what is allowed.

mod attach;
mod early;
mod emit;
mod front;
#[cfg(test)]
mod tests;

pub(crate) use attach::{Attach, Listener, attach, attach_to_init, lower, make_fetchable};
#[cfg(test)]
pub(super) use early::LEFT;
pub(crate) use early::attach_to_waiting;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use self::emit::{Emitter, Label};
use crate::error::{Error, Mistake, Result};
use crate::policy::{Action, Architecture, Filter, LaunchCalls, X32_BIT};

/// `BPF_MAXINSNS` (linux/bpf_common.h).
const MOST: usize = 4096;
/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGS_AT: u32 = 16;
/// The argument that neither execve nor execveat takes: the launch's own calls carry the secret there.
pub(crate) const SECRET_ARGUMENT: u32 = 5;
/// What the secret's two halves are held against until a launch writes its own.
const UNSET: u32 = u32::MAX;

/// One instruction, `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

impl Instruction {
    /// Its eight bytes as a little-endian word.
    pub(crate) fn word(self) -> u64 {
        let low = u64::from(self.code) | u64::from(self.jt) << 16 | u64::from(self.jf) << 24;
        low | u64::from(self.k) << 32
    }
}

/// What is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) on: Architecture,
    pub(crate) code: Vec<Instruction>,
    /// Instructions that compare the low and the high half of the launch's secret.
    pub(crate) secrets: Vec<[usize; 2]>,
}

/// The architecture that this program was built for.
pub(crate) const NATIVE: Architecture = if cfg!(target_arch = "x86_64") {
    Architecture::X86_64
} else if cfg!(target_arch = "aarch64") {
    Architecture::Aarch64
} else {
    Architecture::Riscv64
};

/// The program of `filter` for the architecture that this was built for.
pub(crate) fn compile(filter: &Filter) -> Result<Program> {
    compile_for(filter, NATIVE)
}

/// The same as plain tuples, for benches and fuzzing.
pub(crate) fn compile_filter(filter: &Filter) -> Result<Vec<(u16, u8, u8, u32)>> {
    let program = compile(filter)?;
    Ok(program.code.into_iter().map(|Instruction { code, jt, jf, k }| (code, jt, jf, k)).collect())
}

/// The program of `filter` for an architecture.
pub(crate) fn compile_for(filter: &Filter, on: Architecture) -> Result<Program> {
    let mut emitter = Emitter::default();
    let leaves = leaves(filter, on);
    let mut secrets = Vec::new();
    let mut entry = tree(&mut emitter, filter, &leaves, &mut secrets)?;
    if on == Architecture::X86_64 {
        let refused = emitter.ret(Action::Errno(libc::ENOSYS).code());
        entry = emitter.jump(emit::JGE, X32_BIT, refused, entry);
    }
    entry = emitter.load(NUMBER_AT, entry);
    let foreign = emitter.ret(Action::KillProcess.code());
    entry = emitter.jump(emit::JEQ, on.audit(), entry, foreign);
    emitter.load(ARCH_AT, entry);
    let code = emitter.finish();
    if code.len() > MOST {
        return Err(too_long(code.len()));
    }
    let index = |label: Label| code.len() - label;
    let secrets = secrets.into_iter().map(|[low, high]| [index(low), index(high)]).collect();
    Ok(Program { on, code, secrets })
}

fn too_long(instructions: usize) -> Error {
    Error::invalid_policy(vec![Mistake::FilterTooLong { instructions, most: MOST }])
}

/// What stands behind a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    /// The same answer, whatever the arguments.
    Answer(Action),
    /// The rules of this call.
    Call(&'static str),
}

/// Ranges of numbers with the same answer, each by its first number; the first begins at 0, the last has no end.
fn leaves(filter: &Filter, on: Architecture) -> Vec<(u32, Leaf)> {
    let by_number: BTreeMap<u32, &'static str> = on.calls().map(|(name, number)| (number, name)).collect();
    let end = by_number.keys().next_back().map_or(0, |last| last + 1);
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    for number in 0..=end {
        let leaf = by_number.get(&number).map_or(Leaf::Answer(filter.default), |call| leaf(filter, call));
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((number, leaf));
        }
    }
    ranges
}

fn leaf(filter: &Filter, call: &'static str) -> Leaf {
    let own = own_launch_answer(filter, call);
    match filter.answers(call).next() {
        Some(([], action))
            if own.is_none_or(|own| own == action || own.makes_call() && action.makes_call()) =>
        {
            Leaf::Answer(action)
        }
        _ => Leaf::Call(call),
    }
}

/// What the launch's own call is answered, where the rules do not decide about it.
fn own_launch_answer(filter: &Filter, call: &str) -> Option<Action> {
    matches!(call, "execve" | "execveat").then_some(())?;
    match filter.launch {
        LaunchCalls::ByRule => None,
        LaunchCalls::OwnOnly => Some(Action::Allow),
        LaunchCalls::Notified => Some(Action::Notify),
    }
}

type Secrets = Vec<[Label; 2]>;

/// Halves the ranges until one is left.
fn tree(
    emitter: &mut Emitter,
    filter: &Filter,
    ranges: &[(u32, Leaf)],
    secrets: &mut Secrets,
) -> Result<Label> {
    if let [(_, leaf)] = ranges {
        return match leaf {
            Leaf::Answer(action) => Ok(emitter.ret(action.code())),
            Leaf::Call(call) => rules(emitter, filter, call, secrets),
        };
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let first = right.first().map_or(0, |(number, _)| *number);
    let right = tree(emitter, filter, right, secrets)?;
    let left = tree(emitter, filter, left, secrets)?;
    Ok(emitter.jump(emit::JGE, first, right, left))
}

/// The rules of one call, the last first: each goes on to the one behind it.
fn rules(emitter: &mut Emitter, filter: &Filter, call: &str, secrets: &mut Secrets) -> Result<Label> {
    let list: Vec<_> = filter.answers(call).collect();
    let mut next = emitter.ret(filter.default.code());
    for (conditions, action) in list.into_iter().rev() {
        let fits = emitter.ret(action.code());
        next = if conditions.is_empty() {
            fits
        } else {
            let fragment = front::fragment(conditions).map_err(|_| too_long(MOST + 1))?;
            splice(emitter, &fragment, fits, next)
        };
    }
    if let Some(answer) = own_launch_answer(filter, call) {
        next = own_launch(emitter, (answer, next), secrets);
    }
    Ok(next)
}

/// The launch's own call has an answer of its own: it carries the secret. All others go on to `other`.
fn own_launch(emitter: &mut Emitter, (answer, other): (Action, Label), secrets: &mut Secrets) -> Label {
    let at = ARGS_AT + 8 * SECRET_ARGUMENT;
    let fits = emitter.ret(answer.code());
    let high = emitter.jump(emit::JEQ, UNSET, fits, other);
    let load = emitter.load(at + 4, high);
    let low = emitter.jump(emit::JEQ, UNSET, load, other);
    secrets.push([low, high]);
    emitter.load(at, low)
}

/// A rule as seccompiler compiled it, with our own two ends.
fn splice(emitter: &mut Emitter, fragment: &[Instruction], fits: Label, fails: Label) -> Label {
    let mut labels = vec![fails; fragment.len() + 1];
    for (index, instruction) in fragment.iter().enumerate().rev() {
        let behind = |skip: usize| labels.get(index + 1 + skip).copied().unwrap_or(fails);
        let Instruction { code, jt, jf, k } = *instruction;
        labels[index] = match code {
            emit::RET if k == Action::Allow.code() => fits,
            emit::RET => fails,
            emit::JA => behind(usize::try_from(k).unwrap_or(usize::MAX)),
            emit::JEQ | emit::JGT | emit::JGE => {
                emitter.jump(code, k, behind(usize::from(jt)), behind(usize::from(jf)))
            }
            _ => emitter.step(code, k, behind(0)),
        };
    }
    labels[0]
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut on_number = false;
        for (index, Instruction { code, jt, jf, k }) in self.code.iter().enumerate() {
            let to = |skip: u32| index + 1 + usize::try_from(skip).unwrap_or(0);
            let (yes, no) = (to(u32::from(*jt)), to(u32::from(*jf)));
            write!(f, "{index:>5}  ")?;
            match *code {
                emit::LOAD => {
                    on_number = *k == NUMBER_AT;
                    match *k {
                        NUMBER_AT => writeln!(f, "load number")?,
                        ARCH_AT => writeln!(f, "load architecture")?,
                        _ => {
                            let half = if k % 8 == 0 { "low" } else { "high" };
                            writeln!(f, "load {half} half of argument {}", (k - ARGS_AT) / 8)?;
                        }
                    }
                }
                emit::AND => writeln!(f, "and {k:#x}")?,
                emit::JA => writeln!(f, "goto {}", to(*k))?,
                emit::RET => writeln!(f, "return {}", action_text(*k))?,
                _ => {
                    let sign = match *code {
                        emit::JEQ => "==",
                        emit::JGT => ">",
                        _ => ">=",
                    };
                    let name = if on_number { self.on.name(*k).unwrap_or_default() } else { "" };
                    writeln!(f, "if {sign} {k:#x} {name} -> {yes} else -> {no}")?;
                }
            }
        }
        Ok(())
    }
}

fn action_text(code: u32) -> String {
    let errno = Action::Errno(i32::try_from(code & 0xffff).unwrap_or(0));
    let known = [
        Action::Allow,
        Action::KillProcess,
        Action::KillThread,
        Action::Log,
        Action::Trap,
        Action::Notify,
        errno,
    ];
    known
        .into_iter()
        .find(|action| action.code() == code)
        .map_or_else(|| format!("{code:#x}"), |action| action.to_string())
}
