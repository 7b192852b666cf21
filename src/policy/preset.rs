//! Presets: lists of mounts for common sandboxes. It must not look at the host; what is absent there is mirrored as absent.

use super::mount::{FileItem, Mount, MountKind, ProcMount, Tmpfs};

/// Programs and libraries, on merged-usr (symlinks) and unmerged (directories) layouts, and where other distributions
/// keep them.
const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu"];

/// The few files of `/etc` that dynamic programs need: the loader's cache and configuration, alternatives that `/usr/bin`
/// points to, name service order, certificates, time zone, language runtimes.
const ETC: [&str; 26] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/ld-musl-x86_64.path",
    "/etc/alternatives",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/mime.types",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki",
    "/etc/crypto-policies",
    "/etc/java-openjdk",
    "/etc/java-17-openjdk",
    "/etc/python3",
    "/etc/perl",
    "/etc/profile.d/java.sh",
    "/etc/terminfo",
];

/// The host's programs read-only, `/proc`, `/dev`, private `/tmp`, `/var/tmp`, `/run` and a home.
pub(super) fn system_read_only(uid: u32, gid: u32) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = SYSTEM.iter().map(|path| Mount::bind(*path, *path).mirror()).collect();
    mounts.push(Mount::new("/etc", MountKind::Directory(0o755)));
    mounts.extend(ETC.iter().map(|path| Mount::bind(*path, *path).mirror()));
    mounts.extend(accounts(uid, gid));
    mounts.push(Mount::new("/proc", MountKind::Proc(ProcMount::default())));
    mounts.push(Mount::new("/dev", MountKind::Dev));
    mounts.push(Mount::tmpfs("/tmp", Tmpfs { mode: 0o1777, size: 256 << 20, ..Tmpfs::default() }));
    mounts.push(Mount::new("/var", MountKind::Directory(0o755)));
    mounts.push(Mount::new("/var/tmp", MountKind::Symlink("../tmp".into())));
    mounts.push(Mount::tmpfs("/run", Tmpfs { size: 16 << 20, ..Tmpfs::default() }));
    mounts.push(Mount::tmpfs("/home", Tmpfs { mode: 0o755, ..Tmpfs::default() }));
    mounts.push(Mount::new("/home/sandbox", MountKind::Directory(0o755)));
    mounts
}

/// A `passwd` and a `group` with root, the program's own ids and nobody, and a `hosts` file.
fn accounts(uid: u32, gid: u32) -> Vec<Mount> {
    let mut passwd = String::from("root:x:0:0:root:/root:/usr/sbin/nologin\n");
    let mut group = String::from("root:x:0:\n");
    if uid != 0 {
        passwd.push_str(&format!("sandbox:x:{uid}:{gid}:sandbox:/home/sandbox:/bin/sh\n"));
    }
    if gid != 0 {
        group.push_str(&format!("sandbox:x:{gid}:\n"));
    }
    passwd.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    group.push_str("nogroup:x:65534:\n");
    let file = |path: &str, text: String| {
        Mount::new(path, MountKind::File(FileItem { contents: text.into_bytes(), mode: 0o444 }))
    };
    vec![
        file("/etc/passwd", passwd),
        file("/etc/group", group),
        file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
    ]
}
