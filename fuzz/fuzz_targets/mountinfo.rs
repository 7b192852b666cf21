//! Texts of `/proc` made of bytes: the parsers survive them, and what an id map says goes both ways.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringfence::host::{IdMap, MountTable, Status};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let table = MountTable::parse(&text);
    let lines = text.split('\n').count();
    assert!(table.entries().len() + table.malformed() <= lines, "at most one entry or fault a line");
    for entry in table.entries() {
        // Whatever stands there, the questions have an answer.
        let (_, _) = (table.holding(&entry.mount_point), table.below(&entry.mount_point).count());
    }
    let _ = table.holding(Path::new("/"));
    assert_eq!(Status::parse(&text), Status::parse(&text));
    if let Some(map) = IdMap::parse(&text) {
        for extent in map.extents() {
            let outside = map.to_parent(extent.inside).expect("the first id of a line is mapped");
            assert!(map.to_inside(outside).is_some(), "and back");
        }
        let _ = (map.is_identity(), map.count());
    }
});
