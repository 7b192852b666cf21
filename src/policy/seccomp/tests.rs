//! The rule model, the mistakes, the tables, the written list of presets.

use std::collections::BTreeSet;
use std::io::{Write, stderr};
use std::ops::RangeInclusive;
use std::process::Command;
use std::{env, fs};

use super::preset::{no_sockets, table};
use super::{Action, Architecture, Argument, Filter, LaunchCalls};
use crate::error::Mistake;

const EPERM: Action = Action::Errno(libc::EPERM);

fn answer(filter: &Filter, call: &str, args: [u64; 6]) -> Action {
    let on = Architecture::X86_64;
    filter.answer(on, on.audit(), on.number(call).unwrap(), &args)
}

fn start() -> Filter {
    Filter::allow_list().allow(["execve", "exit_group"])
}

#[test]
fn presets_hold_no_mistake() {
    for filter in [
        Filter::baseline(),
        Filter::no_network(),
        Filter::worker(),
        Filter::worker_dynamic(),
        Filter::strict(),
        Filter::worker().with_lowering(),
        Filter::worker_dynamic().with_lowering(),
        Filter::baseline().narrow(&Filter::worker()),
        Filter::worker().extend(&Filter::strict()),
        Filter::strict().extend(&Filter::baseline()),
    ] {
        assert_eq!(filter.mistakes(), vec![]);
    }
}

