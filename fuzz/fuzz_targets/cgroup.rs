//! Texts of control groups made of bytes: what is found lies where its hierarchy is mounted, at the place that a second look,
//! name by name, gives it; and nothing is found that no line speaks of.
#![no_main]

#[allow(dead_code)]
mod compose;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringfence::CpuSet;
use ringfence::host::{Cgroups, MountEntry, MountTable};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (groups, mounts) = text.split_once("\n\n").unwrap_or((&text, ""));
    look(groups, mounts);
    cpus(&text);
    let mut dice = compose::dice(bytes);
    look(&compose::cgroup(&mut dice), &compose::mountinfo(&mut dice));
    cpus(&compose::list(&mut compose::dice(bytes)));
});

fn look(groups: &str, mounts: &str) {
    let table = MountTable::parse(mounts);
    let found = Cgroups::parse(groups, &table);
    legacy(&found, groups, &table);
    unified(&found, groups, &table);
}

/// The names on a path.
fn names(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect()
}

fn names_of(path: &Path) -> Vec<&[u8]> {
    names(path.as_os_str().as_bytes())
}

/// The lines `ID:CONTROLLERS:PATH` whose path is one.
fn lines(groups: &str) -> impl Iterator<Item = (&str, &str)> {
    groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':').filter(|(_, path)| path.starts_with('/'))
    })
}

/// Those that can be written to before the others.
fn ordered<'m>(table: &'m MountTable, is_one: impl Fn(&MountEntry) -> bool) -> Vec<&'m MountEntry> {
    let sealed = |entry: &MountEntry| {
        [&entry.options, &entry.super_options].iter().any(|list| list.split(',').any(|one| one == "ro"))
    };
    let all = || table.entries().iter().filter(|entry| is_one(entry));
    all().filter(|entry| !sealed(entry)).chain(all().filter(|entry| sealed(entry))).collect()
}

/// The mount in which a group is seen, and the names of its directory.
fn place<'m>(mounts: &[&'m MountEntry], path: &'m str) -> Option<(&'m MountEntry, Vec<&'m [u8]>)> {
    let group = names(path.as_bytes());
    if group.contains(&&b".."[..]) || path.ends_with(" (deleted)") {
        return None;
    }
    mounts.iter().find_map(|mount| {
        let root = names_of(&mount.root);
        let is_path = mount.root.as_os_str().as_bytes().starts_with(b"/");
        let below = group.strip_prefix(&root[..]).filter(|_| is_path)?;
        Some((*mount, [names_of(&mount.mount_point), below.to_vec()].concat()))
    })
}

fn legacy(found: &Cgroups, groups: &str, table: &MountTable) {
    let mut left = found.legacy.iter();
    for (controllers, path) in lines(groups).filter(|(controllers, _)| !controllers.is_empty()) {
        let mounts = ordered(table, |entry| {
            let has = |name| entry.super_options.split(',').any(|option| option == name);
            entry.filesystem == "cgroup" && controllers.split(',').all(has)
        });
        let Some(first) = mounts.first() else { continue };
        let one = left.next().expect("a mounted hierarchy is found");
        let place = place(&mounts, path);
        let mount = place.as_ref().map_or(*first, |(mount, _)| *mount);
        assert_eq!(one.mount, mount.mount_point, "of {controllers}");
        assert_eq!(one.own.as_deref().map(names_of), place.map(|(_, own)| own), "{path:?}");
        assert!(one.own.as_ref().is_none_or(|own| own.starts_with(&one.mount)));
        let named = controllers.split(',').filter(|name| !name.starts_with("name="));
        assert!(named.eq(one.controllers.iter()), "{:?} of {controllers}", one.controllers);
        for name in &one.controllers {
            let with = found.legacy_with(name).expect("a hierarchy that has it");
            assert!(with.controllers.contains(name));
        }
    }
    assert_eq!(left.next(), None, "a hierarchy that no line names");
}

fn unified(found: &Cgroups, groups: &str, table: &MountTable) {
    let mounts = ordered(table, |entry| entry.filesystem == "cgroup2");
    let line = lines(groups).find(|(controllers, _)| controllers.is_empty());
    let (Some((_, path)), Some(first)) = (line, mounts.first()) else {
        assert_eq!(found.unified, None, "a hierarchy that is not there");
        return;
    };
    let one = found.unified.as_ref().expect("the hierarchy is found");
    let place = place(&mounts, path);
    assert_eq!(one.mount, place.as_ref().map_or(*first, |(mount, _)| *mount).mount_point);
    let Some((mount, own)) = place else {
        assert!(one.groups.is_empty(), "the caller's group cannot be seen");
        return;
    };
    // The own group, and each above it down to the mount itself.
    let depth = names_of(&mount.mount_point).len();
    assert_eq!(one.groups.len(), own.len() - depth + 1, "{:?}", one.groups);
    for (up, group) in one.groups.iter().enumerate() {
        assert_eq!(names_of(&group.directory), own[..own.len() - up]);
    }
}

/// A list of CPUs, read once more: numbers and ranges between commas.
fn cpus(text: &str) {
    let Some(set) = CpuSet::parse(text) else { return };
    let written = set.to_string();
    assert_eq!(CpuSet::parse(&written), Some(set), "and back");
    let numbers = |text: &str| {
        let mut all = Vec::new();
        for part in text.trim().split(',').filter(|part| !part.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u32>().expect("a number of what was accepted");
            all.extend(number(first)..=number(last));
        }
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(numbers(text), numbers(&written), "{text:?} is not {written:?}");
}
