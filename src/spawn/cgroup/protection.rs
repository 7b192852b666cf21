//! What bounds a protection of memory from above: no group is protected beyond what each group above it is given
//! (Documentation/admin-guide/cgroup-v2.rst, "memory.min"). It must not change a group.

use std::fs;
use std::path::Path;

use crate::policy::GroupLimit;

/// Why the kernel protects less than was written to a file of `dir`; `None` where it protects all of it, and for every limit
/// that is no protection.
pub(super) fn less_than_written(dir: &Path, limit: &GroupLimit) -> Option<String> {
    let (name, wanted) = if let GroupLimit::MemoryLow(bytes) = limit {
        ("memory.low", *bytes)
    } else if let GroupLimit::MemoryMin(bytes) = limit {
        ("memory.min", *bytes)
    } else {
        return None;
    };
    for above in dir.ancestors().skip(1) {
        let file = above.join(name);
        match fs::read_to_string(&file) {
            Ok(text) if gives(text.trim(), wanted) => {}
            Ok(text) => {
                let (file, seen) = (file.display(), text.trim());
                return Some(format!("{file} is {seen:?}: what is in that group is protected no further"));
            }
            // The root of the hierarchy bounds nothing and has no such file.
            Err(_) if above.join("cgroup.procs").try_exists().unwrap_or(false) => return None,
            Err(_) => break,
        }
    }
    Some(format!("the groups above what is mounted here are not seen, and each bounds {name}"))
}

fn gives(text: &str, wanted: u64) -> bool {
    text == "max" || text.parse::<u64>().is_ok_and(|bytes| bytes >= wanted)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::process;

    use super::less_than_written;
    use crate::policy::GroupLimit;

    #[test]
    fn a_protection_is_bounded_by_every_group_above() {
        let top = env::temp_dir().join(format!("ringfence-protection-{}", process::id()));
        let dir = top.join("a/b/own");
        fs::create_dir_all(&dir).expect("directories");
        let wanted = GroupLimit::MemoryMin(4096);
        let set =
            |place: &str, text: &str| fs::write(top.join(place).join("memory.min"), text).expect("a file");
        set("a", "max\n");
        set("a/b", "4096\n");
        assert!(less_than_written(&dir, &wanted).is_some_and(|why| why.contains("not seen")), "no root");
        fs::write(top.join("cgroup.procs"), "").expect("a file");
        assert_eq!(less_than_written(&dir, &wanted), None);
        set("a", "4095\n");
        assert!(less_than_written(&dir, &wanted).is_some_and(|why| why.contains("a/memory.min is \"4095\"")));
        set("a/b", "0\n");
        assert!(less_than_written(&dir, &wanted).is_some_and(|why| why.contains("a/b/memory.min is \"0\"")));
        assert_eq!(less_than_written(&dir, &GroupLimit::Memory(4096)), None, "no protection");
        fs::remove_dir_all(&top).expect("the directories");
    }
}
