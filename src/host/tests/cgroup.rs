//! Tests of the parsers of control groups, on texts of many machines. They must not look at real files.

use std::path::{Path, PathBuf};

use crate::host::Answer;
use crate::host::MountTable;
use crate::host::cgroup::{Cgroups, Seen};

const SYSTEMD: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
26 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw
";

const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

fn of(cgroup: &str, mounts: &str) -> Cgroups {
    Cgroups::parse(cgroup, &MountTable::parse(mounts))
}

#[test]
fn the_groups_above_ones_own_are_listed_up_to_the_mount() {
    let unified = of("0::/user.slice/user-1000.slice/x.scope\n", SYSTEMD).unified.expect("version 2");
    let groups: Vec<_> = unified.groups.iter().map(|group| group.directory.clone()).collect();
    let top = "/sys/fs/cgroup";
    let slice = "/sys/fs/cgroup/user.slice/user-1000.slice";
    let own = "/sys/fs/cgroup/user.slice/user-1000.slice/x.scope";
    assert_eq!(groups, paths(&[own, slice, "/sys/fs/cgroup/user.slice", top]));
    assert_eq!(unified.mount, Path::new(top));
    assert_eq!(unified.groups[0].access, Answer::Unknown, "nothing was looked at");
}

#[test]
fn a_hybrid_host_has_both() {
    let text = "9:name=systemd:/a\n5:devices:/\n1:cpu,cpuacct:/x/y\n0::/\n";
    let cgroups = of(text, HYBRID);
    assert_eq!(cgroups.unified.expect("version 2").groups.len(), 1);
    let cpu = cgroups.legacy.iter().find(|legacy| legacy.controllers.len() == 2).expect("cpu");
    assert_eq!(cpu.own.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/x/y")));
    let named = &cgroups.legacy[0];
    assert!(named.controllers.is_empty() && named.mount == Path::new("/sys/fs/cgroup/systemd"));
    assert_eq!(cgroups.legacy.len(), 3);
}

#[test]
fn a_containers_mount_shows_a_part_of_the_tree() {
    let mounts = "26 24 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
    let groups = of("0::/docker/abc/x\n", mounts).unified.expect("version 2").groups;
    assert_eq!(groups[0].directory, Path::new("/sys/fs/cgroup/x"));
    assert_eq!(groups.len(), 2);
}

#[test]
fn a_group_that_cannot_be_seen_has_no_directory() {
    for path in ["/../../other", "/gone (deleted)", "/elsewhere"] {
        let mounts = "26 24 0:26 /docker/abc /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n";
        let unified = of(&format!("0::{path}\n"), mounts).unified.expect("it is mounted");
        assert!(unified.groups.is_empty(), "{path}");
        let mounts = "36 31 0:33 /docker/abc /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
        let cgroups = of(&format!("5:devices:{path}\n"), mounts);
        assert_eq!((cgroups.legacy[0].own.clone(), cgroups.legacy[0].access), (None, Answer::No), "{path}");
    }
}

#[test]
fn a_mount_that_can_be_written_to_goes_first() {
    let mounts = "26 24 0:26 / /ro ro - cgroup2 c rw\n27 24 0:26 / /rw rw - cgroup2 c rw\n";
    assert_eq!(of("0::/\n", mounts).unified.expect("version 2").mount, Path::new("/rw"));
}

#[test]
fn any_text_is_survived() {
    let texts = [
        "",
        ":",
        "::",
        "0:",
        "0::",
        "x::y",
        "0::/\0",
        "::::/:::",
        "1:name=:/",
        "0::/a/../b",
        "é:é:/é",
        "1:pids:/a",
    ];
    let mounts = [
        "",
        HYBRID,
        SYSTEMD,
        "26 24 0:26 .. /x rw - cgroup2 c rw\n",
        "26 24 0:26 /a/b /x rw - cgroup c ,,name=\n",
        "26 24 0:26  /x rw - cgroup c rw,pids\n",
    ];
    for cgroup in texts {
        for mounts in mounts {
            let found = of(cgroup, mounts);
            for legacy in &found.legacy {
                assert!(legacy.own.as_ref().is_none_or(|own| own.starts_with(&legacy.mount)));
            }
            for group in found.unified.iter().flat_map(|unified| &unified.groups) {
                assert!(group.directory.is_absolute(), "{cgroup:?}");
            }
        }
    }
}

#[test]
fn what_a_directory_shows_is_taken_as_it_is() {
    let look = |directory: &Path| Seen {
        controllers: Some("cpu memory pids\n".into()),
        enabled: (directory != Path::new("/sys/fs/cgroup/a")).then(|| "memory\n".into()),
        access: Answer::Yes,
        delegated: Answer::No,
        root: Answer::from(Some(directory == Path::new("/sys/fs/cgroup"))),
    };
    let cgroups = Cgroups::with("0::/a\n", &MountTable::parse(SYSTEMD), &look);
    let groups = cgroups.unified.expect("version 2").groups;
    assert_eq!((groups[0].controllers.len(), groups[0].enabled.len()), (3, 0));
    assert_eq!((groups[1].enabled.as_slice(), groups[1].root), (&["memory".to_owned()][..], Answer::Yes));
}
