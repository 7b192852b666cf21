//! `/proc` by a ladder; the rung taken is in the report. Dangerous entries are read-only or masked.

use std::path::Path;

use super::asm::{Call, Cell, Label, cwd, num, sym};
use super::context::{Context, Item, ItemKind, Recursive, u64_of};
use super::mount::{Attributes, Ground, attach, make_directory, mask_open, open_filesystem};
use crate::error::{Object, Step};
use crate::host::Features;
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
    let (fs, tree) = (context.fs, context.tree);
    open_filesystem(context, "proc", options);
    let asm = &mut context.asm;
    let null = || sym(0, "NULL");
    let create = sym(6, "FSCONFIG_CMD_CREATE");
    let call = Call::new(libc::SYS_fsconfig, "fsconfig").arg(fs.word()).arg(create);
    asm.call(fallible(call.arg(null()).arg(null()).arg(num(0)), otherwise));
    let attributes = Attributes::PROC;
    let call = Call::new(libc::SYS_fsmount, "fsmount").arg(fs.word()).arg(sym(1, "FSMOUNT_CLOEXEC"));
    let call = call.arg(sym(attributes.bits, attributes.text())).into(tree);
    asm.call(fallible(call, otherwise));
    context.close(fs);
    attach::attach(context, &tree.word(), target);
    let whole = options.is_empty();
    let proc = keep(context);
    if whole {
        restrict(context, proc);
    }
    context.close(proc);
}

fn fallible(call: Call, otherwise: Option<Label>) -> Call {
    match otherwise {
        Some(label) => call.otherwise(label),
        None => call,
    }
}

/// `$tree` is wanted for masks, `/proc` itself goes to a cell of its own.
fn keep(context: &mut Context<'_>) -> Cell {
    let proc = context.asm.cell("proc");
    let tree = context.tree.word();
    context.asm.set(proc, &tree, &num(0));
    proc
}

/// The host's own, read-only: it shows the host's processes.
fn of_host(context: &mut Context<'_>, target: &Path, otherwise: Option<Label>) {
    let tree = context.tree;
    let asm = &mut context.asm;
    let name = asm.string(b"/proc");
    let bits = 0x1 | u64_of(libc::O_CLOEXEC) | 0x8000;
    let flags = sym(bits, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE");
    let call = Call::new(libc::SYS_open_tree, "open_tree").arg(cwd()).arg(name).arg(flags).into(tree);
    asm.call(fallible(call, otherwise));
    attach::set_attributes(context, &tree.word(), Attributes::PROC_READ_ONLY, Recursive::Yes);
    attach::attach(context, &tree.word(), target);
    let proc = keep(context);
    restrict(context, proc);
    context.close(proc);
}

/// Opens an entry of `/proc` for covering; where it does not exist there is nothing to cover.
fn entry(context: &mut Context<'_>, proc: Cell, name: &str, absent: Label) -> Cell {
    let at = context.target;
    let asm = &mut context.asm;
    let name = asm.string(name.as_bytes());
    let flags = sym(u64_of(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC), "O_PATH|O_NOFOLLOW|O_CLOEXEC");
    let call = Call::new(libc::SYS_openat, "openat").arg(proc.word()).arg(name).arg(flags);
    asm.call(call.into(at).fine(&[libc::ENOENT]));
    asm.if_less(&at.word(), num(0), absent);
    at
}

fn restrict(context: &mut Context<'_>, proc: Cell) {
    for name in READ_ONLY {
        let absent = context.asm.label();
        let at = entry(context, proc, name, absent);
        let tree = context.tree;
        let empty = context.asm.string(b"");
        let bits = 0x1 | u64_of(libc::O_CLOEXEC) | u64_of(libc::AT_EMPTY_PATH) | 0x8000;
        let flags = sym(bits, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH|AT_RECURSIVE");
        let call = Call::new(libc::SYS_open_tree, "open_tree").arg(at.word()).arg(empty).arg(flags);
        context.asm.call(call.into(tree));
        attach::set_attributes(context, &tree.word(), Attributes::PROC_READ_ONLY, Recursive::Yes);
        attach::move_to(context, &tree.word(), &at.word());
        context.close(tree);
        context.close(at);
        context.asm.bind(absent);
    }
    for name in MASKED {
        let absent = context.asm.label();
        let at = entry(context, proc, name, absent);
        mask_open(context, at);
        context.close(at);
        context.asm.bind(absent);
    }
}
