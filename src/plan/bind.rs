//! Binds: from a tree that the caller passes, or from the path opened in the child's own mount namespace and compared with
//! what the caller saw.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::asm::{Call, Cell, Label, cwd, fd, num, sym};
use super::context::{Context, Recursive, SourceHow, tree_fd, u64_of};
use super::mount::attach::{At, Bound};
use super::mount::{Attributes, Ground, attach, make_directory, make_file, symlink};
use crate::error::Object;
use crate::machine::layout::{SOURCE_ABSENT, SOURCE_DIRECTORY, SOURCE_SYMLINK};
use crate::policy::{Absence, Access, Bind, Need, Source, Submounts};

/// Number of the character device behind a name of `/dev` (Documentation/admin-guide/devices.txt).
pub(super) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Room for the text of a mirrored symlink and its NUL: each has its own zeroes, as readlink writes none.
const LINK_MAX: usize = 256;

/// How a bind is named in errors.
pub(super) fn object(bind: &Bind, target: PathBuf) -> Object {
    let how = match bind.access {
        Access::ReadOnly => "read-only",
        Access::ReadWrite => "read-write",
    };
    let source = match &bind.source {
        Source::Path(path) => format!("{path:?}"),
        Source::Fd(_) => "a descriptor".to_owned(),
    };
    Object::Mount { source: source.into(), target, how }
}

fn facts(context: &Context<'_>, index: usize) -> Cell {
    Cell::brief(context.sources[index].facts, "source")
}

/// A bind of the policy.
pub(super) fn bind(context: &mut Context<'_>, bind: &Bind, need: Need, (target, ground): (&Path, Ground)) {
    let recursive = match bind.submounts {
        Submounts::Include => Recursive::Yes,
        Submounts::Exclude => Recursive::No,
    };
    let attributes = Attributes::of_bind(bind.access).with(bind.execution);
    let how = match bind.absence {
        Absence::Refuse if need == Need::Required => SourceHow::Required,
        // A preferred bind of what is not there is left out, and the report names it as absent.
        Absence::Refuse | Absence::Skip => SourceHow::IfExists,
        Absence::Mirror => SourceHow::Mirror,
    };
    let object = object(bind, target.to_path_buf());
    let index = context.source(bind.source.clone(), how, object, (attributes.bits, recursive));
    let done = context.asm.label();
    if how != SourceHow::Required {
        let kind = facts(context, index).word();
        context.asm.if_equal(&kind, u64::MAX, sym(SOURCE_ABSENT, "absent"), done);
    }
    if how == SourceHow::Mirror && ground == Ground::Own {
        mirrored_symlink(context, index, target, done);
    }
    place(context, index, target, ground);
    attach_source(context, index, (attributes, recursive), &At::Path(target));
    context.asm.bind(done);
}

/// A symlink of the host becomes the same symlink inside.
fn mirrored_symlink(context: &mut Context<'_>, index: usize, target: &Path, done: Label) {
    let Source::Path(path) = context.sources[index].source.clone() else { return };
    let next = context.asm.label();
    let kind = facts(context, index).word();
    context.asm.if_differs(&kind, u64::MAX, sym(SOURCE_SYMLINK, "symlink"), next);
    let (text, length) = (context.asm.cell_of("link", LINK_MAX), context.asm.cell("length"));
    let name = context.asm.string(path.as_os_str().as_bytes());
    let call = Call::new(libc::SYS_readlinkat, "readlinkat").arg(cwd()).arg(name);
    let most = num(i64::try_from(LINK_MAX).unwrap_or(0));
    context.asm.call(call.arg(text.pointer()).arg(most.clone()).into(length));
    let (short, why) = (context.asm.label(), "the host's symlink is longer than 255 bytes");
    context.asm.if_less(&length.word(), most, short);
    context.asm.fail(why);
    context.asm.bind(short);
    symlink(context, text.pointer(), target);
    context.asm.goto(done);
    context.asm.bind(next);
}

