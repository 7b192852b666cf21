//! The four things that are done with mounts: make a file system, bind a tree, cover an entry, seal. Each by the mount calls
//! on descriptors (since Linux 5.2 and 5.12) or by mount(2). Never by a path of the old root.

use std::path::{Path, PathBuf};

use super::super::asm::{Call, Cell, Label, Operand, null, num, sym};
use super::super::context::{Context, Recursive, u64_of};
use super::{Attributes, classic, relative};
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::host::Features;
use crate::policy::{Source, Submounts};

/// A place below the new root.
#[derive(Clone, Debug)]
pub(in super::super) enum At<'a> {
    /// The new root itself.
    Root,
    /// A path in it.
    Path(&'a Path),
    /// An entry of a directory that is open.
    Entry(Cell, &'static str),
}

/// A file system to be made.
#[derive(Clone, Debug)]
pub(in super::super) struct Fresh<'a> {
    pub(in super::super) kind: &'static str,
    pub(in super::super) options: &'a [(&'static str, String)],
    pub(in super::super) attributes: Attributes,
}

/// Whether mounts are handled by descriptors.
pub(in super::super) fn by_descriptor(context: &Context<'_>) -> bool {
    context.has(Features::MOUNT_API)
}

/// Whether a detached tree can be restricted before it is attached.
pub(super) fn before_attached(context: &Context<'_>) -> bool {
    context.has(Features::MOUNT_API | Features::MOUNT_SETATTR)
}

/// Before Linux 5.12 the mounts below a source are restricted one by one, by path: below a descriptor there is no such list.
pub(in super::super) fn can_restrict(
    context: &Context<'_>,
    source: &Source,
    submounts: Submounts,
    object: &Object,
) -> Result<()> {
    if before_attached(context) || matches!(source, Source::Path(_)) || submounts == Submounts::Exclude {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, Step::Mount, object.clone());
    let why = "the mounts below a descriptor can be restricted only by mount_setattr (Linux 5.12): bind the path, or exclude them";
    Err(error.detail(why))
}

/// Opens a place into the cell `target`; what is mounted there is what is opened.
pub(in super::super) fn open_at(context: &mut Context<'_>, at: &At<'_>) {
    match at {
        At::Root => {
            let (root, target) = (context.root.word(), context.target);
            let command = sym(u64_of(libc::F_DUPFD_CLOEXEC), "F_DUPFD_CLOEXEC");
            let call = Call::new(libc::SYS_fcntl, "fcntl").arg(root).arg(command).arg(num(3));
            context.asm.call(call.into(target));
        }
        At::Path(path) => open_target(context, path),
        At::Entry(directory, name) => {
            let name = context.asm.string(name.as_bytes());
            let bits = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let flags = sym(u64_of(bits), "O_PATH|O_NOFOLLOW|O_CLOEXEC");
            let call = Call::new(libc::SYS_openat, "openat").arg(directory.word()).arg(name).arg(flags);
            context.asm.call(call.into(context.target));
        }
    }
}

/// Opens `target` below the new root into the cell `target`. No symlink on the way can lead out: the root is the new one
/// (`openat2`, `RESOLVE_IN_ROOT`, since Linux 5.6); where that call is absent every symlink on the way is refused.
fn open_target(context: &mut Context<'_>, target: &Path) {
    let path = relative(target);
    if context.has(Features::OPENAT2) {
        let name = context.asm.string(&path);
        // struct open_how: flags, mode, resolve (RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT).
        let how = [u64_of(libc::O_PATH | libc::O_CLOEXEC), 0, 0x02 | 0x10];
        let how = context.asm.words(&how, "{O_PATH|O_CLOEXEC, RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT}");
        let call = Call::new(libc::SYS_openat2, "openat2").arg(context.root.word()).arg(name).arg(how);
        context.asm.call(call.arg(sym(24, "24")).into(context.target));
        return;
    }
    let flags = sym(u64_of(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC), "O_PATH|O_NOFOLLOW|O_CLOEXEC");
    let (at, previous) = (context.target, context.asm.cell("previous"));
    for (index, part) in path.split(|byte| *byte == b'/').enumerate() {
        let name = context.asm.string(part);
        let base = if index == 0 { context.root.word() } else { previous.word() };
        if index > 0 {
            context.asm.set(previous, &at.word(), &num(0));
        }
        let call = Call::new(libc::SYS_openat, "openat").arg(base).arg(name).arg(flags.clone());
        context.asm.call(call.into(at));
        if index > 0 {
            context.close(previous);
        }
    }
}

