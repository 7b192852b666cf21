//! The items of the mount tree, in the user's order: each is built detached, locked down, and only then attached.

use std::path::Component;
pub(super) mod attach;
pub(super) mod classic;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::asm::{Call, Cell, Operand, num, sym};
use super::bind;
use super::context::{Context, u64_of};
use super::root::tmpfs_options;
use super::{dev, proc};
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::policy::{Access, Execution, FileItem, Mount, MountKind, Root, Tmpfs};
use attach::{At, Fresh};

/// `MOUNT_ATTR_*` of linux/mount.h with their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) bits: u64,
}

impl Attributes {
    const RDONLY: u64 = 1;
    const NOSUID: u64 = 2;
    const NODEV: u64 = 4;
    const NOEXEC: u64 = 8;
    pub(super) const PLAIN: Self = Self { bits: Self::NOSUID | Self::NODEV };
    pub(super) const READ_ONLY_ROOT: Self = Self { bits: Self::RDONLY | Self::NOSUID | Self::NODEV };
    pub(super) const PROC: Self = Self { bits: Self::NOSUID | Self::NODEV | Self::NOEXEC };
    pub(super) const PROC_READ_ONLY: Self =
        Self { bits: Self::RDONLY | Self::NOSUID | Self::NODEV | Self::NOEXEC };
    /// A device node can be opened through it, and nothing executed.
    pub(super) const DEVICE: Self = Self { bits: Self::NOSUID | Self::NOEXEC };

    pub(super) fn of_bind(access: Access) -> Self {
        match access {
            Access::ReadOnly => Self::READ_ONLY_ROOT,
            Access::ReadWrite => Self::PLAIN,
        }
    }

    pub(super) fn with(self, execution: Execution) -> Self {
        match execution {
            Execution::Allowed => self,
            Execution::Denied => Self { bits: self.bits | Self::NOEXEC },
        }
    }

    pub(super) fn text(self) -> String {
        let names = [(1, "RDONLY"), (2, "NOSUID"), (4, "NODEV"), (8, "NOEXEC")];
        let list: Vec<&str> =
            names.iter().filter(|(bit, _)| self.bits & bit != 0).map(|(_, name)| *name).collect();
        if list.is_empty() { "0".to_owned() } else { list.join("|") }
    }
}

/// What can be made at a place of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    /// A file system of the sandbox's own: mount points can be made.
    Own,
    /// A part of the host, or something that cannot hold entries: the mount point has to exist.
    Foreign,
}

/// What a target stands on, by the items before it. One foreign item anywhere on the way is enough: whoever owns that tree
/// could lead the way elsewhere.
pub(super) fn ground(root: &Root, earlier: &[Mount], target: &Path) -> Ground {
    let own = |mount: &Mount| matches!(mount.kind(), MountKind::Tmpfs(_) | MountKind::Directory(_));
    let above = earlier.iter().filter(|mount| target != mount.target() && target.starts_with(mount.target()));
    let empty = matches!(root, Root::Empty { .. });
    if empty && above.into_iter().all(own) { Ground::Own } else { Ground::Foreign }
}

/// All items in order.
pub(super) fn mounts(context: &mut Context<'_>) -> Result<()> {
    let list = context.policy.mounts().to_vec();
    let mut made: Vec<PathBuf> = Vec::new();
    for (index, mount) in list.iter().enumerate() {
        let ground = ground(&context.policy.root, &list[..index], mount.target());
        let object = object(mount);
        if ground == Ground::Foreign && makes_entry(mount.kind()) {
            let why = "it would be made in a tree of the host, or in something that stands in one: bind it, or use an empty root";
            return Err(Error::new(ErrorKind::InvalidPolicy, Step::Mount, object).detail(why));
        }
        if let MountKind::Bind(bind) = mount.kind() {
            attach::can_restrict(context, &bind.source, bind.submounts, &object)?;
        }
        let step = step(mount.kind());
        if ground == Ground::Own {
            context.asm.step(step, object.clone());
            parents(context, mount.target(), &mut made);
        }
        context.item(step, object, mount.need, |context| one(context, mount, ground));
        // What was made below is covered now.
        made.retain(|path| path == mount.target() || !path.starts_with(mount.target()));
    }
    Ok(())
}