/// Makes the mount point, of the source's kind, where it is ours to make.
fn place(context: &mut Context<'_>, index: usize, target: &Path, ground: Ground) {
    if ground == Ground::Foreign {
        return;
    }
    let (file, made) = (context.asm.label(), context.asm.label());
    let kind = facts(context, index).word();
    context.asm.if_differs(&kind, u64::MAX, sym(SOURCE_DIRECTORY, "directory"), file);
    make_directory(context, target, 0o755);
    context.asm.goto(made);
    context.asm.bind(file);
    make_file(context, target);
    context.asm.bind(made);
}

/// Attaches a source: the tree that the caller passes, restricted already, or one that the child makes.
pub(super) fn attach_source(
    context: &mut Context<'_>,
    index: usize,
    (attributes, recursive): (Attributes, Recursive),
    at: &At<'_>,
) {
    if let Some(plan) = context.sources[index].tree {
        attach::open_at(context, at);
        let target = context.target;
        attach::move_to(context, &tree_fd(plan), &target.word());
        context.close(target);
        let call = Call::new(libc::SYS_close, "close").arg(fd(plan.fd, "tree"));
        return context.asm.call(call.fine(&[libc::EINTR]));
    }
    let path = match &context.sources[index].source {
        Source::Path(path) => Some(path.clone()),
        Source::Fd(_) => None,
    };
    let from = open_in_child(context, index);
    attach::bind(context, from, &Bound { attributes, recursive, path }, at);
    context.close(from);
}

/// Opens the path in the child's mount namespace: a mount of the caller's namespace cannot be copied from here. What is
/// found has to be what the caller found, by device and inode.
pub(super) fn open_in_child(context: &mut Context<'_>, index: usize) -> Cell {
    let seen = facts(context, index);
    let path = match context.sources[index].source.clone() {
        Source::Path(path) => context.asm.string(path.as_os_str().as_bytes()),
        // The caller writes there where its descriptor leads.
        Source::Fd(_) => {
            let path = context.brief("path", 4096);
            context.sources[index].path_at = Some(path.address.offset);
            path.pointer()
        }
    };
    let (source, stat) = (context.fs, context.stat);
    let asm = &mut context.asm;
    let flags = sym(u64_of(libc::O_PATH | libc::O_CLOEXEC), "O_PATH|O_CLOEXEC");
    asm.call(Call::new(libc::SYS_openat, "openat").arg(cwd()).arg(path).arg(flags).into(source));
    let empty = asm.string(b"");
    let at = sym(u64_of(libc::AT_EMPTY_PATH), "AT_EMPTY_PATH");
    let mask = sym(u64::from(libc::STATX_TYPE | libc::STATX_INO), "STATX_TYPE|STATX_INO");
    let call = Call::new(libc::SYS_statx, "statx").arg(source.word()).arg(empty).arg(at).arg(mask);
    asm.call(call.arg(stat.pointer()));
    let why = "the path leads elsewhere than a moment ago";
    asm.assert_equal(&stat.word_at(32), u64::MAX, seen.word_at(8), why);
    asm.assert_equal(&stat.word_at(136), u64::MAX, seen.word_at(16), why);
    source
}

/// A character device of the host, under its own name.
pub(super) fn device(context: &mut Context<'_>, target: &Path, ground: Ground) {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number = DEVICES.iter().find(|(known, ..)| *known == name && target.starts_with("/dev"));
    let how = match number {
        Some((_, major, minor)) => SourceHow::Device { major: *major, minor: *minor },
        None => SourceHow::Required,
    };
    let object = Object::Mount { source: "device".into(), target: target.to_path_buf(), how: "" };
    let source = Source::Path(target.to_path_buf());
    let index = context.source(source, how, object, (Attributes::DEVICE.bits, Recursive::No));
    if ground == Ground::Own {
        make_file(context, target);
    }
    attach_source(context, index, (Attributes::DEVICE, Recursive::No), &At::Path(target));
}
