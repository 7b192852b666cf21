//! Texts of `/proc`, of control groups and of account files made of bytes: each parser survives them, and what it says is in
//! the text. A program chooses its own name and arguments, so they may hold anything.
#![no_main]

use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use ringfence::host::{KernelVersion, MountTable, Status};
use ringfence::internals::{
    group_io, group_stall, key_usage, process_arguments, process_group, process_info, process_ticks,
    subordinate_ranges, subordinate_service,
};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (first, second) = text.split_once("\n\n").unwrap_or((&text, ""));
    processes(bytes, first, second);
    accounts(&text);
    let (_, _, _) = (KernelVersion::parse(&text), group_io(&text), group_stall(&text));
    if let Some((top, own)) = process_group(first, &MountTable::parse(second)) {
        assert!(own.starts_with(&top), "{own:?} is not below {top:?}");
    }
});

fn processes(bytes: &[u8], first: &str, second: &str) {
    let _ = process_ticks(first);
    let status = Status::parse(second);
    if let Some(ids) = &status.groups {
        assert!(ids.iter().all(|id| second.contains(&id.to_string())), "a group that is not there");
    }
    for depth in [0, 1, usize::MAX] {
        let Some(info) = process_info(bytes, second, depth) else { continue };
        let open = bytes.iter().position(|byte| *byte == b'(').expect("a bracket");
        let close = bytes.iter().rposition(|byte| *byte == b')').expect("a bracket");
        assert_eq!(info.command.as_bytes(), &bytes[open + 1..close], "the whole name and nothing else");
    }
    let arguments = process_arguments(bytes);
    let joined: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    assert_eq!(joined.join(&0), whole, "no byte of the arguments is lost");
}

fn accounts(text: &str) {
    for range in subordinate_ranges(text, &["user", "1000"]) {
        assert!(range.count > 0 && range.start.checked_add(range.count).is_some());
        let tail = format!(":{}", range.start);
        // The numbers may be written with a sign or zeroes in front.
        let said = text.lines().any(|line| {
            let line = line.trim();
            let mut fields = line.split(':');
            ["user", "1000"].contains(&fields.next().unwrap_or_default())
                && fields.next().and_then(|start| start.parse::<u32>().ok()) == Some(range.start)
        });
        assert!(said, "a range that is nobody's: {tail}");
    }
    if let Some(service) = subordinate_service(text) {
        assert!(!service.is_empty() && service != "files");
    }
    if let Some(usage) = key_usage(text, 1000) {
        assert!(text.contains(':') && text.contains('/'), "{usage:?}");
    }
}