fn step(kind: &MountKind) -> Step {
    match kind {
        MountKind::Proc(_) => Step::Proc,
        MountKind::Dev => Step::Dev,
        MountKind::Bind(_)
        | MountKind::Tmpfs(_)
        | MountKind::File(_)
        | MountKind::Directory(_)
        | MountKind::Symlink(_)
        | MountKind::Device
        | MountKind::Mask => Step::Mount,
    }
}

fn makes_entry(kind: &MountKind) -> bool {
    matches!(kind, MountKind::File(_) | MountKind::Directory(_) | MountKind::Symlink(_))
}

/// How an item is named in errors.
pub(super) fn object(mount: &Mount) -> Object {
    let target = mount.target().to_path_buf();
    let (source, how): (String, &'static str) = match mount.kind() {
        MountKind::Bind(bind) => return bind::object(bind, target),
        MountKind::Tmpfs(_) => ("tmpfs".into(), ""),
        MountKind::File(_) => ("file".into(), ""),
        MountKind::Directory(_) => ("directory".into(), ""),
        MountKind::Symlink(to) => (format!("symlink to {to:?}"), ""),
        MountKind::Device => ("device".into(), ""),
        MountKind::Dev | MountKind::Proc(_) => (String::new(), ""),
        MountKind::Mask => ("mask".into(), ""),
    };
    Object::Mount { source: source.into(), target, how }
}

fn one(context: &mut Context<'_>, mount: &Mount, ground: Ground) {
    let target = mount.target();
    match mount.kind() {
        MountKind::Bind(bind) => bind::bind(context, bind, mount.need, (target, ground)),
        MountKind::Tmpfs(tmpfs) => filesystem(context, tmpfs, target, ground),
        MountKind::File(file) => write_file(context, file, target),
        MountKind::Directory(mode) => {
            make_directory(context, target, *mode);
            give(context, target);
        }
        MountKind::Symlink(to) => {
            let to = context.asm.string(to.as_os_str().as_bytes());
            symlink(context, to, target);
        }
        MountKind::Device => bind::device(context, target, ground),
        MountKind::Dev => dev::dev(context, target, ground),
        MountKind::Proc(ladder) => proc::proc(context, ladder, target, ground),
        MountKind::Mask => mask(context, &At::Path(target)),
    }
}

/// A path below the new root, as the calls take it: never empty, never absolute.
pub(super) fn relative(target: &Path) -> Vec<u8> {
    let parts: Vec<&[u8]> = target
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
        })
        .collect();
    parts.join(&b'/')
}

/// Makes the directories above a target. Every one of them is in a file system of the sandbox's own, and no symlink.
fn parents(context: &mut Context<'_>, target: &Path, made: &mut Vec<PathBuf>) {
    let mut above: Vec<&Path> = target.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
    above.reverse();
    for path in above {
        if !made.iter().any(|other| other == path) {
            make_directory(context, path, 0o755);
            made.push(path.to_path_buf());
        }
    }
}

/// `mkdirat`; what stands there already is left as it is.
pub(super) fn make_directory(context: &mut Context<'_>, target: &Path, mode: u32) {
    let name = context.asm.string(&relative(target));
    let mode = sym(u64::from(mode), format!("{mode:04o}"));
    let root = context.root.word();
    context
        .asm
        .call(Call::new(libc::SYS_mkdirat, "mkdirat").arg(root).arg(name).arg(mode).fine(&[libc::EEXIST]));
}

/// An empty file as a mount point.
pub(super) fn make_file(context: &mut Context<'_>, target: &Path) {
    let name = context.asm.string(&relative(target));
    let mode = sym(u64::from(libc::S_IFREG | 0o444), "S_IFREG|0444");
    let root = context.root.word();
    context.asm.call(
        Call::new(libc::SYS_mknodat, "mknodat")
            .arg(root)
            .arg(name)
            .arg(mode)
            .arg(num(0))
            .fine(&[libc::EEXIST]),
    );
}

pub(super) fn symlink(context: &mut Context<'_>, to: Operand, target: &Path) {
    let name = context.asm.string(&relative(target));
    let root = context.root.word();
    context.asm.call(Call::new(libc::SYS_symlinkat, "symlinkat").arg(to).arg(root).arg(name));
}

