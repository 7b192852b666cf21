//! Tests of the mountinfo parser and of what is read off it. They must not read a real mountinfo.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use crate::host::Answer;
use crate::host::Host;
use crate::host::MountEntry;
use crate::host::MountFlags;
use crate::host::MountTable;
use crate::host::ProcView;
use crate::host::chroot::BesideInit;
use crate::host::chroot::judge as chrooted;
use crate::host::proc_view::judge as proc_view;
use crate::host::read::escaped;

/// A virtual machine with control groups of both versions, as it was developed on.
pub(super) const VIRTUAL_MACHINE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334460k,nr_inodes=3083615,mode=755
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=24684084k
26 24 0:24 / /dev/pts rw,relatime - devpts devpts rw,mode=600,ptmxmode=000
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resv_strict,resuid=65534,resgid=65534
29 26 0:26 / /dev/pts rw,relatime - devpts devpts rw,mode=600,ptmxmode=000
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

/// Ubuntu 24.04, shortened.
pub(super) const UBUNTU: &str = "\
24 31 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
25 31 0:23 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
26 31 0:5 / /dev rw,nosuid,relatime shared:2 - devtmpfs udev rw,size=1964936k,nr_inodes=491234,mode=755,inode64
31 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard,errors=remount-ro
32 24 0:6 / /sys/kernel/security rw,nosuid,nodev,noexec,relatime shared:8 - securityfs securityfs rw
34 24 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
38 25 0:32 / /proc/sys/fs/binfmt_misc rw,relatime shared:15 - autofs systemd-1 rw,fd=32,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=5231
120 38 0:45 / /proc/sys/fs/binfmt_misc rw,nosuid,nodev,noexec,relatime shared:66 - binfmt_misc binfmt_misc rw
97 31 7:0 / /snap/core22/1380 ro,nodev,relatime shared:53 - squashfs /dev/loop0 ro,errors=continue,threads=single
515 31 0:4 net:[4026532287] /run/netns/blue rw shared:250 - nsfs nsfs rw
";

/// Inside Docker with its default masks.
pub(super) const DOCKER: &str = "\
648 540 0:62 / / rw,relatime master:281 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B,upperdir=/var/lib/docker/overlay2/c/diff,workdir=/var/lib/docker/overlay2/c/work
649 648 0:65 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
650 648 0:66 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
652 648 0:68 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
653 652 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
657 648 8:1 /var/lib/docker/containers/0a/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw,discard
541 649 0:65 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
542 649 0:65 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
543 649 0:69 / /proc/acpi ro,relatime - tmpfs tmpfs ro,inode64
544 649 0:66 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
545 649 0:66 /null /proc/keys rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
";

fn entry(line: &str) -> MountEntry {
    MountEntry::parse(line).expect(line)
}

#[test]
fn every_line_of_real_machines_is_understood() {
    for text in [VIRTUAL_MACHINE, UBUNTU, DOCKER] {
        let table = MountTable::parse(text);
        assert_eq!((table.entries().len(), table.malformed()), (text.lines().count(), 0));
    }
}

#[test]
fn each_field_is_found() {
    let found = entry(
        "97 31 7:12 /sub /snap/core ro,nodev,relatime shared:53 master:7 propagate_from:2 unbindable - squashfs /dev/loop0 ro,errors=continue",
    );
    assert_eq!((found.id, found.parent, found.device), (97, 31, (7, 12)));
    assert_eq!(
        (found.root.as_path(), found.mount_point.as_path()),
        (Path::new("/sub"), Path::new("/snap/core"))
    );
    assert_eq!(found.options, "ro,nodev,relatime");
    assert_eq!((found.propagation.shared, found.propagation.master), (Some(53), Some(7)));
    assert_eq!((found.propagation.propagate_from, found.propagation.unbindable), (Some(2), true));
    assert_eq!((found.filesystem.as_str(), found.source.to_str()), ("squashfs", Some("/dev/loop0")));
    assert_eq!(found.super_options, "ro,errors=continue");
}

