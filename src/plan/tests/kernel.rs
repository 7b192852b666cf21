//! How the scripted kernel answers: descriptors behave as they do in Linux, every other call it knows just succeeds.

use super::world::Fd;
use super::world::Over;
use super::world::Role;
use super::world::Scripted;
use super::world::What;
use crate::machine::layout::FD_CALLER;
use crate::machine::wire::Message;

/// What statx says of every file: the brief of a launch says the same.
pub(super) const INODE: u64 = 7;
pub(super) const DEVICE: u64 = 9;
/// Init's child, and a stranger that it inherits.
pub(super) const PROGRAM_PID: i64 = 2;
const ORPHAN_PID: i64 = 3;

type Answer = Result<i64, i32>;

/// Calls that have no result worth a script.
const PLAIN: [i64; 39] = [
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chdir,
    libc::SYS_umask,
    libc::SYS_prctl,
    libc::SYS_capset,
    libc::SYS_setsid,
    libc::SYS_keyctl,
    libc::SYS_setgroups,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_prlimit64,
    libc::SYS_setpriority,
    libc::SYS_personality,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_kill,
    libc::SYS_faccessat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_fchdir,
    libc::SYS_fsconfig,
    libc::SYS_ioctl,
    libc::SYS_getppid,
    libc::SYS_getpid,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_unlinkat,
    libc::SYS_getresuid,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_gettid,
    libc::SYS_set_robust_list,
    libc::SYS_fchownat,
];

/// Which arguments of a call are descriptors; `AT_FDCWD` is fine too.
fn descriptors(nr: i64) -> &'static [usize] {
    match nr {
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_mkdirat
        | libc::SYS_mknodat
        | libc::SYS_fsconfig
        | libc::SYS_fsmount
        | libc::SYS_open_tree
        | libc::SYS_mount_setattr
        | libc::SYS_statx
        | libc::SYS_readlinkat
        | libc::SYS_fchdir
        | libc::SYS_ioctl
        | libc::SYS_faccessat
        | libc::SYS_execveat
        | libc::SYS_write
        | libc::SYS_read
        | libc::SYS_sendto
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_fcntl
        | libc::SYS_dup3
        | libc::SYS_landlock_add_rule
        | libc::SYS_landlock_restrict_self
        | libc::SYS_fchownat
        | libc::SYS_setns
        | libc::SYS_unlinkat => &[0],
        libc::SYS_symlinkat => &[1],
        libc::SYS_move_mount => &[0, 2],
        _ => &[],
    }
}

fn number(raw: u64) -> i32 {
    i32::try_from(raw.cast_signed()).unwrap_or(-1)
}

/// What a failing call does all the same: close(2) gives the number back whatever it says.
pub(super) fn even_if_failed(world: &mut Scripted, nr: i64, args: [u64; 6]) {
    if nr == libc::SYS_close {
        world.fds.remove(&number(args[0]));
    }
}

fn has(bits: u64, flag: i32) -> bool {
    bits & u64::from(flag.cast_unsigned()) != 0
}

/// A new descriptor with the lowest free number.
fn open(world: &mut Scripted, fd: Fd) -> Answer {
    world.serial += 1;
    let serial = world.serial;
    put(world, Fd { serial, ..fd }, 0)
}

fn put(world: &mut Scripted, fd: Fd, from: i32) -> Answer {
    let free = (from..).find(|number| !world.fds.contains_key(number)).unwrap_or(i32::MAX);
    world.fds.insert(free, fd);
    Ok(i64::from(free))
}

pub(super) fn answer(world: &mut Scripted, nr: i64, args: [u64; 6]) -> Answer {
    for index in descriptors(nr) {
        let fd = number(args[*index]);
        if fd != libc::AT_FDCWD && !world.fds.contains_key(&fd) {
            world.fault(format!("call {nr} on descriptor {fd}, which is not open"));
            return Err(libc::EBADF);
        }
    }
    if PLAIN.contains(&nr) {
        return Ok(0);
    }
    match nr {
        libc::SYS_close | libc::SYS_close_range | libc::SYS_dup3 | libc::SYS_fcntl => tables(world, nr, args),
        libc::SYS_move_mount | libc::SYS_mount_setattr | libc::SYS_mount => trees(world, nr, args),
        libc::SYS_execve | libc::SYS_execveat => {
            world.over = Some(Over::Exec);
            Ok(0)
        }
        libc::SYS_exit_group => {
            world.over = Some(Over::Exit);
            Ok(0)
        }
        _ => opening(world, nr, args).unwrap_or_else(|| waiting(world, nr, args)),
    }
}

