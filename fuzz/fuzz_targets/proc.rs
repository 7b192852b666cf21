//! Texts of `/proc`, of control groups and of account files made of bytes: each parser survives them, and what it says is what
//! a second look finds in the text. A program chooses its own name and arguments, so they may hold anything.
#![no_main]

#[allow(dead_code)]
mod compose;

use std::os::unix::ffi::OsStrExt;
use std::path::Component;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringfence::host::{KernelVersion, MountTable, Status};
use ringfence::internals::{
    group_io, group_stall, key_usage, process_arguments, process_group, process_info, process_ticks,
    subordinate_ranges, subordinate_service,
};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (first, second) = text.split_once("\n\n").unwrap_or((&text, ""));
    for depth in [0, 1, 2, usize::MAX] {
        process(bytes, second, depth);
    }
    arguments(bytes);
    status(second);
    let composed = compose::status(&mut compose::dice(bytes));
    status(&composed);
    process(b"7 (a) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 3 0 4711 9", &composed, 2);
    ticks(first);
    accounts(&text);
    keys(&text);
    groups(&text);
    let _ = KernelVersion::parse(&text);
    if let Some((top, own)) = process_group(first, &MountTable::parse(second)) {
        assert!(own.starts_with(&top), "{own:?} is not below {top:?}");
        let below = own.strip_prefix(&top).expect("below");
        assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{below:?}");
    }
});

/// The words behind the last bracket: the third field of stat and those that follow.
fn words(text: &str) -> Vec<&str> {
    text.rsplit_once(')').map_or(Vec::new(), |(_, tail)| tail.split_ascii_whitespace().collect())
}

fn value<'t>(status: &'t str, name: &str) -> Option<&'t str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn process(stat: &[u8], status: &str, depth: usize) {
    let info = process_info(stat, status, depth);
    let Ok(text) = str::from_utf8(stat) else { return };
    let fields = words(text);
    let number = |field: usize| fields.get(field - 3).and_then(|word| word.parse::<u64>().ok());
    let numbers = (number(4).filter(|parent| u32::try_from(*parent).is_ok()), number(20), number(22));
    let pid = text.split_once('(').and_then(|(pid, _)| pid.trim().parse::<u32>().ok());
    let Some(info) = info else {
        let whole = pid.is_some() && matches!(numbers, (Some(_), Some(_), Some(_)));
        let in_order = text.find('(') < text.rfind(')');
        assert!(!whole || !in_order, "a process that is not read: {text:?}");
        return;
    };
    assert_eq!(Some(info.pid), pid);
    let (open, close) = (text.find('(').expect("a bracket"), text.rfind(')').expect("a bracket"));
    assert_eq!(info.command.as_bytes(), &stat[open + 1..close], "the whole name and nothing else");
    let said = (Some(u64::from(info.parent)), Some(info.threads), Some(info.start));
    assert_eq!(said, numbers, "parent, threads, start of {text:?}");
    let resident = value(status, "VmRSS:").and_then(|line| line.strip_suffix(" kB")?.parse::<u64>().ok());
    assert_eq!(info.resident, resident.unwrap_or(0).saturating_mul(1024));
    let inside = value(status, "NSpid:").unwrap_or_default();
    let mut inside = inside.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    assert_eq!(info.pid_inside, depth.checked_sub(1).and_then(|index| inside.nth(index)));
}

fn arguments(bytes: &[u8]) {
    let arguments = process_arguments(bytes);
    let joined: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    assert_eq!(joined.join(&0), whole, "no byte of the arguments is lost");
    assert!(joined.iter().all(|argument| !argument.contains(&0)), "two arguments in one");
    assert_eq!(joined.is_empty(), bytes.is_empty());
}