#[test]
fn octal_escapes_become_bytes() {
    let found = entry(r"1 2 0:3 /a\134b /mnt/a\040b\011c\012d\043e rw - fuse.x so\040urce rw");
    assert_eq!(found.root, Path::new("/a\\b"));
    assert_eq!(found.mount_point, Path::new("/mnt/a b\tc\nd#e"));
    assert_eq!(found.source, "so urce");
}

#[test]
fn a_backslash_that_begins_no_escape_stays() {
    let found = entry(r"1 2 0:3 / /a\b\8\09\777\40 rw - tmpfs tmpfs rw");
    assert_eq!(found.mount_point, Path::new(r"/a\b\8\09\777\40"));
}

#[test]
fn mount_points_that_are_not_utf8_survive() {
    let line = b"1 2 0:3 / /mnt/caf\xe9\xff-\xc3\xa9 rw - tmpfs tmpfs rw";
    let found = entry(&escaped(line));
    assert_eq!(found.mount_point.as_os_str(), OsStr::from_bytes(b"/mnt/caf\xe9\xff-\xc3\xa9"));
}

#[test]
fn an_empty_source_and_a_source_of_a_dash_are_no_separators() {
    assert_eq!(entry("1 2 0:3 / /a rw -  tmpfs rw").filesystem, "");
    let empty = entry("1 2 0:3 / /a rw - tmpfs  rw,mode=700");
    assert_eq!((empty.source.as_os_str(), empty.super_options.as_str()), (OsStr::new(""), "rw,mode=700"));
    assert_eq!(entry("1 2 0:3 / /a rw shared:1 - tmpfs - rw").source, "-");
}

#[test]
fn malformed_lines_are_counted_and_left_out() {
    let bad = [
        "x 2 0:3 / /a rw - tmpfs tmpfs rw",
        "1 2 03 / /a rw - tmpfs tmpfs rw",
        "1 2 0:3 / /a rw shared:1 tmpfs tmpfs rw",
        "1 2 0:3 / a rw - tmpfs tmpfs rw",
        "1 2 0:3 / /a rw - tmpfs tmpfs",
        "1 2 0:3",
        " ",
        "4294967296 2 0:3 / /a rw - tmpfs tmpfs rw",
    ];
    let table = MountTable::parse(&format!("{}\n\n{UBUNTU}", bad.join("\n")));
    assert_eq!((table.malformed(), table.entries().len()), (bad.len(), UBUNTU.lines().count()));
}

#[test]
fn no_garbage_makes_the_parser_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(bound).unwrap()).unwrap()
    };
    let alphabet = b" \\-:/\n,0479rwo#\xc3\xff\0";
    for _ in 0..2000 {
        let mut bytes = DOCKER.as_bytes().to_vec();
        for _ in 0..next(40) {
            let at = next(bytes.len());
            bytes[at] = alphabet[next(alphabet.len())];
        }
        bytes.truncate(next(bytes.len()) + 1);
        let text = escaped(&bytes);
        let table = MountTable::parse(&text);
        let lines = text.lines().filter(|line| !line.is_empty()).count();
        assert_eq!(table.entries().len() + table.malformed(), lines);
        let _view = proc_view(&table);
        let _ = (table.holding(Path::new("/proc/sys")), chrooted(Some(&table), BesideInit::Unseen));
    }
}

#[test]
fn below_lists_submounts_and_not_neighbours() {
    let table = MountTable::parse(
        "1 1 0:1 / / rw - tmpfs t rw\n2 1 0:2 / /a rw - tmpfs t rw\n3 2 0:3 / /a/b rw - tmpfs t rw\n\
         4 3 0:4 / /a/b/c rw - tmpfs t rw\n5 1 0:5 / /ab rw - tmpfs t rw\n",
    );
    let below = |path: &str| table.below(Path::new(path)).map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!((below("/a"), below("/"), below("/a/b/c")), (vec![3, 4], vec![2, 3, 4, 5], vec![]));
}

