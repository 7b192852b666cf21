//! Tests of the parsers of status, id maps, subordinate ids, versions and quotas. They must not read real files.

use std::path::Path;

use crate::host::Answer;
use crate::host::CapabilitySets;
use crate::host::IdExtent;
use crate::host::IdMap;
use crate::host::IdRange;
use crate::host::Ids;
use crate::host::KernelVersion;
use crate::host::KeyUsage;
use crate::host::MountTable;
use crate::host::SeccompMode;
use crate::host::Status;
use crate::host::process_limit::directory;
use crate::host::process_limit::key_usage;
use crate::host::subid::ranges;
use crate::host::subid::service;
use crate::host::tests::mounts::DOCKER;
use crate::host::tests::mounts::UBUNTU;
use crate::host::tests::mounts::VIRTUAL_MACHINE;

/// A shell of root in Docker on Linux 6.8.
const STATUS: &str = "\
Name:\ta\\nCapEff: 0
Umask:\t0022
State:\tS (sleeping)
Tgid:\t7
Pid:\t7
PPid:\t1
TracerPid:\t0
Uid:\t0\t1000\t33\t1000
Gid:\t0\t0\t0\t0
FDSize:\t256
Groups:\t0 10 4294967294 
NStgid:\t7
NSpid:\t48213\t7
Threads:\t3
SigQ:\t0/15403
SigBlk:\t0000000000010000
SigIgn:\t0000000000000004
SigCgt:\t000000004b817efb
CapInh:\t0000000000000000
CapPrm:\t00000000a80425fb
CapEff:\t00000000a80425fb
CapBnd:\t00000000a80425fb
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
Speculation_Store_Bypass:\tthread vulnerable
";

#[test]
fn status_is_read_field_by_field() {
    let status = Status::parse(STATUS);
    assert_eq!(status.uid, Some(Ids { real: 0, effective: 1000, saved: 33, filesystem: 1000 }));
    assert_eq!(status.gid, Some(Ids::same(0)));
    assert_eq!(status.groups, Some(vec![0, 10, 4_294_967_294]));
    assert_eq!(status.namespace_pids, Some(vec![48213, 7]));
    assert_eq!((status.fd_size, status.threads), (Some(256), Some(3)));
    assert_eq!(status.signals_blocked, Some(1 << 16));
    assert_eq!((status.signals_ignored, status.signals_caught), (Some(4), Some(0x4b81_7efb)));
    let docker = 0xa804_25fb;
    let sets = CapabilitySets {
        permitted: docker,
        effective: docker,
        bounding: docker,
        ..CapabilitySets::default()
    };
    assert_eq!(status.capabilities, Some(sets));
    assert_eq!(status.no_new_privs, Answer::Yes);
    assert_eq!((status.seccomp, status.seccomp_filters), (Some(SeccompMode::Filter), Some(1)));
}

#[test]
fn status_lines_that_are_missing_or_malformed_stay_unknown() {
    assert_eq!(Status::parse(""), Status::default());
    let text = "Uid:\t0\t0\t0\nGroups:\t1 x\nCapInh:\t+1\nNoNewPrivs:\t2\nSeccomp:\t9\nSigBlk:\t10000000000000000\nThreads\n";
    assert_eq!(Status::parse(text), Status::default());
    assert_eq!(Status::parse("Groups:\t \n").groups, Some(Vec::new()));
    let four = STATUS.replace("CapAmb", "CapXyz");
    assert_eq!(Status::parse(&four).capabilities, None);
}

#[test]
fn effective_capabilities_are_asked_by_number() {
    let sets =
        CapabilitySets { effective: 1 << 21 | 1 << 63, permitted: u64::MAX, ..CapabilitySets::default() };
    assert_eq!(
        [21, 63, 20, 64, u32::MAX].map(|number| sets.has_effective(number)),
        [true, true, false, false, false]
    );
}

#[test]
fn kernel_releases_of_all_kinds_are_read() {
    let read = [
        ("6.18.44-fc-v669", (6, 18, 44)),
        ("6.8.0-45-generic", (6, 8, 0)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15, 167)),
        ("4.18.0-553.el8_10.x86_64", (4, 18, 0)),
        ("6.12-rc1", (6, 12, 0)),
        ("6.1+", (6, 1, 0)),
        ("6.12-rc1.7", (6, 12, 0)),
        ("5.10.0-32-amd64\n", (5, 10, 0)),
    ];
    for (release, (major, minor, patch)) in read {
        assert_eq!(KernelVersion::parse(release), Some(KernelVersion::new(major, minor, patch)), "{release}");
    }
    for release in ["", "6", "six.one", ".1", "6.", "6.x", "99999999999.1"] {
        assert_eq!(KernelVersion::parse(release), None, "{release}");
    }
}

