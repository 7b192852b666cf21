//! Filters made of bytes: the compiled program answers every call as the rules do, and as seccompiler's own program does
//! where that can say it; two filters combine as the kernel would. The program is one that the kernel takes.
#![no_main]

mod bpf;
mod spec;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringfence::internals::compile_filter;
use ringfence::{Action, Architecture, Filter, Mistake, Sandbox};

use bpf::{Data, Instruction, accepted, run};
use spec::{ON, Spec};

/// `__X32_SYSCALL_BIT`
const X32_BIT: u32 = 0x4000_0000;
/// The secret of a program that no launch has written one into.
const UNSET_SECRET: u64 = u64::MAX;
const LOOKS: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are no filter, or run out early, are no finding.
    let _ = look(&mut Unstructured::new(bytes));
});

fn look(input: &mut Unstructured<'_>) -> Result<()> {
    let (first, second) = (Spec::read(input)?, Spec::read(input)?);
    let (a, b) = (first.filter(), second.filter());
    if !is_sound(&a) || !is_sound(&b) {
        return Ok(());
    }
    let mut pool = first.constants();
    pool.extend(second.constants());
    let calls: Vec<u32> = first.numbers().chain(second.numbers()).collect();
    let data = (0..LOOKS).map(|_| datum(input, &pool, &calls)).collect::<Result<Vec<_>>>()?;
    let (both, either) = (a.clone().narrow(&b), a.clone().extend(&b));
    means_what_its_rules_say(&a, first.launch_only, &data);
    means_what_its_rules_say(&b, second.launch_only, &data);
    for filter in [&both, &either] {
        means_what_its_rules_say(filter, first.launch_only || second.launch_only, &data);
    }
    for spec in [&first, &second] {
        if let Some(program) = spec.seccompiler() {
            agrees(&spec.filter(), &program, spec.launch_only, &data);
        }
    }
    for one in &data {
        let (left, right) = (answer(&a, one), answer(&b, one));
        assert_eq!(answer(&both, one), pick(left, right, |l, r| r > l), "narrow: {one:x?}\n{a:?}\n{b:?}");
        assert_eq!(answer(&either, one), pick(left, right, |l, r| r < l), "extend: {one:x?}\n{a:?}\n{b:?}");
    }
    Ok(())
}

/// What would make a policy with it fail, but for a launch that it forbids and rules that are never reached.
fn is_sound(filter: &Filter) -> bool {
    let Err(error) = Sandbox::builder().seccomp(filter.clone()).policy() else { return true };
    let harmless = |mistake: &Mistake| {
        matches!(
            mistake,
            Mistake::FilterForbidsLaunch | Mistake::FilterForbidsEnd | Mistake::RuleNeverReached { .. }
        )
    };
    error.mistakes().iter().all(harmless)
}

/// A call: more often than not one of the rules', its neighbour or its x32 twin, with arguments around what they compare to.
fn datum(input: &mut Unstructured<'_>, pool: &[u64], calls: &[u32]) -> Result<Data> {
    let number = match input.int_in_range(0..=7)? {
        0 => input.arbitrary()?,
        1 => X32_BIT | input.int_in_range(0..=600)?,
        2 => input.int_in_range(0..=600)?,
        3 => *input.choose(&[X32_BIT - 1, X32_BIT, 0x7fff_ffff, 0x8000_0000, u32::MAX])?,
        near => {
            let known = if calls.is_empty() { 59 } else { *input.choose(calls)? };
            if near == 4 { known.wrapping_add_signed(input.int_in_range(-1..=1)?) } else { known }
        }
    };
    let others = [0, 0x4000_0003, 0x4000_0028, 0xc000_003e, 0xc000_00b7, 0xc000_00f3, ON.audit() ^ 1];
    let audit = match input.int_in_range(0..=9)? {
        0 => *input.choose(&others)?,
        1 => input.arbitrary()?,
        _ => ON.audit(),
    };
    let mut args = [0; 6];
    for arg in &mut args {
        let constant = if pool.is_empty() { 0 } else { *input.choose(pool)? };
        *arg = match input.int_in_range(0..=9)? {
            0 => input.arbitrary()?,
            1 => constant.wrapping_add(1),
            2 => constant.wrapping_sub(1),
            3 => constant | input.arbitrary::<u64>()? << 32,
            4 => constant ^ 1 << input.int_in_range(0..=63)?,
            5 => UNSET_SECRET,
            6 => !constant,
            _ => constant,
        };
    }
    Ok(Data { number, audit, args })
}

fn answer(filter: &Filter, data: &Data) -> Action {
    filter.answer(ON, data.audit, data.number, &data.args)
}

fn compiled(filter: &Filter) -> Option<Vec<Instruction>> {
    match compile_filter(filter) {
        Ok(code) => Some(code),
        Err(error) => {
            assert!(matches!(error.mistakes(), [Mistake::FilterTooLong { .. }]), "{error:#}");
            None
        }
    }
}

/// Whether this is an execve that a launch with an unwritten secret would make: that one is let through.
fn is_own_launch(data: &Data, launch_only: bool) -> bool {
    let exec = ["execve", "execveat"].map(|call| ON.number(call));
    let native = data.audit == ON.audit() && exec.contains(&Some(data.number));
    launch_only && native && data.args[5] == UNSET_SECRET
}

fn means_what_its_rules_say(filter: &Filter, launch_only: bool, data: &[Data]) {
    let Some(code) = compiled(filter) else { return };
    accepted(&code);
    for one in data {
        let (seen, wanted) = (run(&code, one), code_of(answer(filter, one)));
        // A filter that takes the launch's own execve only may still have a rule that allows, or logs, every one.
        if is_own_launch(one, launch_only) && seen == code_of(Action::Allow) {
            continue;
        }
        assert_eq!(seen, wanted, "{one:x?}\n{filter:?}");
    }
}

/// It has no guard against x32 numbers, and knows no call that is the launch's own.
fn agrees(filter: &Filter, theirs: &[Instruction], launch_only: bool, data: &[Data]) {
    let Some(ours) = compiled(filter) else { return };
    for one in data {
        let guarded = ON == Architecture::X86_64 && one.number >= X32_BIT && one.audit == ON.audit();
        if !guarded && !is_own_launch(one, launch_only) {
            assert_eq!(run(&ours, one), run(theirs, one), "{one:x?}\n{filter:?}");
        }
    }
}

/// The kernel's own order (seccomp(2)), and of two alike the first.
fn pick(left: Action, right: Action, other: fn(u8, u8) -> bool) -> Action {
    let rank = |action| match action {
        Action::Allow => 0,
        Action::Log => 1,
        Action::Notify => 2,
        Action::Errno(_) => 3,
        Action::Trap => 4,
        Action::KillThread => 5,
        Action::KillProcess => 6,
        _ => panic!("an action that this does not know: {action:?}"),
    };
    if other(rank(left), rank(right)) { right } else { left }
}

/// `SECCOMP_RET_*` (linux/seccomp.h), written down once more.
fn code_of(action: Action) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Notify => 0x7fc0_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::try_from(errno).expect("a checked errno"),
        Action::Trap => 0x0003_0000,
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        _ => panic!("an action that this does not know: {action:?}"),
    }
}