#[test]
fn what_another_mount_covers_is_hidden_with_all_that_lies_on_it() {
    // 2 is covered by 3, 4 lies on 2; 5 lies on 3; 6 was covered on its way, by 7; 8 and 9 circle.
    let text = "\
1 0 8:1 / / rw - ext4 a rw
2 1 0:2 / /a rw - tmpfs b rw
4 2 0:4 / /a/b rw - tmpfs b rw
3 2 0:3 / /a rw - tmpfs b rw
5 3 0:5 / /a/b rw - tmpfs b rw
6 1 0:6 / /c/d/e rw - tmpfs b rw
7 1 0:7 / /c/d rw - tmpfs b rw
8 9 0:8 / /x rw - tmpfs b rw
9 8 0:9 / /x/y rw - tmpfs b rw
";
    let table = MountTable::parse(text);
    let hidden: Vec<u32> =
        table.entries().iter().filter(|entry| table.is_hidden(entry)).map(|entry| entry.id).collect();
    assert_eq!(hidden, [2, 4, 6]);
}

#[test]
fn the_topmost_of_stacked_mounts_is_the_one_seen() {
    let table = MountTable::parse(UBUNTU);
    let at = |path: &str| table.at(Path::new(path)).map(|entry| entry.id);
    assert_eq!((at("/proc/sys/fs/binfmt_misc"), at("/proc"), at("/nowhere")), (Some(120), Some(25), None));
    // The covering mount stands first, as after a move.
    let moved = "9 8 0:9 / /a rw - tmpfs t rw\n8 1 0:8 / /a rw - tmpfs t rw\n1 1 0:1 / / rw - tmpfs t rw\n";
    assert_eq!(MountTable::parse(moved).at(Path::new("/a")).map(|entry| entry.id), Some(9));
    assert_eq!(table.holding(Path::new("/snap/core22/1380/usr/bin")).map(|entry| entry.id), Some(97));
    assert_eq!(table.holding(Path::new("/usr/bin/newuidmap")).map(|entry| entry.id), Some(31));
}

#[test]
fn locked_flags_are_what_a_remount_must_repeat() {
    let flags = |options: &str| entry(&format!("1 2 0:3 / /a {options} - tmpfs t rw")).locked_flags();
    let all = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
    assert_eq!(flags("ro,nosuid,nodev,noexec,relatime"), all | MountFlags::RELATIVE_ACCESS_TIME);
    assert_eq!(
        flags("rw,noatime,nodiratime,nosymfollow,idmapped"),
        MountFlags::NO_ACCESS_TIME | MountFlags::NO_DIRECTORY_ACCESS_TIME | MountFlags::NO_SYMLINK_FOLLOW
    );
    assert_eq!(flags("rw"), MountFlags::STRICT_ACCESS_TIME);
}

#[test]
fn mount_flags_have_the_values_of_mount_2() {
    let values = [
        (MountFlags::READ_ONLY, libc::MS_RDONLY),
        (MountFlags::NO_SUID, libc::MS_NOSUID),
        (MountFlags::NO_DEV, libc::MS_NODEV),
        (MountFlags::NO_EXEC, libc::MS_NOEXEC),
        (MountFlags::NO_ACCESS_TIME, libc::MS_NOATIME),
        (MountFlags::NO_DIRECTORY_ACCESS_TIME, libc::MS_NODIRATIME),
        (MountFlags::RELATIVE_ACCESS_TIME, libc::MS_RELATIME),
        (MountFlags::STRICT_ACCESS_TIME, libc::MS_STRICTATIME),
    ];
    for (flag, value) in values {
        assert_eq!(u128::from(flag.bits()), u128::from(value));
    }
}

