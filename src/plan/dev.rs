//! A minimal `/dev`: six nodes by bind, shm, a devpts of its own, the customary links; read-only itself.

use std::path::{Path, PathBuf};

use super::asm::{Call, Cell, num, sym};
use super::bind::{DEVICES, attach_source};
use super::context::{Context, Recursive, SourceHow};
use super::mount::attach::{At, Fresh};
use super::mount::{Attributes, Ground, attach, make_directory};
use crate::error::{Object, Step};
use crate::machine::layout::SOURCE_ABSENT;
use crate::policy::{Execution, Source};

/// What programs expect as links (`/dev` of every distribution).
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Most bytes in `/dev/shm`.
const SHM_SIZE: &str = "67108864";

pub(super) fn dev(context: &mut Context<'_>, target: &Path, ground: Ground) {
    if ground == Ground::Own {
        make_directory(context, target, 0o755);
    }
    let dev = context.asm.cell("dev");
    let options = [("mode", "0755".to_owned()), ("size", "64k".to_owned()), ("nr_inodes", "64".to_owned())];
    let what = Fresh { kind: "tmpfs", options: &options, attributes: Attributes::PLAIN };
    attach::fresh(context, &what, &At::Path(target), Some(dev), None);
    let escape = context.asm.enter_required();
    for (name, major, minor) in DEVICES {
        node(context, dev, (name, major, minor));
    }
    context.asm.step(Step::Dev, Object::SandboxPath(target.to_path_buf()));
    for (to, name) in LINKS {
        let (to, name) = (context.asm.string(to.as_bytes()), context.asm.string(name.as_bytes()));
        context.asm.call(Call::new(libc::SYS_symlinkat, "symlinkat").arg(to).arg(dev.word()).arg(name));
    }
    let shm = [("mode", "1777".to_owned()), ("size", SHM_SIZE.to_owned()), ("nr_inodes", "4096".to_owned())];
    directory(context, dev, "shm");
    let attributes = Attributes::PLAIN.with(Execution::Denied);
    let what = Fresh { kind: "tmpfs", options: &shm, attributes };
    attach::fresh(context, &what, &At::Entry(dev, "shm"), None, None);
    terminals(context, dev, target);
    attach::seal(context, dev, Attributes::READ_ONLY_ROOT);
    context.close(dev);
    context.asm.leave_required(escape);
}

fn directory(context: &mut Context<'_>, dev: Cell, name: &str) {
    let name = context.asm.string(name.as_bytes());
    let mode = sym(0o755, "0755");
    context.asm.call(Call::new(libc::SYS_mkdirat, "mkdirat").arg(dev.word()).arg(name).arg(mode));
}

fn node(context: &mut Context<'_>, dev: Cell, (name, major, minor): (&'static str, u32, u32)) {
    let host = PathBuf::from("/dev").join(name);
    let object = Object::Mount { source: "device".into(), target: host.clone(), how: "" };
    context.asm.step(Step::Dev, object.clone());
    // A host without a terminal device is still a host; the other five every program may count on.
    let how = if name == "tty" { SourceHow::IfExists } else { SourceHow::Device { major, minor } };
    let index = context.source(Source::Path(host), how, object, (Attributes::DEVICE.bits, Recursive::No));
    let done = context.asm.label();
    if how == SourceHow::IfExists {
        let kind = Cell::brief(context.sources[index].facts, "source").word();
        context.asm.if_equal(&kind, u64::MAX, sym(SOURCE_ABSENT, "absent"), done);
    }
    let file = context.asm.string(name.as_bytes());
    let mode = sym(u64::from(libc::S_IFREG | 0o444), "S_IFREG|0444");
    let call = Call::new(libc::SYS_mknodat, "mknodat").arg(dev.word()).arg(file.clone());
    context.asm.call(call.arg(mode).arg(num(0)));
    attach_source(context, index, (Attributes::DEVICE, Recursive::No), &At::Entry(dev, name));
    context.asm.bind(done);
}

/// A devpts of its own (Documentation/filesystems/devpts.rst). The group of terminals is left to be the opener's: group 5
/// is not mapped.
fn terminals(context: &mut Context<'_>, dev: Cell, target: &Path) {
    context.asm.step(Step::Dev, Object::SandboxPath(target.join("pts")));
    directory(context, dev, "pts");
    let options = [("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned())];
    // Not NODEV: its entries are devices.
    let what = Fresh { kind: "devpts", options: &options, attributes: Attributes::DEVICE };
    attach::fresh(context, &what, &At::Entry(dev, "pts"), None, None);
}
