//! The end of a tail that executes nothing: the process is a copy of the caller and goes on in Rust. Behind these rows it
//! shares no memory with the caller, holds no descriptor of the set-up, and its filter is attached.

use super::asm::{Assembler, Call, fd, num, sym};
use super::context::u64_of;
use super::gate;
use crate::error::Step;
use crate::machine::isa::PROGRESS_SIZE;
use crate::machine::segment::Arg;
use crate::machine::wire::Message;

const SECCOMP_SET_MODE_FILTER: u64 = 1;

/// What belongs to one closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosureTail {
    /// Where the brief is mapped, and its bytes.
    pub(crate) brief: (u64, u64),
    /// The filter, one instruction a word.
    pub(crate) filter: Option<Vec<u64>>,
    pub(crate) looked_into: LookedInto,
}

/// Whether processes with the same ids may look into it (PR_SET_DUMPABLE(2const)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookedInto {
    /// As into any process of theirs.
    AsUsual,
    /// No.
    Never,
}

/// The exit code that says which errno a filter was refused with.
pub(crate) fn filter_errno(code: i32) -> Option<i32> {
    // exit_group(-errno): the low eight bits.
    (129..=255).contains(&code).then_some(256 - code)
}

/// The last word to the caller, then what cannot be told any more, and the way back.
pub(super) fn go_back(asm: &mut Assembler, closure: &ClosureTail, socket: i32) {
    asm.step(Step::Start, "closure");
    let name = asm.string(b"ringfence-call");
    let prctl =
        |option: i32, text: &'static str| Call::new(libc::SYS_prctl, "prctl").arg(sym(u64_of(option), text));
    asm.call(prctl(libc::PR_SET_NAME, "PR_SET_NAME").arg(name));
    if closure.looked_into == LookedInto::Never {
        asm.call(prctl(libc::PR_SET_DUMPABLE, "PR_SET_DUMPABLE").arg(num(0)));
    }
    let tid = asm.cell("tid");
    asm.call(Call::new(libc::SYS_gettid, "gettid").into(tid));
    gate::tell_through(asm, socket, Message::Exec);
    // The brief is the caller's and init's too: what runs here must not be able to write to it.
    let own = asm.cell_of("progress", PROGRESS_SIZE);
    asm.progress(own);
    let (address, length) = closure.brief;
    let call = Call::new(libc::SYS_munmap, "munmap").arg(sym(address, "brief"));
    asm.call(call.arg(sym(length, length.to_string())));
    asm.call(Call::new(libc::SYS_close, "close").arg(fd(socket, "socket")));
    let (refused, answer) = (asm.label(), asm.cell("answer"));
    if let Some(words) = &closure.filter {
        asm.step(Step::Seccomp, "filter");
        let code = asm.words(words, format!("{{{} instructions}}", words.len()));
        let count = Arg::Value(u64::try_from(words.len()).unwrap_or(0));
        let fprog = asm.table(&[count, code.arg], code.text);
        let operation = sym(SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER");
        let call = Call::new(libc::SYS_seccomp, "seccomp").arg(operation).arg(num(0)).arg(fprog);
        asm.call(call.into(answer).otherwise(refused));
    }
    asm.step(Step::Start, "closure");
    asm.give_back(&tid.word());
    asm.bind(refused);
    asm.call(Call::new(libc::SYS_exit_group, "exit_group").arg(answer.word()));
}
