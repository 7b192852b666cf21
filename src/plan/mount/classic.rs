//! The same by mount(2), for hosts without the calls on descriptors: what is mounted, and where, is named through
//! `/proc/self/fd`, so that still no path is walked twice.

use std::path::{Path, PathBuf};

use super::super::asm::{Call, Cell, Label, Operand, cwd, fd, null, num, sym};
use super::super::context::{Context, Recursive, u64_of};
use super::attach::{At, Bound, Fresh, open_at, or_else};
use crate::host::{MountEntry, MountFlags};
use crate::machine::layout::{FD_SCRATCH, FD_SCRATCH_TARGET};
use crate::policy::{MountKind, Root, Source};

const MS_RDONLY: u64 = libc::MS_RDONLY;

/// Puts the descriptor in `cell` under a number that is known, and returns the path that leads to it. The window has put
/// something under that number, so that no other descriptor can come to have it; the last step closes it.
fn numbered(context: &mut Context<'_>, cell: Cell, number: i32) -> Operand {
    let cloexec = sym(u64_of(libc::O_CLOEXEC), "O_CLOEXEC");
    let call = Call::new(libc::SYS_dup3, "dup3").arg(cell.word()).arg(fd(number, "scratch")).arg(cloexec);
    context.asm.call(call);
    context.asm.string(format!("/proc/self/fd/{number}").as_bytes())
}

fn flags_text(flags: u64) -> String {
    let names = [
        (libc::MS_RDONLY, "MS_RDONLY"),
        (libc::MS_NOSUID, "MS_NOSUID"),
        (libc::MS_NODEV, "MS_NODEV"),
        (libc::MS_NOEXEC, "MS_NOEXEC"),
        (libc::MS_REMOUNT, "MS_REMOUNT"),
        (libc::MS_NOATIME, "MS_NOATIME"),
        (libc::MS_NODIRATIME, "MS_NODIRATIME"),
        (libc::MS_BIND, "MS_BIND"),
        (libc::MS_REC, "MS_REC"),
        (libc::MS_RELATIME, "MS_RELATIME"),
        (libc::MS_STRICTATIME, "MS_STRICTATIME"),
    ];
    let list: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    if list.is_empty() { "0".to_owned() } else { list.join("|") }
}

fn mount(source: Operand, target: Operand, kind: Operand, flags: u64, options: Operand) -> Call {
    let call = Call::new(libc::SYS_mount, "mount").arg(source).arg(target).arg(kind);
    call.arg(sym(flags, flags_text(flags))).arg(options)
}

/// A file system at a place below the new root.
pub(super) fn fresh(
    context: &mut Context<'_>,
    what: &Fresh<'_>,
    at: &At<'_>,
    into: Option<Cell>,
    otherwise: Option<Label>,
) {
    open_at(context, at);
    let target = context.target;
    let path = numbered(context, target, FD_SCRATCH_TARGET);
    context.close(target);
    let call = new_filesystem(context, what, path);
    context.asm.call(or_else(call, otherwise));
    if let Some(cell) = into {
        // It is attached, and has to be completed.
        let escape = context.asm.enter_required();
        open_at(context, at);
        context.asm.set(cell, &target.word(), &num(0));
        context.asm.leave_required(escape);
    }
}

fn new_filesystem(context: &mut Context<'_>, what: &Fresh<'_>, path: Operand) -> Call {
    let pair = |(key, value): &(&'static str, String)| {
        if value.is_empty() { (*key).to_owned() } else { format!("{key}={value}") }
    };
    let options = what.options.iter().map(pair).collect::<Vec<_>>().join(",");
    let (kind, name) = (context.asm.string(what.kind.as_bytes()), context.asm.string(b"none"));
    let options = context.asm.string(options.as_bytes());
    // MOUNT_ATTR_RDONLY to MOUNT_ATTR_NOEXEC have the values of their MS_ counterparts.
    mount(name, path, kind, what.attributes.bits, options)
}

/// A bind from what is open in `from`.
pub(super) fn bind(context: &mut Context<'_>, from: Cell, recursive: Recursive, at: &At<'_>) {
    let source = numbered(context, from, FD_SCRATCH);
    open_at(context, at);
    let target = context.target;
    let path = numbered(context, target, FD_SCRATCH_TARGET);
    context.close(target);
    let flags = libc::MS_BIND | if recursive == Recursive::Yes { libc::MS_REC } else { 0 };
    let call = mount(source, path, null(), flags, null());
    context.asm.call(call);
}

