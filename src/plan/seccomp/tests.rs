//! An interpreter of BPF, and with it: the attached program means what the rules say, and what seccompiler's own program
//! says where seccompiler can say it, over every number, x32 twins and foreign architectures included.

mod bpf;

use std::collections::BTreeMap;
use std::mem;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use self::bpf::{Data, Random, run};
use super::{Instruction, MOST, Program, compile_for, front};
use crate::error::Mistake;
use crate::policy::{Action, Architecture, Argument, Condition, Filter, LaunchCalls, X32_BIT};

const EPERM: Action = Action::Errno(libc::EPERM);

fn presets() -> Vec<Filter> {
    vec![
        Filter::baseline(),
        Filter::no_network(),
        Filter::worker(),
        Filter::worker_dynamic(),
        Filter::strict(),
        Filter::allow_list(),
        Filter::deny_list(),
        Filter::baseline().narrow(&Filter::worker()),
        Filter::worker().extend(&Filter::strict()).otherwise(Action::Trap),
        Filter::baseline()
            .deny(["getcpu"], Action::Notify)
            .forget(["openat"])
            .deny(["openat"], Action::Notify),
        Filter::strict().untold_kills(),
    ]
}

/// The presets, and each as it is attached where a supervisor listens.
fn attached() -> impl Iterator<Item = Filter> {
    presets().into_iter().flat_map(|filter| [filter.listening(), filter])
}

/// The numbers that matter: all that can be a call, their x32 twins, and the ends of the range.
fn numbers() -> impl Iterator<Item = u32> {
    let ends = [X32_BIT - 1, X32_BIT, X32_BIT + 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
    (0..600).chain(ends).chain((0..600).map(|number| number | X32_BIT))
}

fn foreign(on: Architecture) -> impl Iterator<Item = u32> {
    let others =
        Architecture::ALL.into_iter().map(Architecture::audit).filter(move |audit| *audit != on.audit());
    others.chain([0, 0x4000_0003, 0x4000_0028, on.audit() ^ 1, u32::MAX])
}

/// Values around every constant of the filter, and some that are not.
fn interesting(filter: &Filter, random: &mut Random) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 32, u64::from(u32::MAX)];
    let rules = filter.rules.iter().flat_map(|rule| &rule.conditions);
    for condition in rules {
        for constant in bpf::constants(condition) {
            values.extend([constant, constant.wrapping_add(1), constant.wrapping_sub(1), constant | 1 << 32]);
            values.extend([
                constant ^ 1 << 63,
                constant.swap_bytes(),
                constant << 32,
                constant >> 32,
                !constant,
            ]);
        }
    }
    values.extend((0..8).map(|_| random.next()));
    values
}

/// Arguments that can make a difference to a call: each constant of its rules, and what is near, in each place.
fn telling(filter: &Filter, call: &str, random: &mut Random) -> Vec<[u64; 6]> {
    let rules = filter.rules.iter().filter(|rule| rule.call == call).cloned().collect();
    let values = interesting(&Filter { rules, ..filter.clone() }, random);
    let mut pick = |at: usize, value| {
        let mut args = [(); 6].map(|()| values[random.below(values.len())]);
        args[at] = value;
        args
    };
    (0..6).flat_map(|at| values.iter().map(|value| pick(at, *value)).collect::<Vec<_>>()).collect()
}

/// The first disagreement between a program and the rules.
fn disagreement(filter: &Filter, program: &Program, rounds: usize) -> Option<String> {
    let on = program.on;
    let mut random = Random::new(7);
    let look = |rules: &Filter, audit: u32, number: u32, args: [u64; 6]| {
        let wanted = rules.answer(on, audit, number, &args).code();
        let seen = run(&program.code, &Data { number, audit, args });
        (seen != Some(wanted))
            .then(|| format!("{on:?} {audit:#x} {number:#x} {args:x?}: {seen:x?}, {wanted:#x}"))
    };
    for number in numbers() {
        // Only this call's rules can decide about it: so the look is quick.
        let name = on.name(number).unwrap_or_default();
        let rules = filter.rules.iter().filter(|rule| rule.call == name).cloned().collect();
        let own = Filter { rules, ..filter.clone() };
        let conditional = |near: u32| {
            let name = on.name(near).unwrap_or_default();
            filter.rules.iter().any(|rule| rule.call == name && !rule.conditions.is_empty()).then_some(name)
        };
        // Its neighbours too: there a wrong boundary shows.
        let near = (number.saturating_sub(1)..=number.saturating_add(1)).find_map(conditional);
        let mut lists = vec![[0; 6], [u64::MAX; 6]];
        if let Some(call) = near {
            lists.extend((0..rounds).flat_map(|_| telling(filter, call, &mut random)));
        }
        for args in lists {
            if let Some(found) = look(&own, on.audit(), number, args) {
                return Some(found);
            }
        }
        for audit in foreign(on) {
            if let Some(found) = look(&own, audit, number, [0; 6]) {
                return Some(found);
            }
        }
    }
    None
}