#[test]
fn what_lowering_needs_is_all_that_is_added_for_it() {
    for filter in [Filter::worker(), Filter::worker_dynamic(), Filter::strict(), start()] {
        let with = filter.clone().with_lowering();
        assert_eq!(with.default, filter.default);
        assert_eq!(answer(&with, "seccomp", [1, 1, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(answer(&with, "unshare", [0x1_0000, 0, 0, 0, 0, 0]), Action::Allow);
        for (call, first) in
            [("seccomp", 0), ("unshare", 0x1000_0000), ("unshare", 0x1001_0000), ("prctl", 15), ("setuid", 0)]
        {
            let args = [first, 0, 0, 0, 0, 0];
            assert_eq!(answer(&with, call, args), answer(&filter, call, args), "{call} {first:#x}");
        }
        // A path can be named, and neither read nor written by it.
        assert_eq!(answer(&with, "openat", [0, 0, 0o12_000_000, 0, 0, 0]), Action::Allow);
        let write = [0, 0, 1, 0, 0, 0];
        assert_eq!(answer(&with, "openat", write), answer(&filter, "openat", write));
    }
    assert_eq!(Filter::baseline().with_lowering().mistakes(), vec![]);
}

#[test]
fn every_known_call_is_reviewed_in_the_baseline() {
    let reviewed: BTreeSet<String> = Filter::baseline().rules.iter().map(|r| r.call.to_string()).collect();
    // Gone from every kernel, or never there; the default says ENOSYS, as they would.
    let gone = "_sysctl afs_syscall create_module epoll_ctl_old epoll_wait_old get_kernel_syms getpmsg \
                nfsservctl putpmsg query_module security sysfs tuxcall uprobe uselib ustat vserver \
                lsm_set_self_attr";
    let gone: BTreeSet<&str> = gone.split_ascii_whitespace().collect();
    let mut missing = BTreeSet::new();
    for on in Architecture::ALL {
        for (call, _) in on.calls() {
            if !reviewed.contains(call) && !gone.contains(call) {
                missing.insert(call);
            }
        }
    }
    assert_eq!(missing, BTreeSet::new(), "say in groups.rs what the baseline does with these");
}

#[test]
fn mistakes_are_found() {
    let bad = |filter: Filter| filter.mistakes();
    assert_eq!(bad(start().allow(["raed"])), vec![Mistake::UnknownCall { name: "raed".into() }]);
    // Known elsewhere: skipped here.
    assert_eq!(bad(start().allow(["riscv_hwprobe", "socketcall", "mmap2", "open"])), vec![]);
    let doubled = start().allow(["read"]).deny(["read"], EPERM);
    assert!(matches!(bad(doubled)[..], [Mistake::RuleNeverReached { .. }]));
    let one = Argument::int(1).equal(1);
    let two = Argument::int(2).equal(2);
    let wide = start().rule("ioctl", [one], EPERM).rule("ioctl", [two, one], Action::Allow);
    assert!(matches!(bad(wide)[..], [Mistake::RuleNeverReached { .. }]));
    let fine = start().rule("ioctl", [two, one], EPERM).rule("ioctl", [one], Action::Allow);
    assert_eq!(bad(fine), vec![]);
    for condition in [
        Argument::int(6).equal(1),
        Argument::int(0).equal(1 << 32),
        Argument::int(0).less(0),
        Argument::int(0).greater(0xffff_ffff),
        Argument::long(0).greater(u64::MAX),
        Argument::int(0).masked_equal(1, 2),
        Argument::int(0).inside(RANGE),
    ] {
        let found = bad(start().rule("read", [condition], EPERM));
        assert!(matches!(found[..], [Mistake::BadCondition { .. }]), "{condition}: {found:?}");
    }
    assert!(matches!(bad(start().deny(["read"], Action::Errno(4096)))[..], [Mistake::BadErrno { .. }]));
    assert!(matches!(bad(start().otherwise(Action::Errno(-1)))[..], [Mistake::BadErrno { .. }]));
}

#[expect(clippy::reversed_empty_ranges, reason = "the mistake that is looked for")]
const RANGE: RangeInclusive<u64> = 5..=4;

#[test]
fn a_filter_that_forbids_the_launch_is_a_mistake() {
    let no_exec = Filter::allow_list().allow(["exit_group"]);
    assert_eq!(no_exec.mistakes(), vec![Mistake::FilterForbidsLaunch]);
    assert_eq!(no_exec.launch_only().mistakes(), vec![]);
    let some = Filter::deny_list().rule("execve", [Argument::long(1).equal(0)], EPERM);
    assert_eq!(some.mistakes(), vec![Mistake::FilterForbidsLaunch]);
    let no_end = Filter::deny_list().deny(["exit_group"], EPERM);
    assert_eq!(no_end.mistakes(), vec![Mistake::FilterForbidsEnd]);
    assert_eq!(Filter::deny_list().deny(["exit_group"], Action::KillProcess).mistakes(), vec![]);
}

#[test]
fn narrow_takes_the_stricter_and_extend_the_looser() {
    let a = Filter::allow_list()
        .rule("ioctl", [Argument::int(1).equal(1)], Action::KillProcess)
        .rule("ioctl", [], Action::Allow)
        .allow(["read"]);
    let b = Filter::deny_list()
        .rule("ioctl", [Argument::int(1).less(5)], EPERM)
        .rule("ioctl", [Argument::int(2).equal(7)], Action::Trap)
        .deny(["write"], Action::Log);
    let (both, either) = (a.clone().narrow(&b), a.clone().extend(&b));
    for call in ["ioctl", "read", "write", "getpid"] {
        for x in 0..8 {
            for y in 6..9 {
                let args = [0, x, y, 0, 0, 0];
                let (first, second) = (answer(&a, call, args), answer(&b, call, args));
                assert_eq!(answer(&both, call, args), first.stricter(second), "{call} {args:?}");
                assert_eq!(answer(&either, call, args), first.looser(second), "{call} {args:?}");
            }
        }
    }
}

#[test]
fn foreign_and_x32_calls_are_refused_by_every_filter() {
    let open = Filter::deny_list();
    let on = Architecture::X86_64;
    assert_eq!(open.answer(on, on.audit(), 0, &[0; 6]), Action::Allow);
    assert_eq!(open.answer(on, 0x4000_0003, 0, &[0; 6]), Action::KillProcess);
    assert_eq!(open.answer(on, on.audit(), 0x4000_0000, &[0; 6]), Action::Errno(libc::ENOSYS));
    assert_eq!(open.answer(on, on.audit(), u32::MAX, &[0; 6]), Action::Errno(libc::ENOSYS));
}

#[test]
fn an_int_is_compared_as_the_kernel_does() {
    let args = |command: u64| [0, command, 0, 0, 0, 0];
    let baseline = Filter::baseline();
    assert_eq!(answer(&baseline, "ioctl", args(0x5412)), EPERM);
    assert_eq!(answer(&baseline, "ioctl", args(0x5412 | 1 << 32)), EPERM);
    assert_eq!(answer(&baseline, "ioctl", args(0x5413)), Action::Allow);
}

fn is_current(path: &str, text: &str) {
    if env::var_os("RINGFENCE_BLESS").is_some() {
        fs::write(path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), text, "run this test with RINGFENCE_BLESS=1");
}

#[test]
fn the_written_list_of_presets_is_current() {
    is_current("src/policy/seccomp/presets.md", &table());
}

/// What a filter says to a call, and `otherwise` where no rule of its own does.
fn cell(filter: &Filter, call: &str, otherwise: &str) -> String {
    let own = filter.launch == LaunchCalls::OwnOnly && matches!(call, "execve" | "execveat");
    let mut parts = vec!["the launch's own".to_owned(); usize::from(own)];
    for (conditions, action) in filter.answers(call) {
        let list: Vec<String> = conditions.iter().map(|condition| format!("`{condition}`")).collect();
        if list.is_empty() {
            let has_rule = filter.rules.iter().any(|rule| rule.call == call && rule.conditions.is_empty());
            let last = if has_rule { action.to_string() } else { otherwise.to_owned() };
            parts.push(if parts.is_empty() { last } else { format!("else {last}") });
            break;
        }
        parts.push(format!("{action} if {}", list.join(" and ")));
    }
    parts.join("; ")
}

/// The table of preset and call in the documentation of [`Filter`].
fn calls_table() -> String {
    let calls: BTreeSet<&str> =
        Architecture::ALL.into_iter().flat_map(|on| on.calls().map(|(call, _)| call)).collect();
    let mut text = String::from(
        "\n# Each call by preset\n\n<details><summary>Every call that this version knows, on any architecture</summary>\n\n\
         | call | `baseline` | `no_network` | `worker` | `worker_dynamic` | `strict` |\n|---|---|---|---|---|---|\n",
    );
    for call in calls {
        let baseline = cell(&Filter::baseline(), call, "ENOSYS");
        let local = match cell(&no_sockets(), call, "") {
            same if same.is_empty() => baseline.clone(),
            differs => format!("{differs}as `baseline`"),
        };
        let worker = cell(&Filter::worker(), call, "ENOSYS");
        let dynamic = cell(&Filter::worker_dynamic(), call, "ENOSYS");
        let strict = cell(&Filter::strict(), call, "kill process");
        text.push_str(&format!("| `{call}` | {baseline} | {local} | {worker} | {dynamic} | {strict} |\n"));
    }
    text + "\n</details>\n"
}

#[test]
fn the_table_of_calls_by_preset_is_current() {
    is_current("src/policy/seccomp/calls.md", &calls_table());
}

#[test]
fn the_table_is_sorted_and_agrees_with_libc() {
    let names: Vec<&str> = super::table::CALLS.iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted());
    #[cfg(target_arch = "x86_64")]
    let on = Architecture::X86_64;
    #[cfg(target_arch = "aarch64")]
    let on = Architecture::Aarch64;
    #[cfg(target_arch = "riscv64")]
    let on = Architecture::Riscv64;
    for (name, number) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("newfstatat", libc::SYS_newfstatat),
        ("mmap", libc::SYS_mmap),
        ("clone3", libc::SYS_clone3),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
        ("ppoll", libc::SYS_ppoll),
        ("seccomp", libc::SYS_seccomp),
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
    ] {
        assert_eq!(on.number(name).map(i64::from), Some(number), "{name}");
    }
}

/// Older headers, and those of some architectures only, are enough: what they know has to be in the table.
#[test]
fn the_table_agrees_with_the_kernels_headers() {
    if fs::metadata("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").is_err() {
        let skipped =
            b"SKIPPED the_table_agrees_with_the_kernels_headers: there are none here (linux-libc-dev)\n";
        return stderr().write_all(skipped).unwrap();
    }
    let checked = Command::new("tools/call-table").arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
