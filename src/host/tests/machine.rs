//! Tests on the machine that they run on, whatever it is. They must not assume more than that it is Linux.

use std::fs::read_dir;
use std::path::Path;

use nix::unistd::geteuid;
use nix::unistd::getgid;

use crate::host::Diagnosis;
use crate::host::Features;
use crate::host::Host;
use crate::host::KernelVersion;
use crate::host::SeccompMode;
use crate::host::doctor;
use crate::host::namespace::{ALL, present};

#[test]
fn a_probe_finds_the_kernel_and_the_caller() {
    let host = Host::probe();
    assert!(host.kernel() > KernelVersion::UNKNOWN);
    assert!(host.last_capability() >= 37);
    let ids = host.identity();
    assert_eq!(ids.uid.effective, geteuid().as_raw());
    assert_eq!(ids.gid.real, getgid().as_raw());
}

#[test]
fn a_second_probe_finds_the_same() {
    // Counters such as pids.current move between the two.
    let settled = |host: Host| host.with_process_limits(Default::default()).with_key_usage(None);
    assert_eq!(settled(Host::probe()), settled(Host::probe()));
}

#[test]
fn a_probe_leaves_no_file_descriptor_behind() {
    let open = || read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open();
    for _ in 0..64 {
        let _host = Host::probe();
    }
    // Other tests run at the same time and hold a few for a moment.
    assert!(open() < before + 32);
}

#[test]
fn a_probe_and_the_version_agree_on_an_unfiltered_kernel() {
    let host = Host::probe();
    if host.seccomp_mode() == Some(SeccompMode::Disabled) && host.kernel() >= KernelVersion::new(5, 12, 0) {
        let since_5_12 = Features::CLONE3 | Features::OPENAT2 | Features::MOUNT_API | Features::MOUNT_SETATTR;
        assert!(host.features().contains(since_5_12), "{:?}", host.features());
    }
}

#[test]
fn the_doctor_reports_on_every_feature() {
    let diagnosis: Diagnosis = doctor();
    let report = diagnosis.to_string();
    assert!(report.starts_with("Linux "));
    for name in ["user namespace", "clone3", "mount_setattr"] {
        assert!(report.contains(name), "{report}");
    }
}

#[test]
fn a_kind_of_namespace_that_cannot_be_looked_at_is_not_absent() {
    assert_eq!(present(Path::new("/proc/self/fdinfo")), Some(0), "a directory without them");
    // As long as a path may be, so that one below it is too long: the directory can be read, and nothing looked up.
    let long = format!("/proc/self/ns{}", "/.".repeat(2040));
    assert_eq!(present(Path::new(&long)), Some(ALL));
}