fn write_file(context: &mut Context<'_>, file: &FileItem, target: &Path) {
    let name = context.asm.string(&relative(target));
    let (root, fd) = (context.root.word(), context.fs);
    let asm = &mut context.asm;
    let bits = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let flags = sym(u64_of(bits), "O_WRONLY|O_CREAT|O_TRUNC|O_NOFOLLOW|O_CLOEXEC");
    let mode = sym(u64::from(file.mode), format!("{:04o}", file.mode));
    asm.call(Call::new(libc::SYS_openat, "openat").arg(root).arg(name).arg(flags).arg(mode).into(fd));
    if !file.contents.is_empty() {
        let bytes = asm.bytes(&file.contents, format!("<{} bytes>", file.contents.len()));
        let length = num(i64::try_from(file.contents.len()).unwrap_or(i64::MAX));
        let written = asm.cell("written");
        asm.call(
            Call::new(libc::SYS_write, "write").arg(fd.word()).arg(bytes).arg(length.clone()).into(written),
        );
        asm.assert_equal(&written.word(), u64::MAX, length, "the file system is too small for the file");
    }
    context.close(fd);
}

fn filesystem(context: &mut Context<'_>, tmpfs: &Tmpfs, target: &Path, ground: Ground) {
    if ground == Ground::Own {
        make_directory(context, target, 0o755);
    }
    let options = tmpfs_options(tmpfs);
    let attributes = Attributes::PLAIN.with(tmpfs.execution);
    let what = Fresh { kind: "tmpfs", options: &options, attributes };
    attach::fresh(context, &what, &At::Path(target), None, None);
    give(context, target);
}

/// Without a user namespace the set-up makes files with the caller's ids: what the policy makes for the program becomes the
/// program's.
fn give(context: &mut Context<'_>, target: &Path) {
    let Some((uid, gid)) = context.owner.clone() else { return };
    let escape = context.asm.enter_required();
    attach::open_at(context, &At::Path(target));
    let at = context.target;
    let (empty, flags) = (context.asm.string(b""), sym(u64_of(libc::AT_EMPTY_PATH), "AT_EMPTY_PATH"));
    let call = Call::new(libc::SYS_fchownat, "fchownat").arg(at.word()).arg(empty).arg(uid).arg(gid);
    context.asm.call(call.arg(flags));
    context.close(at);
    context.asm.leave_required(escape);
}

/// Hides what is there: a copy of the blank directory or file over it.
pub(super) fn mask(context: &mut Context<'_>, at: &At<'_>) {
    let (stat, target, from) = (context.stat, context.target, context.fs);
    let Some(blank) = context.blank else { return };
    attach::open_at(context, at);
    let asm = &mut context.asm;
    let empty = asm.string(b"");
    let flags = sym(u64_of(libc::AT_EMPTY_PATH), "AT_EMPTY_PATH");
    let mask = sym(u64::from(libc::STATX_TYPE), "STATX_TYPE");
    let call = Call::new(libc::SYS_statx, "statx").arg(target.word()).arg(empty).arg(flags);
    asm.call(call.arg(mask).arg(stat.pointer()));
    context.close(target);
    let (file, opened) = (context.asm.label(), context.asm.label());
    let directory = sym(u64::from(libc::S_IFDIR), "S_IFDIR");
    context.asm.if_differs(&stat.half(28), u64::from(libc::S_IFMT), directory, file);
    open_blank(context, blank, b"d");
    context.asm.goto(opened);
    context.asm.bind(file);
    open_blank(context, blank, b"f");
    context.asm.bind(opened);
    // The blank file system is sealed, and a copy keeps what it has.
    attach::copy(context, from, at);
    context.close(from);
}

fn open_blank(context: &mut Context<'_>, blank: Cell, name: &[u8]) {
    let name = context.asm.string(name);
    let flags = sym(u64_of(libc::O_PATH | libc::O_CLOEXEC), "O_PATH|O_CLOEXEC");
    let call = Call::new(libc::SYS_openat, "openat").arg(blank.word()).arg(name).arg(flags);
    context.asm.call(call.into(context.fs));
}