/// As the tail does at a launch.
fn write_secret(program: &mut Program, secret: u64) {
    for [low, high] in program.secrets.clone() {
        program.code[low].k = u32::try_from(secret & 0xffff_ffff).unwrap();
        program.code[high].k = u32::try_from(secret >> 32).unwrap();
    }
}

#[test]
fn presets_mean_what_their_rules_say() {
    for filter in attached() {
        for on in Architecture::ALL {
            let mut program = compile_for(&filter, on).unwrap();
            write_secret(&mut program, 0x1234_5678_9abc_def0);
            assert_eq!(disagreement(&filter, &program, 3), None);
        }
    }
}

fn random_condition(random: &mut Random) -> Condition {
    let index = u8::try_from(random.below(6)).unwrap();
    let long = random.below(2) == 1;
    let argument = if long { Argument::long(index) } else { Argument::int(index) };
    let width = if long { u64::MAX } else { 0xffff_ffff };
    let small = [0, 1, 2, 0x5412, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX];
    let value = small[random.below(small.len())] & width;
    match random.below(8) {
        0 => argument.equal(value),
        1 => argument.not_equal(value),
        2 => {
            let mask = random.next() & width;
            argument.masked_equal(mask, value & mask)
        }
        3 => argument.less(value.max(1)),
        4 => argument.less_equal(value),
        5 => argument.greater(value.min(width - 1)),
        6 => argument.greater_equal(value),
        _ => argument.inside(value.min(5)..=value),
    }
}

fn random_filter(random: &mut Random, actions: &[Action]) -> Filter {
    let calls: Vec<&str> = Architecture::X86_64.calls().map(|(name, _)| name).collect();
    let mut filter = Filter::allow_list().otherwise(actions[random.below(actions.len())]);
    for _ in 0..random.below(300) {
        let call = calls[random.below(calls.len())];
        let action = actions[random.below(actions.len())];
        let conditions: Vec<_> = (0..random.below(4)).map(|_| random_condition(random)).collect();
        filter = filter.rule(call, conditions, action);
    }
    filter
}

const ACTIONS: [Action; 8] = [
    Action::Allow,
    EPERM,
    Action::Errno(libc::ENOSYS),
    Action::KillProcess,
    Action::KillThread,
    Action::Log,
    Action::Trap,
    Action::Notify,
];

#[test]
fn random_filters_mean_what_their_rules_say() {
    let mut random = Random::new(1);
    for round in 0..9 {
        let filter = random_filter(&mut random, &ACTIONS);
        let on = Architecture::ALL[round % 3];
        for filter in [filter.listening(), filter] {
            let mut program = compile_for(&filter, on).unwrap();
            write_secret(&mut program, 0x1234_5678_9abc_def0);
            assert_eq!(disagreement(&filter, &program, 1), None);
        }
    }
}

/// With a listener a call is answered as without, but for kills, which it is notified of, and the launch's own exec.
#[test]
fn a_listener_changes_kills_into_notices_and_nothing_else() {
    let mut random = Random::new(11);
    let filters = presets().into_iter().chain((0..9).map(|_| random_filter(&mut Random::new(9), &ACTIONS)));
    for filter in filters {
        let on = Architecture::X86_64;
        let (plain, told) = (compile_for(&filter, on).unwrap(), filter.listening());
        let mut told = compile_for(&told, on).unwrap();
        write_secret(&mut told, 0x1234_5678_9abc_def0);
        let values = interesting(&filter, &mut random);
        for number in numbers() {
            for audit in [on.audit(), on.audit() ^ 1] {
                let args = [(); 6].map(|()| values[random.below(values.len())]);
                let data = Data { number, audit, args };
                // No exec of the program carries the secret, which of these values none is.
                let before = if filter.launch == LaunchCalls::OwnOnly || args[5] != 0 {
                    Some(filter.answer(on, audit, number, &args).code())
                } else {
                    run(&plain.code, &data)
                };
                let killed = filter.tells() && audit == on.audit() && number < X32_BIT;
                let wanted = match before {
                    Some(code) if killed && code == Action::KillProcess.code() => Action::Notify.code(),
                    code => code.unwrap(),
                };
                assert_eq!(run(&told.code, &data), Some(wanted), "{data:x?}");
            }
        }
    }
}

