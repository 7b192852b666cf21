//! Puts a program into the plan's data and attaches it: to the program as the last thing before execve, to init when it has
//! nothing left to set up. It must not know what the program says.

use super::super::asm::{Assembler, Call, Cell, Operand, num, sym};
use super::super::context::{Context, u64_of};
use super::{Program, compile};
use crate::error::{Result, Step};
use crate::machine::layout::{SECRET, SECRET_HIGH, SECRET_LOW};
use crate::machine::segment::{Address, Arg};
use crate::policy::{Action, Filter, NewPrivileges};

const SECCOMP_SET_MODE_FILTER: u64 = 1;

/// A filter that lies in the plan's data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attach {
    /// `struct sock_fprog`.
    fprog: Operand,
    /// Instructions that take a half of the launch's secret: where they lie, their word without it, and which half.
    secrets: Vec<(Address, u64, Cell)>,
    pub(crate) instructions: usize,
}

/// Compiles the policy's filter into the plan's data.
pub(crate) fn lower(context: &mut Context<'_>) -> Result<Option<Attach>> {
    let Some(filter) = &context.policy.seccomp else { return Ok(None) };
    let program = compile(filter)?;
    Ok(Some(place(&mut context.asm, &program)))
}

fn place(asm: &mut Assembler, program: &Program) -> Attach {
    let words: Vec<u64> = program.code.iter().map(|instruction| instruction.word()).collect();
    let length = words.len();
    let code = asm.words(&words, format!("{{{length} instructions}}"));
    let Arg::Pointer(first) = code.arg else {
        return Attach { fprog: code, secrets: Vec::new(), instructions: length };
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
    Attach { fprog, secrets, instructions: length }
}

impl Attach {
    /// The argument by which the filter knows the launch's own execve, where the program itself may make none.
    pub(crate) fn secret(&self) -> Option<Operand> {
        (!self.secrets.is_empty()).then(|| Cell::brief(SECRET, "secret").word())
    }
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, 0, &fprog)`, with the secret of this launch written into the program first.
pub(crate) fn attach(asm: &mut Assembler, attach: &Attach) {
    asm.step(Step::Seccomp, "filter");
    for (address, bare, half) in &attach.secrets {
        let cell = Cell { address: *address, name: "filter" };
        asm.set(cell, &sym(*bare, "jeq"), &half.word());
    }
    let operation = sym(SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER");
    asm.call(Call::new(libc::SYS_seccomp, "seccomp").arg(operation).arg(num(0)).arg(attach.fprog.clone()));
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
    let operation = sym(SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER");
    let call = Call::new(libc::SYS_seccomp, "seccomp").arg(operation).arg(num(0));
    context.asm.call(call.arg(placed.fprog));
    Ok(())
}
