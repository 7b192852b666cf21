//! Texts of `/proc` made of bytes: the parsers survive them, what they say written down again says the same, and every
//! question about mounts has the answer of a second look.
#![no_main]

#[allow(dead_code)]
mod compose;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringfence::host::{IdMap, MountEntry, MountFlags, MountTable, Status};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    look(&text);
    look(&compose::mountinfo(&mut compose::dice(bytes)));
    assert_eq!(Status::parse(&text), Status::parse(&text));
    if let Some(map) = IdMap::parse(&text) {
        id_map(&map);
    }
});

fn look(text: &str) {
    let table = MountTable::parse(text);
    let lines = text.lines().filter(|line| !line.is_empty());
    assert_eq!(table.entries().len() + table.malformed(), lines.clone().count(), "one entry or fault a line");
    let mut entries = table.entries().iter();
    for line in lines {
        if let Some(entry) = MountEntry::parse(line) {
            assert_eq!(entries.next(), Some(&entry), "in the order of the file");
            written_again(line, &entry);
            flags(&entry);
        }
    }
    for entry in table.entries() {
        questions(&table, entry);
    }
    assert!(table.holding(Path::new("/")).is_none_or(|entry| entry.mount_point == Path::new("/")));
}

/// As the kernel writes it (`mangle` of fs/proc_namespace.c).
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        match byte {
            b'!'..=b'[' | b']'..=b'~' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\{byte:03o}")),
        }
        out
    })
}

/// The fields that were read, written by the kernel's rules, are the fields of the line.
fn written_again(line: &str, entry: &MountEntry) {
    let mut groups = String::new();
    let spread = entry.propagation;
    for (name, group) in
        [("shared", spread.shared), ("master", spread.master), ("propagate_from", spread.propagate_from)]
    {
        groups.extend(group.map(|group| format!("{name}:{group} ")));
    }
    if spread.unbindable {
        groups.push_str("unbindable ");
    }
    let (root, point) = (entry.root.as_os_str().as_bytes(), entry.mount_point.as_os_str().as_bytes());
    let (major, minor) = entry.device;
    let written = format!(
        "{} {} {major}:{minor} {} {} {} {groups}- {} {} {}",
        entry.id,
        entry.parent,
        escaped(root),
        escaped(point),
        entry.options,
        escaped(entry.filesystem.as_bytes()),
        escaped(entry.source.as_bytes()),
        entry.super_options,
    );
    assert_eq!(MountEntry::parse(&written).as_ref(), Some(entry), "{written:?} of {line:?}");
    let field = |number: usize| line.split(' ').nth(number).expect("a field");
    for (number, said) in [(3, root), (4, point)] {
        let raw = field(number);
        if !raw.contains('\\') {
            assert_eq!(raw.as_bytes(), said, "what is not escaped is as it stands there");
        }
    }
    assert_eq!((field(0).parse(), field(1).parse()), (Ok(entry.id), Ok(entry.parent)));
    assert_eq!(field(5), entry.options);
    let behind = line.split(' ').skip(6).skip_while(|field| *field != "-").skip(3);
    assert!(behind.eq(entry.super_options.split(' ')), "{:?} of {line:?}", entry.super_options);
}

/// Each flag is said or not; how access times are kept is always said.
fn flags(entry: &MountEntry) {
    let has = |option: &str| entry.options.split(',').any(|one| one == option);
    let locked = entry.locked_flags();
    for (flag, option) in [
        (MountFlags::READ_ONLY, "ro"),
        (MountFlags::NO_SUID, "nosuid"),
        (MountFlags::NO_DEV, "nodev"),
        (MountFlags::NO_EXEC, "noexec"),
        (MountFlags::NO_ACCESS_TIME, "noatime"),
        (MountFlags::NO_DIRECTORY_ACCESS_TIME, "nodiratime"),
        (MountFlags::RELATIVE_ACCESS_TIME, "relatime"),
    ] {
        assert_eq!(locked.contains(flag), has(option), "{option} in {:?}", entry.options);
    }
    assert_eq!(locked.contains(MountFlags::STRICT_ACCESS_TIME), !has("noatime") && !has("relatime"));
    let of_its_file_system = entry.super_options.split(',').any(|one| one == "ro");
    assert_eq!(entry.is_read_only(), has("ro") || of_its_file_system);
}

/// Whether a path lies at or below another, name by name.
fn within(path: &Path, above: &Path) -> bool {
    let names = |path: &Path| -> Vec<Vec<u8>> {
        let names = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec).collect()
    };
    names(path).starts_with(&names(above))
}

fn questions(table: &MountTable, entry: &MountEntry) {
    let point = &entry.mount_point;
    let below = table.entries().iter().filter(|other| within(&other.mount_point, point));
    let strictly = below.filter(|other| !within(point, &other.mount_point));
    assert!(table.below(point).eq(strictly), "below {point:?}");
    let _ = table.is_hidden(entry);
    // The one on top is one that no other lies on, if there is such.
    let here: Vec<_> = table
        .entries()
        .iter()
        .filter(|other| within(&other.mount_point, point) && within(point, &other.mount_point))
        .collect();
    let covered = |one: &MountEntry| here.iter().any(|other| other.parent == one.id && other.id != one.id);
    let top = table.at(point);
    match top {
        Some(top) => assert!(here.contains(&top) && !covered(top), "{top:?} is not on top of {point:?}"),
        None => assert!(here.iter().all(|one| covered(one)), "nothing at {point:?}"),
    }
    let Some(holding) = table.holding(&point.join("x")) else { return };
    assert!(within(point, &holding.mount_point) || holding.mount_point == point.join("x"));
    if let Some(top) = top {
        assert!(within(&holding.mount_point, &top.mount_point), "{top:?} is nearer than {holding:?}");
    }
}

fn id_map(map: &IdMap) {
    for extent in map.extents() {
        assert_eq!(map.to_parent(extent.inside).is_some(), extent.count > 0, "the first id of a line");
        let Some(outside) = map.to_parent(extent.inside) else { continue };
        assert!(map.to_inside(outside).is_some(), "and back");
        let first = map
            .extents()
            .iter()
            .find(|one| one.inside <= extent.inside && extent.inside - one.inside < one.count);
        let first = first.expect("its own line at the least");
        assert_eq!(outside, first.outside + (extent.inside - first.inside));
    }
    let _ = (map.is_identity(), map.count());
}