#[test]
fn a_whole_proc_allows_a_fresh_one_with_the_same_access_times() {
    let relative = ProcView::Full(MountFlags::RELATIVE_ACCESS_TIME);
    assert_eq!(proc_view(&MountTable::parse(VIRTUAL_MACHINE)), relative);
    assert_eq!(Host::ideal().proc_view(), relative);
    let strict = MountTable::parse("1 1 0:1 / /proc rw,noatime - proc proc rw\n");
    assert_eq!(proc_view(&strict), ProcView::Full(MountFlags::NO_ACCESS_TIME));
}

#[test]
fn a_mount_on_a_directory_that_stays_empty_hides_nothing() {
    assert_eq!(proc_view(&MountTable::parse(UBUNTU)), ProcView::Full(MountFlags::RELATIVE_ACCESS_TIME));
}

#[test]
fn dockers_masks_hide_proc() {
    let masks = ["/proc/bus", "/proc/sys", "/proc/acpi", "/proc/kcore", "/proc/keys"].map(PathBuf::from);
    assert_eq!(proc_view(&MountTable::parse(DOCKER)), ProcView::Masked(masks.to_vec()));
}

#[test]
fn a_second_proc_that_is_whole_makes_up_for_a_masked_one() {
    let table = MountTable::parse(&format!("{DOCKER}700 648 0:80 / /mnt/proc rw,relatime - proc proc rw\n"));
    assert_eq!(proc_view(&table), ProcView::Full(MountFlags::RELATIVE_ACCESS_TIME));
}

#[test]
fn a_read_only_proc_allows_only_a_read_only_one() {
    let read_only = MountFlags::RELATIVE_ACCESS_TIME | MountFlags::READ_ONLY;
    for line in ["1 1 0:1 / /proc ro,relatime - proc proc rw", "1 1 0:1 / /proc rw,relatime - proc proc ro"] {
        assert_eq!(proc_view(&MountTable::parse(line)), ProcView::Full(read_only));
    }
}

#[test]
fn a_bind_of_a_part_of_proc_is_no_whole_proc() {
    let part =
        MountTable::parse("1 1 0:1 / / rw - tmpfs t rw\n2 1 0:2 /self /proc rw,relatime - proc proc rw\n");
    assert_eq!(proc_view(&part), ProcView::Masked(vec![PathBuf::from("/proc")]));
    assert_eq!(proc_view(&MountTable::parse("1 1 0:1 / / rw - tmpfs t rw\n")), ProcView::Absent);
}

#[test]
fn a_chroot_is_told_from_the_mounts_where_they_can_tell() {
    let plain_directory = MountTable::parse("60 44 0:50 / /proc rw,relatime - proc proc rw\n");
    let mount_point = MountTable::parse("61 44 254:0 /srv/jail / rw,relatime - ext4 /dev/vda rw\n");
    let initramfs = MountTable::parse("2 2 0:2 / / rw - rootfs rootfs rw\n");
    let garbled = MountTable::parse("60 44 0:50 / /proc rw,relatime - proc proc rw\nx\n");
    assert_eq!(chrooted(Some(&plain_directory), BesideInit::Unseen), Answer::Yes);
    assert_eq!(chrooted(Some(&MountTable::parse(UBUNTU)), BesideInit::Unseen), Answer::No);
    assert_eq!(chrooted(Some(&initramfs), BesideInit::Unseen), Answer::No);
    assert_eq!(chrooted(Some(&garbled), BesideInit::Unseen), Answer::Unknown);
    assert_eq!(chrooted(Some(&MountTable::parse("")), BesideInit::Unseen), Answer::Unknown);
    assert_eq!(chrooted(None, BesideInit::Other), Answer::Unknown);
    for (beside, answer) in [
        (BesideInit::Unseen, Answer::Unknown),
        (BesideInit::Same, Answer::No),
        (BesideInit::Other, Answer::Yes),
    ] {
        assert_eq!(chrooted(Some(&mount_point), beside), answer);
    }
}
