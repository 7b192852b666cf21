//! Texts of control groups made of bytes: what is found lies where its hierarchy is mounted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::CpuSet;
use ringfence::host::{Cgroups, MountTable};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (groups, mounts) = text.split_once("\n\n").unwrap_or((&text, ""));
    let found = Cgroups::parse(groups, &MountTable::parse(mounts));
    for legacy in &found.legacy {
        assert!(legacy.own.as_ref().is_none_or(|own| own.starts_with(&legacy.mount)));
    }
    if let Some(unified) = &found.unified {
        assert!(unified.groups.iter().all(|group| group.directory.starts_with(&unified.mount)));
    }
    if let Some(set) = CpuSet::parse(&text) {
        assert_eq!(CpuSet::parse(&set.to_string()), Some(set), "and back");
    }
});
