//! Puts a program into the plan's data and attaches it: to the program as the last thing before execve, to init when it has
//! nothing left to set up. It must not know what the program says.

use super::super::asm::{Assembler, Call, Cell, Operand, num, sym};
use super::super::context::{Context, u64_of};
use super::{Program, compile};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::Features;
use crate::machine::layout::{LISTENER, SECRET, SECRET_HIGH, SECRET_LOW, SUPERVISED};
use crate::machine::segment::{Address, Arg};
use crate::policy::{Action, Filter, NewPrivileges};

const SECCOMP_SET_MODE_FILTER: u64 = 1;
const NEW_LISTENER: u64 = 1 << 3;
const WAIT_KILLABLE: u64 = 1 << 5;

/// A program that lies in the plan's data.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    /// `struct sock_fprog`.
    fprog: Operand,
    /// Instructions that take a half of the launch's secret: where they lie, their word without it, and which half.
    secrets: Vec<(Address, u64, Cell)>,
    instructions: usize,
}

/// A filter that lies in the plan's data, once or twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attach {
    /// With a listener, and the operand of its flags.
    listening: Option<(Placed, Operand)>,
    /// Without one: all that it notifies of the kernel decides.
    plain: Option<Placed>,
    /// Why no listener is asked for, although kills were to be told.
    pub(crate) untold: Option<&'static str>,
}

/// Compiles the policy's filter into the plan's data.
pub(crate) fn lower(context: &mut Context<'_>) -> Result<Option<Attach>> {
    let Some(filter) = &context.policy.seccomp else { return Ok(None) };
    let plain = if filter.notifies() { None } else { Some(compile(filter)?) };
    let missing = wants(filter).then(|| lacks(context)).flatten();
    if let (Some(what), None) = (missing, &plain) {
        let error = Error::new(ErrorKind::Unsupported, Step::Seccomp, "supervisor");
        return Err(error.detail(format!("rules that notify need {what}, which this host does not offer")));
    }
    let listening = if wants(filter) && missing.is_none() {
        let program = compile(&filter.listening())?;
        let killable = context.has(Features::SECCOMP_WAIT_KILLABLE);
        let flags = if killable {
            sym(NEW_LISTENER | WAIT_KILLABLE, "NEW_LISTENER|WAIT_KILLABLE_RECV")
        } else {
            sym(NEW_LISTENER, "NEW_LISTENER")
        };
        Some((place(&mut context.asm, &program), flags))
    } else {
        None
    };
    let plain = plain.map(|program| place(&mut context.asm, &program));
    Ok(Some(Attach { listening, plain, untold: missing }))
}

fn wants(filter: &Filter) -> bool {
    filter.notifies() || filter.tells()
}

/// What a supervisor needs of the host and the host lacks.
fn lacks(context: &Context<'_>) -> Option<&'static str> {
    [
        (Features::SECCOMP_LISTENER, "SECCOMP_FILTER_FLAG_NEW_LISTENER (Linux 5.0)"),
        (Features::PIDFD_GETFD, "pidfd_getfd(2) (Linux 5.6)"),
    ]
    .into_iter()
    .find_map(|(feature, name)| (!context.has(feature)).then_some(name))
}

/// The caller takes the listener over by pidfd_getfd(2), which asks for a process that may be traced. An init has seen to
/// it; what is its own first process may have lost it by a change of ids (PR_SET_DUMPABLE(2const)). An exec restores it.
pub(crate) fn make_fetchable(context: &mut Context<'_>) {
    let wanted = context.policy.seccomp.as_ref().is_some_and(wants);
    if wanted && !context.forks() && lacks(context).is_none() {
        context.asm.step(Step::Seccomp, "supervisor");
        let option = sym(u64_of(libc::PR_SET_DUMPABLE), "PR_SET_DUMPABLE");
        context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(num(1)));
    }
}

fn place(asm: &mut Assembler, program: &Program) -> Placed {
    let words: Vec<u64> = program.code.iter().map(|instruction| instruction.word()).collect();
    let length = words.len();
    let code = asm.words(&words, format!("{{{length} instructions}}"));
    let Arg::Pointer(first) = code.arg else {
        return Placed { fprog: code, secrets: Vec::new(), instructions: length };
    };
    let count = Arg::Value(u64::try_from(length).unwrap_or(0));
    let fprog = asm.table(&[count, code.arg], code.text);
    let halves = [Cell::brief(SECRET_LOW, "secret_low"), Cell::brief(SECRET_HIGH, "secret_high")];
    let mut secrets = Vec::new();
    for pair in &program.secrets {
        for (index, half) in pair.iter().zip(halves) {
            let at = first.plus(u32::try_from(8 * index).unwrap_or(0));
            let bare = words.get(*index).copied().unwrap_or(0) & 0xffff_ffff;
            secrets.push((at, bare, half));
        }
    }
    Placed { fprog, secrets, instructions: length }
}