#[test]
fn kernel_versions_are_ordered_and_printed() {
    assert!(KernelVersion::new(5, 9, 99) < KernelVersion::new(5, 10, 0));
    assert!(KernelVersion::UNKNOWN < KernelVersion::new(2, 6, 12));
    assert_eq!(KernelVersion::new(5, 10, 0).to_string(), "5.10.0");
    assert_eq!(KernelVersion::UNKNOWN.to_string(), "unknown");
}

#[test]
fn id_maps_translate_both_ways() {
    let map = IdMap::parse("         0       1000          1\n         1     100000      65536\n").unwrap();
    assert_eq!(
        [0, 1, 65536, 65537].map(|id| map.to_parent(id)),
        [Some(1000), Some(100_000), Some(165_535), None]
    );
    assert_eq!([1000, 100_000, 165_536].map(|id| map.to_inside(id)), [Some(0), Some(1), None]);
    assert_eq!((map.contains(65536), map.contains(65537), map.count()), (true, false, 65537));
    assert!(!map.is_identity());
    assert_eq!(map.extents()[0], IdExtent { inside: 0, outside: 1000, count: 1 });
}

#[test]
fn only_the_map_of_all_ids_to_themselves_is_the_identity() {
    assert!(IdMap::parse("         0          0 4294967295\n").unwrap().is_identity());
    assert_eq!(IdMap::parse("0 0 4294967295").unwrap(), IdMap::identity());
    assert!(!IdMap::parse("0 0 65536\n").unwrap().is_identity());
    assert!(!IdMap::parse("").unwrap().is_identity());
    assert!(!IdMap::identity().contains(u32::MAX));
}

#[test]
fn half_an_id_map_is_none() {
    for text in [
        "0 0",
        "0 0 0",
        "0 0 1 1",
        "0 -1 1",
        "0 0 4294967296",
        "4294967295 0 1",
        "1 0 4294967295",
        "0 0 1\nx",
    ] {
        assert_eq!(IdMap::parse(text), None, "{text}");
    }
}

#[test]
fn subordinate_ranges_go_by_name_and_by_number() {
    let text = "root:1:1\nada:100000:65536\n1000:300000:1000\nadam:5:5\nada:x:1\nada:7\nada:4294967295:2\nada:1:1:1\n#ada:1:1\nada:9:0\n";
    let found = ranges(text, &["ada", "1000"]);
    assert_eq!(found, [IdRange { start: 100_000, count: 65536 }, IdRange { start: 300_000, count: 1000 }]);
    assert!(ranges("", &["ada"]).is_empty());
}

#[test]
fn a_subid_service_other_than_files_is_told() {
    assert_eq!(service("passwd: files\nsubid:  sss # domain\n").as_deref(), Some("sss"));
    assert_eq!(service("subid: files\n"), None);
    assert_eq!(service("#subid: sss\npasswd: files\n"), None);
}

#[test]
fn the_control_group_that_counts_processes_is_found() {
    let find = |cgroup: &str, mounts: &str| directory(cgroup, &MountTable::parse(mounts));
    let pair = |top: &str, own: &str| Some((Path::new(top).to_owned(), Path::new(own).to_owned()));
    let slice = "0::/user.slice/user-1000.slice/session-1.scope\n";
    let own = "/sys/fs/cgroup/user.slice/user-1000.slice/session-1.scope";
    assert_eq!(find(slice, UBUNTU), pair("/sys/fs/cgroup", own));
    assert_eq!(find("0::/\n", DOCKER), pair("/sys/fs/cgroup", "/sys/fs/cgroup"));
    let both = "8:pids:/a\n7:blkio:/\n0::/\n";
    assert_eq!(find(both, VIRTUAL_MACHINE), pair("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/a"));
    assert_eq!(
        find("0::/\n8:pids:/a\n", VIRTUAL_MACHINE),
        pair("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/a")
    );
    assert_eq!(find("garbage\n0:\n", UBUNTU), None);
}

#[test]
fn key_usage_is_that_of_the_user() {
    let text = "    0:   133 132/132 120/1000000 2200/25000000\n 1000:     5 5/5 199/200 77/20000\n";
    let usage = KeyUsage { keys: 199, max_keys: 200, bytes: 77, max_bytes: 20000 };
    assert_eq!(key_usage(text, 1000), Some(usage));
    assert_eq!((key_usage(text, 7), key_usage(" 7: 1 1/1 x\n", 7)), (None, None));
}
