//! Tests of the probes against kernels made by hand. They must not ask the kernel that they run on.

use crate::host::Features;
use crate::host::KernelVersion;
use crate::host::features::NAMES;

const NEW: KernelVersion = KernelVersion::new(6, 12, 0);

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap()
}

/// All that a probe can find; the right to copy mounts shows only in trying.
fn probed() -> Features {
    Features::all().difference(Features::CLONE_TREES)
}

/// A kernel with everything, as 6.18 answered.
fn complete(call: u32, args: [u64; 6]) -> Result<(), i32> {
    let is = |name| call == number(name);
    if is(libc::SYS_close_range) && args[0] == u64::MAX {
        Ok(())
    } else if is(libc::SYS_execveat) || is(libc::SYS_memfd_create) || is(libc::SYS_seccomp) {
        Err(libc::EFAULT)
    } else if is(libc::SYS_keyctl) {
        Err(libc::EOPNOTSUPP)
    } else if is(libc::SYS_waitid) {
        Err(libc::EBADF)
    } else {
        Err(libc::EINVAL)
    }
}

#[test]
fn a_new_kernel_has_everything() {
    assert_eq!(Features::probe(NEW, complete), probed());
}

#[test]
fn a_kernel_without_the_calls_has_what_only_the_version_tells() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
        let found = Features::probe(NEW, |_, _| Err(errno));
        assert_eq!(found, Features::PROC_SUBSET_PID | Features::TIME_NS_ON_EXEC);
    }
    assert_eq!(Features::probe(KernelVersion::UNKNOWN, |_, _| Err(libc::ENOSYS)), Features::empty());
}

#[test]
fn calls_that_a_filter_refuses_are_absent() {
    let hidden = [
        libc::SYS_clone3,
        libc::SYS_open_tree,
        libc::SYS_fsconfig,
        libc::SYS_mount_setattr,
        libc::SYS_keyctl,
    ];
    let docker =
        |call, args| if hidden.map(number).contains(&call) { Err(libc::EPERM) } else { complete(call, args) };
    let lost = Features::CLONE3
        | Features::CLONE_CLEAR_SIGHAND
        | Features::CLONE_INTO_CGROUP
        | Features::MOUNT_API
        | Features::MOUNT_SETATTR
        | Features::KEYCTL;
    assert_eq!(Features::probe(NEW, docker), probed().difference(lost));
}

#[test]
fn half_a_mount_api_is_none() {
    let half =
        |call, args| if call == number(libc::SYS_fsconfig) { Err(libc::EPERM) } else { complete(call, args) };
    assert_eq!(Features::probe(NEW, half), probed().difference(Features::MOUNT_API));
}

#[test]
fn linux_5_10_knows_close_range_without_its_flag() {
    let old = |call, args: [u64; 6]| match call {
        call if call == number(libc::SYS_close_range) => Err(libc::EINVAL),
        call if call == number(libc::SYS_mount_setattr) => Err(libc::ENOSYS),
        call if call == number(libc::SYS_memfd_create) && args[1] & 0x10 != 0 => Err(libc::EINVAL),
        call if call == number(libc::SYS_seccomp) && args[1] & 0x20 != 0 => Err(libc::EINVAL),
        call => complete(call, args),
    };
    let lost = Features::CLOSE_RANGE_CLOEXEC
        | Features::MOUNT_SETATTR
        | Features::TIME_NS_ON_EXEC
        | Features::SECCOMP_WAIT_KILLABLE;
    assert_eq!(Features::probe(KernelVersion::new(5, 10, 218), old), probed().difference(lost));
}

#[test]
fn memfd_noexec_takes_away_the_executable_memfd() {
    let noexec = |call, args| {
        if call == number(libc::SYS_memfd_create) { Err(libc::EACCES) } else { complete(call, args) }
    };
    assert_eq!(Features::probe(NEW, noexec), probed().difference(Features::EXECUTABLE_MEMFD));
}

#[test]
fn linux_5_3_has_no_pidfd_in_waitid() {
    let old =
        |call, args| if call == number(libc::SYS_waitid) { Err(libc::EINVAL) } else { complete(call, args) };
    let found = Features::probe(KernelVersion::new(5, 3, 0), old);
    assert!(found.contains(Features::CLONE3));
    assert!(
        !found
            .intersects(Features::WAITID_PIDFD | Features::CLONE_INTO_CGROUP | Features::CLONE_CLEAR_SIGHAND)
    );
}

#[test]
fn every_feature_has_one_name() {
    let named = NAMES.iter().fold(Features::empty(), |all, (feature, ..)| all | *feature);
    assert_eq!((named, NAMES.len()), (Features::all(), Features::all().iter().count()));
    for (feature, name, since) in NAMES {
        assert_eq!(feature.described(), Some((name, since)));
        assert!(KernelVersion::parse(since).is_some(), "{since}");
    }
}