impl Attach {
    /// The argument by which the filter, or the supervisor, knows the launch's own execve.
    pub(crate) fn secret(&self) -> Option<Operand> {
        let looked_for = |placed: &Placed| !placed.secrets.is_empty();
        let known = self.listening.is_some() || self.plain.as_ref().is_some_and(looked_for);
        known.then(|| Cell::brief(SECRET, "secret").word())
    }

    /// Whether a listener is asked for.
    pub(crate) fn listens(&self) -> bool {
        self.listening.is_some()
    }

    /// Whether the filter can do without a listener.
    pub(crate) fn does_without(&self) -> bool {
        self.plain.is_some()
    }

    /// The length of the program that is attached with a listener, or without.
    pub(crate) fn instructions(&self, listener: Listener) -> usize {
        let listening = self.listening.as_ref().map(|(placed, _)| placed);
        let (first, second) = match listener {
            Listener::Had => (listening, self.plain.as_ref()),
            Listener::None => (self.plain.as_ref(), listening),
        };
        first.or(second).map_or(0, |placed| placed.instructions)
    }
}

/// Whether a filter has its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Had,
    None,
}

/// The launch's secret goes into the program; then `seccomp(SECCOMP_SET_MODE_FILTER, flags, &fprog)`.
fn attach_one(asm: &mut Assembler, placed: &Placed, flags: Operand) -> Call {
    for (address, bare, half) in &placed.secrets {
        let cell = Cell { address: *address, name: "filter" };
        asm.set(cell, &sym(*bare, "jeq"), &half.word());
    }
    let operation = sym(SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER");
    Call::new(libc::SYS_seccomp, "seccomp").arg(operation).arg(flags).arg(placed.fprog.clone())
}

/// Attaches the filter, with a listener where the caller will supervise. What a listener was wanted for only to tell is
/// attached without one where none can be had: then the kernel kills, which is no less.
pub(crate) fn attach(asm: &mut Assembler, attach: &Attach) {
    asm.step(Step::Seccomp, "filter");
    let (without, done) = (asm.label(), asm.label());
    if let Some((placed, flags)) = &attach.listening {
        if attach.plain.is_some() {
            let supervised = Cell::brief(SUPERVISED, "supervised").word();
            asm.if_equal(&supervised, u64::MAX, num(0), without);
        }
        let call = attach_one(asm, placed, flags.clone()).into(Cell::brief(LISTENER, "listener"));
        asm.call(if attach.plain.is_some() { call.otherwise(without) } else { call });
    }
    if let Some(placed) = &attach.plain {
        if attach.listening.is_some() {
            asm.goto(done);
        }
        asm.bind(without);
        let call = attach_one(asm, placed, num(0));
        asm.call(call);
    }
    asm.bind(done);
}

/// The calls of init's loop, and no other. Init never executes anything, so `no_new_privs` costs it nothing where the
/// program does without.
pub(crate) fn attach_to_init(context: &mut Context<'_>) -> Result<()> {
    if context.policy.seccomp.is_none() {
        return Ok(());
    }
    let filter = Filter::allow_list()
        .allow(["ppoll", "read", "kill", "wait4", "exit_group", "rt_sigreturn"])
        .otherwise(Action::KillProcess);
    let program = compile(&filter)?;
    context.asm.step(Step::Init, "filter");
    if context.policy.hardening.no_new_privs == NewPrivileges::Allowed {
        let option = sym(u64_of(libc::PR_SET_NO_NEW_PRIVS), "PR_SET_NO_NEW_PRIVS");
        let call = Call::new(libc::SYS_prctl, "prctl").arg(option).arg(num(1)).arg(num(0));
        context.asm.call(call.arg(num(0)).arg(num(0)));
    }
    let placed = place(&mut context.asm, &program);
    let call = attach_one(&mut context.asm, &placed, num(0));
    context.asm.call(call);
    Ok(())
}
