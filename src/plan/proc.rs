//! `/proc` by a ladder; the rung taken is in the report. Dangerous entries are read-only or masked.

use std::path::Path;

use super::asm::{Call, Cell, Label, cwd, num, sym};
use super::context::{Context, Item, ItemKind, Recursive, u64_of};
use super::mount::attach::{At, Bound, Fresh};
use super::mount::{Attributes, Ground, attach, make_directory, mask};
use crate::error::{Object, Step};
use crate::host::{Features, MountFlags, ProcView};
use crate::policy::{Namespaces, ProcMount, ProcRung};

/// What an unprivileged program may read and nobody inside write (runtime-spec, config-linux.md, "readonlyPaths").
const READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// What tells about the host and helps no program (runtime-spec, config-linux.md, "maskedPaths").
const MASKED: [&str; 10] = [
    "kcore",
    "keys",
    "key-users",
    "timer_list",
    "latency_stats",
    "sched_debug",
    "kpagecount",
    "acpi",
    "asound",
    "scsi",
];

pub(super) fn proc(context: &mut Context<'_>, wanted: &ProcMount, target: &Path, ground: Ground) {
    let taken = context.brief("proc", 24);
    let names = wanted.ladder.iter().map(|rung| name(*rung)).collect();
    let object = Object::SandboxPath(target.to_path_buf());
    let kind = ItemKind::Ladder(names);
    context.items.push(Item { step: Step::Proc, object, outcome: taken.address.offset, kind });
    if ground == Ground::Own {
        make_directory(context, target, 0o555);
    }
    let done = context.asm.label();
    let possible: Vec<(i64, ProcRung)> =
        (1..).zip(wanted.ladder.iter().copied()).filter(|(_, rung)| possible(context, *rung)).collect();
    for (index, (number, rung)) in possible.iter().enumerate() {
        let last = index + 1 == possible.len();
        let next = context.asm.label();
        let otherwise = (!last).then_some(next);
        match rung {
            ProcRung::Fresh => fresh(context, &[], target, otherwise),
            ProcRung::FreshPidSubset => fresh(context, &[("subset", "pid".to_owned())], target, otherwise),
            ProcRung::HostReadOnly => of_host(context, target, otherwise),
            ProcRung::Absent => {}
        }
        context.asm.set(taken, &num(*number), &num(0));
        context.asm.goto(done);
        context.asm.bind(next);
    }
    if possible.is_empty() {
        context.asm.fail("no rung of the ladder is possible on this host");
    }
    context.asm.bind(done);
}

fn possible(context: &Context<'_>, rung: ProcRung) -> bool {
    match rung {
        ProcRung::Fresh => context.in_set(Namespaces::PID),
        ProcRung::FreshPidSubset => context.in_set(Namespaces::PID) && context.has(Features::PROC_SUBSET_PID),
        ProcRung::HostReadOnly | ProcRung::Absent => true,
    }
}

fn name(rung: ProcRung) -> &'static str {
    match rung {
        ProcRung::Fresh => "fresh",
        ProcRung::FreshPidSubset => "fresh, subset=pid",
        ProcRung::HostReadOnly => "the host's, read-only and masked",
        ProcRung::Absent => "none",
    }
}

/// A procfs of the pid namespace that the child is in. The kernel refuses it in a user namespace whose own view of `/proc`
/// is partly covered (`mount_too_revealing`), as containers cover it.
fn fresh(
    context: &mut Context<'_>,
    options: &[(&'static str, String)],
    target: &Path,
    otherwise: Option<Label>,
) {
    let proc = context.asm.cell("proc");
    let what = Fresh { kind: "proc", options, attributes: as_visible(context) };
    attach::fresh(context, &what, &At::Path(target), Some(proc), otherwise);
    if options.is_empty() {
        restrict(context, proc);
    }
    context.close(proc);
}

/// A fresh procfs may not be less restricted than the one that the caller sees, access times included
/// (mount_namespaces(7), "locked"; `mount_too_revealing`).
fn as_visible(context: &Context<'_>) -> Attributes {
    let ProcView::Full(flags) = context.host.proc_view() else { return Attributes::PROC };
    let pairs = [
        (MountFlags::READ_ONLY, 0x1),
        (MountFlags::NO_ACCESS_TIME, 0x10),
        (MountFlags::STRICT_ACCESS_TIME, 0x20),
        (MountFlags::NO_DIRECTORY_ACCESS_TIME, 0x80),
    ];
    let same = pairs.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |bits, (_, bit)| bits | bit);
    let known = if attach::by_descriptor(context) { same } else { same & 0x1 };
    Attributes { bits: Attributes::PROC.bits | known }
}

/// The host's own, read-only: it shows the host's processes.
fn of_host(context: &mut Context<'_>, target: &Path, otherwise: Option<Label>) {
    let (from, at) = (context.fs, At::Path(target));
    let name = context.asm.string(b"/proc");
    let flags = sym(u64_of(libc::O_PATH | libc::O_CLOEXEC), "O_PATH|O_CLOEXEC");
    let call = Call::new(libc::SYS_openat, "openat").arg(cwd()).arg(name).arg(flags).into(from);
    context.asm.call(match otherwise {
        Some(label) => call.otherwise(label),
        None => call,
    });
    let path = Some("/proc".into());
    let bound = Bound { attributes: Attributes::PROC_READ_ONLY, recursive: Recursive::Yes, path };
    attach::bind(context, from, &bound, &at);
    // It is attached: what is missing of it from here on would be missing from the fence.
    let escape = context.asm.enter_required();
    context.close(from);
    let proc = context.asm.cell("proc");
    attach::open_at(context, &at);
    let target = context.target;
    context.asm.set(proc, &target.word(), &num(0));
    restrict(context, proc);
    context.close(proc);
    context.asm.leave_required(escape);
}

/// Looks for an entry of `/proc`; where it does not exist there is nothing to cover.
fn look(context: &mut Context<'_>, proc: Cell, name: &str, absent: Label) {
    let found = context.asm.cell("found");
    let asm = &mut context.asm;
    let name = asm.string(name.as_bytes());
    let call = Call::new(libc::SYS_faccessat, "faccessat").arg(proc.word()).arg(name).arg(sym(0, "F_OK"));
    asm.call(call.into(found).fine(&[libc::ENOENT]));
    asm.if_less(&found.word(), num(0), absent);
}

fn restrict(context: &mut Context<'_>, proc: Cell) {
    let escape = context.asm.enter_required();
    for name in READ_ONLY {
        let absent = context.asm.label();
        look(context, proc, name, absent);
        let at = At::Entry(proc, name);
        attach::open_at(context, &at);
        let (from, target) = (context.fs, context.target);
        context.asm.set(from, &target.word(), &num(0));
        let path = Some(Path::new("/proc").join(name));
        let bound = Bound { attributes: Attributes::PROC_READ_ONLY, recursive: Recursive::Yes, path };
        attach::bind(context, from, &bound, &at);
        context.close(from);
        context.asm.bind(absent);
    }
    for name in MASKED {
        let absent = context.asm.label();
        look(context, proc, name, absent);
        mask(context, &At::Entry(proc, name));
        context.asm.bind(absent);
    }
    context.asm.leave_required(escape);
}