fn tables(world: &mut Scripted, nr: i64, args: [u64; 6]) -> Answer {
    let fd = number(args[0]);
    match nr {
        libc::SYS_close => world.fds.remove(&fd).map(|_| 0).ok_or(libc::EBADF),
        libc::SYS_close_range => {
            let inside = |number: i32| {
                u64::from(number.cast_unsigned()) >= args[0] && u64::from(number.cast_unsigned()) <= args[1]
            };
            world.fds.retain(|number, _| !inside(*number));
            Ok(0)
        }
        libc::SYS_dup3 => {
            let to = number(args[1]);
            if fd == to {
                return Err(libc::EINVAL);
            }
            let same = Fd { cloexec: has(args[2], libc::O_CLOEXEC), ..world.fds[&fd] };
            world.fds.insert(to, same);
            Ok(i64::from(to))
        }
        _ => {
            let cloexec = args[1] == u64::from(libc::F_DUPFD_CLOEXEC.cast_unsigned());
            let same = Fd { cloexec, ..world.fds[&fd] };
            put(world, same, number(args[2]))
        }
    }
}

/// The descriptor that a path through `/proc/self/fd` leads to.
fn by_path(world: &Scripted, path: u64) -> Option<Fd> {
    let text = world.text(path);
    let number: i32 = text.strip_prefix("/proc/self/fd/")?.parse().ok()?;
    world.fds.get(&number).copied()
}

/// Mounts are restricted before they are attached, or after that.
fn trees(world: &mut Scripted, nr: i64, args: [u64; 6]) -> Answer {
    let fd = world.fds.get(&number(args[0])).copied();
    match nr {
        libc::SYS_mount if args[3] & libc::MS_REMOUNT != 0 => {
            let serial = by_path(world, args[1]).map(|fd| fd.serial);
            world.mounts.restricted.extend(serial);
            world.mounts.remounts += 1;
        }
        libc::SYS_mount if args[3] & libc::MS_BIND != 0 => {
            let restricted =
                by_path(world, args[0]).is_some_and(|fd| world.mounts.restricted.contains(&fd.serial));
            world.mounts.loose += usize::from(!restricted);
        }
        libc::SYS_mount_setattr => {
            let whole = |fd: &Fd| fd.what != What::Copied { recursive: true } || args[2] & 0x8000 != 0;
            world.mounts.restricted.extend(fd.filter(whole).map(|fd| fd.serial));
        }
        libc::SYS_move_mount => {
            let copied = fd.filter(|fd| matches!(fd.what, What::Copied { .. }));
            let loose = copied.is_some_and(|fd| !world.mounts.restricted.contains(&fd.serial));
            world.mounts.loose += usize::from(loose);
        }
        _ => {}
    }
    Ok(0)
}

fn opening(world: &mut Scripted, nr: i64, args: [u64; 6]) -> Option<Answer> {
    let (what, cloexec) = match nr {
        libc::SYS_openat => (What::Other, has(args[2], libc::O_CLOEXEC)),
        libc::SYS_openat2 => (What::Other, has(world.word_at(args[2]).unwrap_or(0), libc::O_CLOEXEC)),
        libc::SYS_open_tree if args[2] & 1 == 0 => (What::Other, has(args[2], libc::O_CLOEXEC)),
        libc::SYS_open_tree => {
            (What::Copied { recursive: args[2] & 0x8000 != 0 }, has(args[2], libc::O_CLOEXEC))
        }
        libc::SYS_fsopen | libc::SYS_fsmount => (What::Other, args[1] & 1 == 1),
        libc::SYS_socket => (What::Other, has(args[1], libc::SOCK_CLOEXEC)),
        libc::SYS_landlock_create_ruleset => (What::Other, true),
        // With SECCOMP_FILTER_FLAG_NEW_LISTENER.
        libc::SYS_seccomp if args[1] & 8 != 0 => (What::Other, true),
        libc::SYS_seccomp => return Some(Ok(0)),
        libc::SYS_signalfd4 => (What::Other, has(args[3], libc::SFD_CLOEXEC)),
        _ => return None,
    };
    let opened = open(world, Fd { what, serial: 0, cloexec });
    // What is found in a restricted mount, and a copy of it, is restricted too.
    let from = world.fds.get(&number(args[0])).map(|fd| fd.serial);
    let inherits = matches!(nr, libc::SYS_openat | libc::SYS_open_tree);
    if inherits && from.is_some_and(|serial| world.mounts.restricted.contains(&serial)) {
        world.mounts.restricted.insert(world.serial);
    }
    Some(opened)
}