/// Makes a file system and attaches it. A refusal of the mount itself goes to `otherwise`, if there is one. With `into` its
/// root stays open there.
pub(in super::super) fn fresh(
    context: &mut Context<'_>,
    what: &Fresh<'_>,
    at: &At<'_>,
    into: Option<Cell>,
    otherwise: Option<Label>,
) {
    if !by_descriptor(context) {
        return classic::fresh(context, what, at, into, otherwise);
    }
    let tree = context.tree;
    make(context, what, otherwise);
    open_at(context, at);
    let target = context.target;
    move_to(context, &tree.word(), &target.word());
    // It is attached, and where the caller goes on with it, not yet what it has to be.
    let escape = context.asm.enter_required();
    context.close(target);
    match into {
        Some(cell) => context.asm.set(cell, &tree.word(), &num(0)),
        None => context.close(tree),
    }
    context.asm.leave_required(escape);
}

/// `fsopen`, `fsconfig`, `fsmount` into the cell `tree`: a file system that is mounted nowhere yet.
pub(in super::super) fn make(context: &mut Context<'_>, what: &Fresh<'_>, otherwise: Option<Label>) {
    let (fs, tree) = (context.fs, context.tree);
    let asm = &mut context.asm;
    let name = asm.string(what.kind.as_bytes());
    asm.call(Call::new(libc::SYS_fsopen, "fsopen").arg(name).arg(sym(1, "FSOPEN_CLOEXEC")).into(fs));
    for (key, value) in what.options {
        let key = asm.string(key.as_bytes());
        let (set, value) = if value.is_empty() {
            (sym(0, "FSCONFIG_SET_FLAG"), null())
        } else {
            (sym(1, "FSCONFIG_SET_STRING"), asm.string(value.as_bytes()))
        };
        let call = Call::new(libc::SYS_fsconfig, "fsconfig").arg(fs.word()).arg(set).arg(key);
        asm.call(or_else(call.arg(value).arg(num(0)), otherwise));
    }
    let call = Call::new(libc::SYS_fsconfig, "fsconfig").arg(fs.word()).arg(sym(6, "FSCONFIG_CMD_CREATE"));
    asm.call(or_else(call.arg(null()).arg(null()).arg(num(0)), otherwise));
    let attributes = sym(what.attributes.bits, what.attributes.text());
    let call = Call::new(libc::SYS_fsmount, "fsmount").arg(fs.word()).arg(sym(1, "FSMOUNT_CLOEXEC"));
    asm.call(or_else(call.arg(attributes).into(tree), otherwise));
    context.close(fs);
}

/// A call whose failure goes to a label, if there is one.
pub(super) fn or_else(call: Call, label: Option<Label>) -> Call {
    match label {
        Some(label) => call.otherwise(label),
        None => call,
    }
}

/// `open_tree` of what is open in `from`, into the cell `tree`.
pub(in super::super) fn copy_tree(context: &mut Context<'_>, from: &Operand, recursive: Recursive) {
    let (bits, text) = recursive.flag();
    let asm = &mut context.asm;
    let empty = asm.string(b"");
    let flags = sym(
        0x1 | u64_of(libc::O_CLOEXEC) | u64_of(libc::AT_EMPTY_PATH) | bits,
        format!("OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH{text}"),
    );
    let call = Call::new(libc::SYS_open_tree, "open_tree").arg(from.clone()).arg(empty).arg(flags);
    asm.call(call.into(context.tree));
}

