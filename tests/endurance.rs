//! Some thousand spawns from many threads, of every policy and with every failure, and a crowd of sandboxes alive at once: not
//! a descriptor, thread, zombie, group, mount or file is left. `benches/endurance.rs` does it with a hundred thousand.

#[cfg(test)]
#[path = "support/endurance.rs"]
#[expect(clippy::allow_attributes, reason = "what is unused differs from file to file")]
#[allow(dead_code, reason = "the benchmark prints more than a test looks at")]
mod endurance;

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Write, stderr};
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::thread;

    use crate::endurance::traces::Traces;
    use crate::endurance::{crowd, storm};
    use crate::support::rounds;

    const SPAWNS: usize = 1_600;
    const THREADS: usize = 16;
    const ALIVE: usize = 100;

    // One test: what is counted is the whole process's.
    #[test]
    fn nothing_is_left_of_a_thousand_sandboxes_and_failures() {
        let storm = storm(rounds(SPAWNS), THREADS).unwrap();
        for (kind, why) in &storm.left_out {
            let name = "nothing_is_left_of_a_thousand_sandboxes_and_failures";
            writeln!(stderr(), "SKIPPED {name} ({kind}): {why}").unwrap();
        }
        assert_eq!(storm.faults(), Vec::<String>::new(), "{storm:#?}");
        let crowd = crowd(ALIVE).unwrap();
        assert_eq!(crowd.faults(), Vec::<String>::new(), "{crowd:#?}");
        assert_eq!(crowd.alive, ALIVE, "the limit on descriptors has room for them");
        what_is_left_is_seen();
    }

    fn what_is_left_is_seen() {
        let before = Traces::now().unwrap();
        let file = File::open("/").unwrap();
        let (tell, told) = channel::<()>();
        let thread = thread::spawn(move || told.recv().is_err());
        let ended = Command::new("/bin/true").spawn().unwrap();
        while stat_of(ended.id()) != Some('Z') {
            thread::yield_now();
        }
        let mut living = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let seen = Traces::now().unwrap().beyond(&before);
        for what in ["descriptors", "threads", "zombies", "children"] {
            assert!(seen.iter().any(|line| line.starts_with(what)), "{what}: {seen:?}");
        }
        living.kill().unwrap();
        living.wait().unwrap();
        drop((file, tell, { ended }.wait().unwrap()));
        assert!(thread.join().unwrap());
    }

    fn stat_of(pid: u32) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}