/// The child waits in its exec for its supervisor, whatever the rules say of that call.
#[test]
fn a_listener_is_asked_about_the_launch() {
    let open = Filter::deny_list().deny(["uname"], Action::Notify);
    let rule = open.clone().rule("execve", [Argument::long(5).less(7)], Action::Errno(libc::EPERM));
    let asked = Filter::baseline().forget(["execve"]).deny(["execve"], Action::Notify);
    for filter in [open, rule, asked, Filter::strict(), Filter::worker().otherwise(Action::KillProcess)] {
        for on in Architecture::ALL {
            let mut program = compile_for(&filter.listening(), on).unwrap();
            let secret = 0x8234_5678_9abc_def0;
            write_secret(&mut program, secret);
            for call in ["execve", "execveat"] {
                let number = on.number(call).unwrap();
                let data = Data { number, audit: on.audit(), args: [0, 1, 2, 3, 4, secret] };
                assert_eq!(
                    run(&program.code, &data),
                    Some(Action::Notify.code()),
                    "{on:?} {call}\n{program}"
                );
            }
        }
    }
}

/// The same rules as seccompiler's own program, where it can express them: allow and one other action.
fn plain(filter: &Filter, on: Architecture) -> Vec<Instruction> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in &filter.rules {
        let Some(number) = on.number(&rule.call) else { continue };
        let chain = rules.entry(i64::from(number)).or_default();
        if !rule.conditions.is_empty() {
            let list: Vec<_> = rule.conditions.iter().flat_map(|one| front::lower(one).unwrap()).collect();
            chain.push(SeccompRule::new(list).unwrap());
        }
    }
    let target = match on {
        Architecture::X86_64 => TargetArch::x86_64,
        Architecture::Aarch64 => TargetArch::aarch64,
        Architecture::Riscv64 => TargetArch::riscv64,
    };
    let Action::Errno(errno) = filter.default else { panic!("{:?}", filter.default) };
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, target).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    program.iter().map(|one| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect()
}

/// seccompiler cannot say "always" and "if" of one call: a call has either.
fn two_actions(random: &mut Random) -> Filter {
    let filter = random_filter(random, &[Action::Allow]).otherwise(Action::Errno(libc::ENOSYS));
    let always: Vec<_> =
        filter.rules.iter().filter(|r| r.conditions.is_empty()).map(|r| r.call.clone()).collect();
    let mut out = Filter { rules: Vec::new(), ..filter.clone() }.allow(always.clone());
    out.rules.extend(filter.rules.into_iter().filter(|rule| !always.contains(&rule.call)));
    out
}

#[test]
fn the_tree_says_what_the_plain_program_of_seccompiler_says() {
    let mut random = Random::new(3);
    for round in 0..30 {
        let filter = two_actions(&mut random);
        let on = Architecture::ALL[round % 3];
        let (ours, theirs) = (compile_for(&filter, on).unwrap().code, plain(&filter, on));
        let values = interesting(&filter, &mut random);
        for number in numbers() {
            for audit in [on.audit()].into_iter().chain(foreign(on)) {
                for _ in 0..8 {
                    let args = [(); 6].map(|()| values[random.below(values.len())]);
                    let data = Data { number, audit, args };
                    // Its default action is the answer that the x32 guard gives.
                    assert_eq!(run(&ours, &data), run(&theirs, &data), "{data:x?}");
                }
            }
        }
    }
}