/// The last line of a name counts; what is not whole is not there.
fn status(text: &str) {
    let status = Status::parse(text);
    let last = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| *key == name).last().map(|(_, value)| value.trim())
    };
    let list = |name: &str| -> Option<Vec<u32>> {
        last(name)?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
    };
    let mask = |name: &str| last(name).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let mask = |name: &str| mask(name).and_then(|text| u64::from_str_radix(text, 16).ok());
    assert_eq!(status.groups, list("Groups"));
    assert_eq!(status.namespace_pids, list("NSpid"));
    let four = |name: &str| list(name).filter(|ids| ids.len() == 4);
    for (ids, name) in [(status.uid, "Uid"), (status.gid, "Gid")] {
        let said = ids.map(|ids| vec![ids.real, ids.effective, ids.saved, ids.filesystem]);
        assert_eq!(said, four(name), "{name}");
    }
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let sets: Option<Vec<u64>> = names.into_iter().map(mask).collect();
    let said = status
        .capabilities
        .map(|sets| vec![sets.inheritable, sets.permitted, sets.effective, sets.bounding, sets.ambient]);
    assert_eq!(said, sets, "the sets are all there or none is");
    for (said, name) in [
        (status.signals_blocked, "SigBlk"),
        (status.signals_ignored, "SigIgn"),
        (status.signals_caught, "SigCgt"),
    ] {
        assert_eq!(said, mask(name), "{name}");
    }
}

/// Time in user and system mode, its own and that of what it reaped: fields 14 to 17.
fn ticks(stat: &str) {
    let fields = words(stat);
    let times = (14..=17).filter_map(|field| fields.get(field - 3)?.parse::<u64>().ok());
    assert_eq!(process_ticks(stat), times.fold(0, u64::saturating_add), "{stat:?}");
}

fn accounts(text: &str) {
    let owners = ["user", "1000"];
    let wanted = text.lines().filter_map(|line| {
        let [owner, start, count] = line.trim().split(':').collect::<Vec<_>>().try_into().ok()?;
        let (start, count): (u32, u32) = (start.parse().ok()?, count.parse().ok()?);
        let usable = owners.contains(&owner) && count > 0 && u64::from(start) + u64::from(count) < 1 << 32;
        usable.then_some((start, count))
    });
    let ranges = subordinate_ranges(text, &owners);
    assert!(ranges.iter().map(|range| (range.start, range.count)).eq(wanted), "{ranges:?} of {text:?}");
    let line = text.lines().find(|line| line.trim().starts_with("subid:"));
    let named = line.map_or(String::new(), |line| {
        let services = line.trim()["subid:".len()..].split('#').next().unwrap_or_default();
        services.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    });
    let other = !named.is_empty() && named != "files";
    assert_eq!(subordinate_service(text), other.then_some(named));
}

fn keys(text: &str) {
    let line = text.lines().filter_map(|line| line.split_once(':'));
    let mut line = line.filter(|(owner, _)| owner.trim().parse() == Ok(1000_u32));
    let words: Vec<&str> =
        line.next().map_or(Vec::new(), |(_, rest)| rest.split_ascii_whitespace().collect());
    let usage = key_usage(text, 1000);
    let pair = |at: usize| {
        let (used, most) = words.get(at)?.split_once('/')?;
        Some((used.parse::<u64>().ok()?, most.parse::<u64>().ok()?))
    };
    let said = usage.map(|usage| ((usage.keys, usage.max_keys), (usage.bytes, usage.max_bytes)));
    assert_eq!(said, pair(2).zip(pair(3)), "{words:?}");
}

fn groups(text: &str) {
    let io = group_io(text);
    for (said, name) in
        [(io.read_bytes, "rbytes="), (io.write_bytes, "wbytes="), (io.reads, "rios="), (io.writes, "wios=")]
    {
        let all = text.split_whitespace().filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
        assert_eq!(said, Some(all.fold(0, u64::saturating_add)), "{name}");
    }
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let micros = line.split_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()?;
        Some(Duration::from_micros(micros))
    };
    if let Some(stall) = group_stall(text) {
        assert_eq!(Some(stall.some), total("some "));
        assert_eq!(stall.full, total("full ").unwrap_or_default());
        assert!(text.contains("avg10="));
    }
}