fn waiting(world: &mut Scripted, nr: i64, args: [u64; 6]) -> Answer {
    let length = |raw: u64| i64::try_from(raw).unwrap_or(i64::MAX);
    match nr {
        libc::SYS_mmap => Ok(length(args[0])),
        libc::SYS_getuid => Ok(i64::from(world.script.ids.0)),
        libc::SYS_getgid => Ok(i64::from(world.script.ids.1)),
        libc::SYS_write | libc::SYS_sendto => Ok(length(args[2])),
        libc::SYS_clone if world.script.role == Role::Init => Ok(PROGRAM_PID),
        libc::SYS_clone => Ok(0),
        libc::SYS_statx => {
            let mode = world.script.mode;
            world.put(args[4] + 28, &mode.to_le_bytes());
            world.put(args[4] + 32, &INODE.to_le_bytes());
            world.put(args[4] + 136, &DEVICE.to_le_bytes());
            Ok(0)
        }
        libc::SYS_getcwd => {
            world.put(args[0], b"/\0");
            Ok(2)
        }
        libc::SYS_readlinkat => {
            world.put(args[2], b"usr/x");
            Ok(5)
        }
        libc::SYS_recvfrom => {
            world.put(args[1], &Message::Go.to_bytes());
            Ok(8)
        }
        libc::SYS_recvmsg => message(world, args),
        _ => serving(world, nr, args),
    }
}

/// A message with as many of the descriptors that are still to come as its control buffer has room for.
fn message(world: &mut Scripted, args: [u64; 6]) -> Answer {
    let word = |world: &Scripted, at: u64| world.word_at(at).unwrap_or(0);
    let (vector, control) = (word(world, args[1] + 16), word(world, args[1] + 32));
    let fits = usize::try_from(word(world, args[1] + 40)).unwrap_or(0).saturating_sub(16) / 4;
    let count = fits.min(world.coming.len());
    let cloexec = has(args[2], libc::MSG_CMSG_CLOEXEC);
    let labels: Vec<u64> = world.coming.drain(..count).collect();
    for (at, label) in (control + 16..).step_by(4).zip(labels) {
        let number = open(world, Fd { what: What::Given(label), serial: 0, cloexec })?;
        world.put(at, &i32::try_from(number).unwrap_or(-1).to_le_bytes());
    }
    world.put(control, &(16 + 4 * count as u64).to_le_bytes());
    let kind =
        u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
    world.put(control + 8, &kind.to_le_bytes());
    let buffer = word(world, vector);
    world.put(buffer, &Message::Descriptors.to_bytes());
    Ok(8)
}

/// Init's life: a signal for the program, an orphan, then the program's end.
fn serving(world: &mut Scripted, nr: i64, args: [u64; 6]) -> Answer {
    match nr {
        // With a timeout it is only a look whether the caller lives.
        libc::SYS_ppoll if args[2] != 0 => Ok(0),
        libc::SYS_ppoll => {
            let second = world.word_at(args[0] + 8).unwrap_or(0) & 0xffff_ffff;
            if world.script.caller_dies && second == u64::from(FD_CALLER.cast_unsigned()) && world.woken > 0 {
                world.put(args[0] + 14, &1_u16.to_le_bytes());
            }
            Ok(1)
        }
        libc::SYS_read => {
            let signal = if world.woken == 0 { libc::SIGTERM } else { libc::SIGCHLD };
            world.woken += 1;
            world.put(args[1], &signal.to_le_bytes());
            Ok(128)
        }
        libc::SYS_wait4 => {
            world.waited += 1;
            match world.waited {
                1 => Ok(ORPHAN_PID),
                2 => Ok(0),
                _ => {
                    world.put(args[1], &(3_i32 << 8).to_le_bytes());
                    world.put(args[3], &[1; 144]);
                    Ok(PROGRAM_PID)
                }
            }
        }
        _ => {
            world.fault(format!("call {nr}, which the scripted kernel does not know"));
            Err(libc::ENOSYS)
        }
    }
}
