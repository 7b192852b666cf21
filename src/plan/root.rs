//! The root of the mount tree: a file system of its own or a directory of the host; entered at the end by pivot_root.

use super::asm::{Call, Operand, cwd, null, num, sym};
use super::bind;
use super::context::{Context, Recursive, SourceHow, tree_fd, u64_of};
use super::mount::attach::{At, Bound, Fresh};
use super::mount::classic::RootOf;
use super::mount::{Attributes, attach, classic};
use crate::error::{Object, Result, Step};
use crate::policy::{Access, Root, Source, Submounts, Tmpfs};

/// From here on nothing that is mounted inside is seen outside, and the reverse.
pub(super) fn private_propagation(context: &mut Context<'_>) {
    context.asm.step(Step::Propagation, "/");
    let (root, empty) = (context.asm.string(b"/"), null());
    let flags = sym(libc::MS_REC | libc::MS_PRIVATE, "MS_REC|MS_PRIVATE");
    context
        .asm
        .call(Call::new(libc::SYS_mount, "mount").arg(empty).arg(root).arg(null()).arg(flags).arg(null()));
    // Modes of what is made are those that the policy says.
    context.asm.call(Call::new(libc::SYS_umask, "umask").arg(num(0)));
}

/// What masks are made of: a read-only file system with an empty directory and a file that cannot be opened. It is mounted
/// over the new root while that is built, as a mount can only be copied from where it is attached.
pub(super) fn blank(context: &mut Context<'_>) {
    context.asm.step(Step::Root, "masks");
    let blank = context.asm.cell("blank");
    let options = [("mode", "0555".to_owned()), ("size", "4k".to_owned()), ("nr_inodes", "8".to_owned())];
    let what = Fresh { kind: "tmpfs", options: &options, attributes: Attributes::PROC };
    if attach::by_descriptor(context) {
        attach::fresh(context, &what, &At::Root, Some(blank), None);
    } else {
        classic::over_root(context, &what, blank);
    }
    let asm = &mut context.asm;
    let (dir, file) = (asm.string(b"d"), asm.string(b"f"));
    asm.call(Call::new(libc::SYS_mkdirat, "mkdirat").arg(blank.word()).arg(dir).arg(sym(0o555, "0555")));
    let mode = sym(u64::from(libc::S_IFREG), "S_IFREG|000");
    asm.call(Call::new(libc::SYS_mknodat, "mknodat").arg(blank.word()).arg(file).arg(mode).arg(num(0)));
    attach::seal(context, blank, Attributes::PROC_READ_ONLY);
    context.blank = Some(blank);
}

/// `move_mount` of the tree over the old root.
fn over_old_root(context: &mut Context<'_>, tree: &Operand) {
    let root = context.root;
    let asm = &mut context.asm;
    let (empty, slash) = (asm.string(b""), asm.string(b"/"));
    let flags = sym(0x4, "MOVE_MOUNT_F_EMPTY_PATH");
    let call = Call::new(libc::SYS_move_mount, "move_mount").arg(tree.clone()).arg(empty).arg(cwd());
    asm.call(call.arg(slash).arg(flags));
    asm.set(root, tree, &num(0));
}

/// Mounts the new root over the old one. Paths that start at the process's root still lead to the old one, the descriptor
/// to the new; no directory of the host is needed.
pub(super) fn mount_root(context: &mut Context<'_>) -> Result<()> {
    match context.policy.root.clone() {
        Root::Empty { tmpfs, .. } => {
            context.asm.step(Step::Root, "tmpfs");
            let options = tmpfs_options(&tmpfs);
            let what = Fresh { kind: "tmpfs", options: &options, attributes: Attributes::PLAIN };
            if !attach::by_descriptor(context) {
                classic::root(context, &RootOf::Fresh(what));
                return Ok(());
            }
            attach::make(context, &what, None);
            let tree = context.tree.word();
            over_old_root(context, &tree);
        }
        Root::Directory { source, access } => {
            attach::can_restrict(context, &source, Submounts::Include, &root_object(&source, access))?;
            directory(context, source, access);
        }
    }
    Ok(())
}

