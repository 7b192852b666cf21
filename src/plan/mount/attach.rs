//! Opening a target inside the new root, restricting a detached tree, attaching it. Never by a path of the old root.

use std::path::Path;

use super::super::asm::{Call, Operand, sym};
use super::super::context::{Context, Recursive, u64_of};
use super::{Attributes, relative};
use crate::host::Features;

/// Opens `target` below the new root into the cell `target`. No symlink on the way can lead out: the root is the new one
/// (`openat2`, `RESOLVE_IN_ROOT`, since Linux 5.6); where that call is absent every symlink on the way is refused.
pub(in super::super) fn open_target(context: &mut Context<'_>, target: &Path) {
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
        let base = if index == 0 { context.root.word() } else { at.word() };
        if index > 0 {
            context.asm.set(previous, &at.word(), &sym(0, "0"));
        }
        let call = Call::new(libc::SYS_openat, "openat").arg(base).arg(name).arg(flags.clone());
        context.asm.call(call.into(at));
        if index > 0 {
            context.close(previous);
        }
    }
}

/// `mount_setattr(tree, "", AT_EMPTY_PATH, {attr_set, MS_PRIVATE}, 32)` (since Linux 5.12).
pub(in super::super) fn set_attributes(
    context: &mut Context<'_>,
    tree: &Operand,
    attributes: Attributes,
    recursive: Recursive,
) {
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

/// Attaches a tree at `target`.
pub(in super::super) fn attach(context: &mut Context<'_>, tree: &Operand, target: &Path) {
    open_target(context, target);
    let at = context.target;
    move_to(context, tree, &at.word());
    context.close(at);
}