/// The comparison itself is worth something: a program with one thing changed is found out, unless the change makes no
/// difference that any call could see.
#[test]
fn a_changed_instruction_is_found_out() {
    let filter = Filter::worker();
    let filter = Filter { launch: LaunchCalls::ByRule, ..filter }.otherwise(Action::Trap);
    let program = compile_for(&filter, Architecture::X86_64).unwrap();
    let (mut found, mut missed) = (0, Vec::new());
    for index in 0..program.code.len() {
        for change in 0..3 {
            let mut mutant = program.clone();
            let one = &mut mutant.code[index];
            match (change, one.code) {
                (0, super::emit::RET) => one.k ^= 0x7fff_0000,
                (0, _) => one.k = one.k.wrapping_add(1),
                (1, super::emit::RET | super::emit::LOAD | super::emit::AND) => continue,
                (1, _) => mem::swap(&mut one.jt, &mut one.jf),
                // Behind a mask that is one bit wide they are the same.
                (_, super::emit::JEQ) if one.k != 0x1000 => one.code = super::emit::JGE,
                (_, super::emit::JGE) => one.code = super::emit::JGT,
                _ => continue,
            }
            if mutant.code == program.code {
                continue;
            }
            match disagreement(&filter, &mutant, 1) {
                Some(_) => found += 1,
                None => missed.push((index, change)),
            }
        }
    }
    assert!(missed.is_empty(), "{found} found, missed {missed:?}\n{program}");
}

#[test]
fn jumps_over_long_code_arrive() {
    let mut filter = Filter::allow_list();
    for value in 0..150 {
        let conditions = [Argument::long(0).equal(value), Argument::long(1).inside(value..=value + 7)];
        filter = filter.rule("mmap", conditions, ACTIONS[usize::try_from(value % 8).unwrap()]);
        filter = filter.rule(
            "ioctl",
            [Argument::long(2).greater(value)],
            ACTIONS[usize::try_from(value % 7).unwrap()],
        );
    }
    let program = compile_for(&filter, Architecture::X86_64).unwrap();
    assert!(program.code.len() > 1_000, "{}", program.code.len());
    assert_eq!(disagreement(&filter, &program, 1), None);
    assert!(program.code.iter().any(|one| one.code == super::emit::JA), "nothing was far");
}

#[test]
fn a_filter_over_the_kernels_length_is_a_mistake() {
    let mut filter = Filter::allow_list();
    for value in 0..2_000 {
        filter = filter.rule("mmap", [Argument::long(0).equal(value)], EPERM);
    }
    let error = compile_for(&filter, Architecture::X86_64).unwrap_err();
    assert!(matches!(error.mistakes(), [Mistake::FilterTooLong { most: MOST, .. }]), "{error}");
    // One rule that seccompiler itself refuses.
    let many: Vec<_> = (0..3_000).map(|value| Argument::long(0).not_equal(value)).collect();
    let error =
        compile_for(&Filter::allow_list().rule("mmap", many, EPERM), Architecture::X86_64).unwrap_err();
    assert!(matches!(error.mistakes(), [Mistake::FilterTooLong { .. }]), "{error}");
}

#[test]
fn only_the_launch_knows_the_secret() {
    for on in Architecture::ALL {
        let mut program = compile_for(&Filter::strict(), on).unwrap();
        assert_eq!(program.secrets.len(), 2, "execve and execveat");
        let (secret, wrong) = (0x1234_5678_9abc_def0, Action::KillProcess.code());
        write_secret(&mut program, secret);
        for call in ["execve", "execveat"] {
            let number = on.number(call).unwrap();
            let with =
                |last| run(&program.code, &Data { number, audit: on.audit(), args: [1, 2, 3, 4, 5, last] });
            assert_eq!(with(secret), Some(Action::Allow.code()));
            for last in [0, secret + 1, secret ^ 1 << 63, secret & 0xffff_ffff, u64::MAX] {
                assert_eq!(with(last), Some(wrong), "{last:#x}");
            }
        }
    }
}

#[test]
fn the_tree_is_shallow() {
    let program = compile_for(&Filter::baseline(), Architecture::X86_64).unwrap();
    assert!(program.code.len() < 250, "{}\n{program}", program.code.len());
    let deepest = (0..600)
        .map(|number| bpf::steps(&program.code, &Data { number, audit: program.on.audit(), args: [0; 6] }));
    assert!(deepest.max() < Some(32));
    let text = program.to_string();
    assert!(
        text.starts_with(
            "    0  load architecture\n    1  if == 0xc000003e  -> 3 else -> 2\n    2  return kill process\n"
        ),
        "{text}"
    );
    assert!(text.contains("return ENOSYS") && text.contains("load low half of argument 1"), "{text}");
}