/// Restricts a bind that is attached, and each mount below it, one by one; flags that a user namespace may not clear are
/// kept (mount_namespaces(7), "locked"). What was mounted since the host was looked at is found by the caller's check.
pub(super) fn restrict(context: &mut Context<'_>, bound: &Bound, at: &At<'_>) {
    let escape = context.asm.enter_required();
    let entries = bound.path.as_deref().map(|path| below(context, path, bound.recursive)).unwrap_or_default();
    let top = entries.iter().find(|(relative, _)| relative.as_os_str().is_empty());
    let locked = top.map_or(0, |(_, flags)| *flags);
    open_at(context, at);
    let target = context.target;
    remount(context, target, bound.attributes.bits | locked);
    context.close(target);
    let base = match at {
        At::Path(base) => base,
        // An entry of `/proc` has nothing of its own below it.
        At::Root | At::Entry(..) => Path::new("/"),
    };
    let below = if matches!(at, At::Entry(..)) { &[] } else { entries.as_slice() };
    for (relative, flags) in below.iter().filter(|(relative, _)| !relative.as_os_str().is_empty()) {
        let place = base.join(relative);
        open_at(context, &At::Path(&place));
        let target = context.target;
        remount(context, target, bound.attributes.bits | flags);
        context.close(target);
    }
    context.asm.leave_required(escape);
}

/// The mount that holds a path of the host and, if wanted, those below it, by relative path with their locked flags.
fn below(context: &Context<'_>, path: &Path, recursive: Recursive) -> Vec<(PathBuf, u64)> {
    let Some(table) = context.host.mounts() else { return Vec::new() };
    let flags = |entry: &MountEntry| MountFlags::bits(&entry.locked_flags());
    let mut list: Vec<_> =
        table.holding(path).map(|entry| (PathBuf::new(), flags(entry))).into_iter().collect();
    if recursive == Recursive::Yes {
        // What another mount covers has no path, and is not reached inside either.
        let seen = table.below(path).filter(|entry| !table.is_hidden(entry));
        let inside = seen.filter_map(|entry| {
            let relative = entry.mount_point.strip_prefix(path).ok()?;
            (!relative.as_os_str().is_empty()).then(|| (relative.to_path_buf(), flags(entry)))
        });
        list.extend(inside);
    }
    list
}

/// `mount(NULL, fd, NULL, MS_REMOUNT|MS_BIND|flags)`: changes one mount and nothing below it.
pub(super) fn remount(context: &mut Context<'_>, cell: Cell, flags: u64) {
    let path = numbered(context, cell, FD_SCRATCH_TARGET);
    let call = mount(null(), path, null(), libc::MS_REMOUNT | libc::MS_BIND | flags, null());
    context.asm.call(call);
}

/// Directories that hosts have and that nothing is bound from: the new root needs a place with a path, as mount(2) gives no
/// descriptor and paths that start at the root do not see what is mounted over it.
const PLACES: [&str; 5] = ["/sys", "/mnt", "/media", "/srv", "/tmp"];

/// Mounts the new root and opens it into the cell `root`.
pub(in super::super) fn root(context: &mut Context<'_>, what: &RootOf<'_>) {
    let places: Vec<&str> = PLACES.into_iter().filter(|place| !is_source(context, place)).collect();
    let done = context.asm.label();
    for (index, place) in places.iter().enumerate() {
        let next = context.asm.label();
        let path = context.asm.string(place.as_bytes());
        let call = match what {
            RootOf::Fresh(fresh) => new_filesystem(context, fresh, path.clone()),
            RootOf::Bind(from) => {
                let source = numbered(context, *from, FD_SCRATCH);
                mount(source, path.clone(), null(), libc::MS_BIND | libc::MS_REC, null())
            }
        };
        let last = index + 1 == places.len();
        context.asm.call(or_else(call, (!last).then_some(next)));
        context.asm.set(context.place, &path, &num(0));
        let root = context.root;
        open_place(context, root);
        context.asm.goto(done);
        context.asm.bind(next);
    }
    if places.is_empty() {
        context.asm.fail("every place for the new root is a source");
    }
    context.asm.bind(done);
}

/// A file system over the new root, opened through its place: the topmost is what a path leads to.
pub(in super::super) fn over_root(context: &mut Context<'_>, what: &Fresh<'_>, into: Cell) {
    let root = context.root;
    let path = numbered(context, root, FD_SCRATCH_TARGET);
    let call = new_filesystem(context, what, path);
    context.asm.call(call);
    open_place(context, into);
}

/// Opens the place of the new root once more: the first of the list at which something new is mounted is not known when the
/// plan is made, so its path was kept.
fn open_place(context: &mut Context<'_>, into: Cell) {
    let bits = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let flags = sym(u64_of(bits), "O_PATH|O_DIRECTORY|O_CLOEXEC");
    let place = context.place.word();
    let call = Call::new(libc::SYS_openat, "openat").arg(cwd()).arg(place).arg(flags);
    context.asm.call(call.into(into));
}

/// What the new root is.
pub(in super::super) enum RootOf<'a> {
    Fresh(Fresh<'a>),
    /// A copy of what is open here.
    Bind(Cell),
}

fn is_source(context: &Context<'_>, place: &str) -> bool {
    let from = |source: &Source| matches!(source, Source::Path(path) if path.starts_with(place));
    let root = matches!(&context.policy.root, Root::Directory { source, .. } if from(source));
    root || context
        .policy
        .mounts()
        .iter()
        .any(|mount| matches!(mount.kind(), MountKind::Bind(bind) if from(&bind.source)))
}

const _: () = assert!(MS_RDONLY == 1);