fn directory(context: &mut Context<'_>, source: Source, access: Access) {
    let object = root_object(&source, access);
    context.asm.step(Step::Root, object.clone());
    let attributes = Attributes::of_bind(access);
    let path = if let Source::Path(path) = &source { Some(path.clone()) } else { None };
    let index = context.source(source, SourceHow::Required, object, (attributes.bits, Recursive::Yes));
    if let Some(plan) = context.sources[index].tree {
        return over_old_root(context, &tree_fd(plan));
    }
    let from = bind::open_in_child(context, index);
    let bound = Bound { attributes, recursive: Recursive::Yes, path };
    if attach::by_descriptor(context) {
        attach::copy_tree(context, &from.word(), Recursive::Yes);
        let tree = context.tree.word();
        attach::restrict_detached(context, &tree, &bound);
        over_old_root(context, &tree);
    } else {
        classic::root(context, &RootOf::Bind(from));
    }
    context.close(from);
    attach::restrict_root(context, &bound);
}

fn root_object(source: &Source, access: Access) -> Object {
    let how = match access {
        Access::ReadOnly => "read-only",
        Access::ReadWrite => "read-write",
    };
    let source = match source {
        Source::Path(path) => format!("{path:?}"),
        Source::Fd(_) => "a descriptor".to_owned(),
    };
    Object::Mount { source: source.into(), target: "/".into(), how }
}

/// Options of a tmpfs, as fsconfig takes them.
pub(super) fn tmpfs_options(tmpfs: &Tmpfs) -> [(&'static str, String); 3] {
    [
        ("mode", format!("{:04o}", tmpfs.mode)),
        ("size", tmpfs.size.to_string()),
        ("nr_inodes", tmpfs.inodes.to_string()),
    ]
}

/// Takes the masks' file system off the new root again: it would stay between the two roots, and the old one with it.
pub(super) fn unmount_blank(context: &mut Context<'_>) {
    if context.blank.is_none() {
        return;
    }
    context.asm.step(Step::Root, "masks");
    let root = context.root.word();
    let asm = &mut context.asm;
    asm.call(Call::new(libc::SYS_fchdir, "fchdir").arg(root));
    let (dot, detach) = (asm.string(b"."), sym(u64_of(libc::MNT_DETACH), "MNT_DETACH"));
    asm.call(Call::new(libc::SYS_umount2, "umount2").arg(dot).arg(detach));
}

/// The root itself becomes read-only once the tree stands on it; what is mounted on it keeps its own access.
pub(super) fn seal_root(context: &mut Context<'_>) {
    if let Root::Empty { access: Access::ReadOnly, .. } = context.policy.root {
        context.asm.step(Step::Root, "read-only");
        let root = context.root;
        attach::seal(context, root, Attributes::READ_ONLY_ROOT);
    }
}

/// `pivot_root(".", ".")` (pivot_root(2)): the old root ends up over the new one and is detached from there.
pub(super) fn pivot(context: &mut Context<'_>) {
    context.asm.step(Step::Pivot, "");
    let root = context.root.word();
    let asm = &mut context.asm;
    asm.call(Call::new(libc::SYS_fchdir, "fchdir").arg(root));
    let (dot, same, slash) = (asm.string(b"."), asm.string(b"."), asm.string(b"/"));
    asm.call(Call::new(libc::SYS_pivot_root, "pivot_root").arg(dot.clone()).arg(same));
    let detach = sym(u64_of(libc::MNT_DETACH), "MNT_DETACH");
    asm.call(Call::new(libc::SYS_umount2, "umount2").arg(dot).arg(detach));
    asm.call(Call::new(libc::SYS_chdir, "chdir").arg(slash));
}