/// What is bound, and how.
#[derive(Clone, Debug)]
pub(in super::super) struct Bound {
    pub(in super::super) attributes: Attributes,
    pub(in super::super) recursive: Recursive,
    /// The host's path, for the mounts below it; only where they have to be restricted one by one.
    pub(in super::super) path: Option<PathBuf>,
}

/// Attaches a copy of what is open in `from`, restricted: before it is attached where the kernel can, else right after.
pub(in super::super) fn bind(context: &mut Context<'_>, from: Cell, bound: &Bound, at: &At<'_>) {
    if !by_descriptor(context) {
        classic::bind(context, from, bound.recursive, at);
        return classic::restrict(context, bound, at);
    }
    let tree = context.tree;
    copy_tree(context, &from.word(), bound.recursive);
    if before_attached(context) {
        set_attributes(context, &tree.word(), bound.attributes, bound.recursive);
    }
    open_at(context, at);
    let target = context.target;
    move_to(context, &tree.word(), &target.word());
    // It is attached: a descriptor that cannot be closed is no reason to leave it as it is.
    let escape = context.asm.enter_required();
    context.close(target);
    context.close(tree);
    if !before_attached(context) {
        classic::restrict(context, bound, at);
    }
    context.asm.leave_required(escape);
}

/// Restricts a tree before it is attached, where the kernel can.
pub(in super::super) fn restrict_detached(context: &mut Context<'_>, tree: &Operand, bound: &Bound) {
    if before_attached(context) {
        set_attributes(context, tree, bound.attributes, bound.recursive);
    }
}

/// Restricts a root that is attached, where it could not be done before.
pub(in super::super) fn restrict_root(context: &mut Context<'_>, bound: &Bound) {
    if !before_attached(context) {
        classic::restrict(context, bound, &At::Root);
    }
}

/// Attaches a copy of what is open in `from`, with the flags that it has.
pub(in super::super) fn copy(context: &mut Context<'_>, from: Cell, at: &At<'_>) {
    if !by_descriptor(context) {
        return classic::bind(context, from, Recursive::No, at);
    }
    let tree = context.tree;
    copy_tree(context, &from.word(), Recursive::No);
    open_at(context, at);
    let target = context.target;
    move_to(context, &tree.word(), &target.word());
    context.close(target);
    context.close(tree);
}

/// Makes the mount whose root is open in `cell` read-only, without what is mounted on it.
pub(in super::super) fn seal(context: &mut Context<'_>, cell: Cell, attributes: Attributes) {
    if before_attached(context) {
        set_attributes(context, &cell.word(), attributes, Recursive::No);
    } else {
        classic::remount(context, cell, attributes.bits);
    }
}

/// `mount_setattr(tree, "", AT_EMPTY_PATH, {attr_set}, 32)` (since Linux 5.12).
fn set_attributes(context: &mut Context<'_>, tree: &Operand, attributes: Attributes, recursive: Recursive) {
    let (bits, text) = recursive.flag();
    let asm = &mut context.asm;
    let empty = asm.string(b"");
    let flags = sym(u64_of(libc::AT_EMPTY_PATH) | bits, format!("AT_EMPTY_PATH{text}"));
    let attr = asm.words(&[attributes.bits, 0, 0, 0], format!("{{{}}}", attributes.text()));
    let call = Call::new(libc::SYS_mount_setattr, "mount_setattr").arg(tree.clone()).arg(empty);
    asm.call(call.arg(flags).arg(attr).arg(sym(32, "32")));
}

/// `move_mount` from one descriptor to another.
pub(in super::super) fn move_to(context: &mut Context<'_>, tree: &Operand, target: &Operand) {
    let asm = &mut context.asm;
    let empty = asm.string(b"");
    let flags = sym(0x4 | 0x40, "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH");
    let call = Call::new(libc::SYS_move_mount, "move_mount").arg(tree.clone()).arg(empty.clone());
    asm.call(call.arg(target.clone()).arg(empty).arg(flags));
}
