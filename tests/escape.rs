//! A program for each known trick against sandboxes: behind the fence it fails, with its defence off it works. Both are
//! measured, in a throw-away host.

#[cfg(test)]
#[path = "escape/arena.rs"]
mod arena;
#[cfg(test)]
#[path = "escape/fence.rs"]
mod fence;
#[cfg(test)]
#[path = "escape/hiding.rs"]
mod hiding;
#[cfg(test)]
#[path = "escape/racing.rs"]
mod racing;
#[cfg(test)]
mod support;
#[cfg(test)]
#[path = "escape/table.rs"]
mod table;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::env;
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use super::arena::{enter, payload, untouched};
    use super::fence::{
        Fence, Off, Results, absent, as_uid_0, behind, by_knob, control, copied, fenced, first, unfiltered,
    };
    use super::support::{field, is_root, say};
    use super::table::{Callers, Trick, tricks};

    /// A filter around the tests would answer the controls.
    fn is_filtered() -> bool {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        field(&status, "Seccomp") != "0"
    }

    fn names(tricks: &[&Trick]) -> Vec<&'static str> {
        tricks.iter().map(|trick| trick.name).collect()
    }

    /// Whether the caller is the machine's root, with every capability that a control needs.
    fn is_host_root() -> bool {
        // DAC_READ_SEARCH SETGID SETUID NET_RAW SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_NICE SYS_TIME MKNOD
        // SETFCAP SYSLOG, by their numbers (capabilities(7)).
        let needed = [2, 6, 7, 13, 17, 18, 19, 20, 21, 23, 25, 27, 31, 34]
            .iter()
            .map(|number| 1_u64 << number)
            .sum::<u64>();
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let held = u64::from_str_radix(field(&status, "CapEff"), 16).expect("a mask");
        let map = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
        is_root() && held & needed == needed && map.split_whitespace().eq(["0", "0", "4294967295"])
    }

    /// Those that this caller can make the control of on this machine.
    fn can_be_controlled(trick: &Trick) -> bool {
        trick.callers == Callers::Everyone || is_host_root()
    }

    /// Every control, in as few launches as can be.
    fn controls(all: &[&Trick]) -> Results {
        let mut groups: BTreeMap<Off, Vec<&Trick>> = BTreeMap::new();
        for trick in all.iter().filter(|trick| can_be_controlled(trick)) {
            groups.entry(trick.off).or_default().push(trick);
        }
        groups.iter().flat_map(|(off, tricks)| control(*off, &names(tricks))).collect()
    }

    /// What is wrong with one row; a control that this kernel cannot make is told.
    fn row_faults(trick: &Trick, fenced: &Results, unfiltered: &Results, control: &Results) -> Vec<String> {
        let mut faults = Vec::new();
        let name = trick.name;
        let seen = &fenced[name];
        if seen.end != 'B' && !(seen.end == 'M' && control.get(name).is_some_and(|it| it.end == 'M')) {
            faults.push(format!("{name} behind the fence: {seen}"));
        }
        if let Some(open) = unfiltered.get(name)
            && open.end != 'B'
            && !trick.by_filter_alone()
        {
            faults.push(format!("{name} behind the fence without its filter: {open}"));
        }
        match (control.get(name), trick.callers) {
            (None, Callers::Root(_)) if !is_host_root() => {}
            (Some(seen), _) if seen.end == 'E' => {}
            (Some(seen), _) if seen.end == 'M' => {
                say(&format!("SKIPPED control of {name}: this machine has not {}", seen.step));
            }
            (seen, _) => faults.push(format!("{name} with its defence off: {seen:?}")),
        }
        faults
    }

    #[expect(clippy::print_stdout, reason = "a table for whoever asks for it")]
    fn print(all: &[&Trick], fenced: &Results, unfiltered: &Results, control: &Results) {
        // libtest has begun a line.
        println!();
        println!("| trick | defence | fenced | without the filter | control | |");
        println!("|---|---|---|---|---|---|");
        let cell = |results: &Results, name| results.get(name).map_or("-".to_owned(), ToString::to_string);
        for trick in all {
            let control = match trick.callers {
                Callers::Root(why) if !is_host_root() => format!("not as this user: {why}"),
                Callers::Root(_) | Callers::Everyone => cell(control, trick.name),
            };
            let (fenced, open) = (cell(fenced, trick.name), cell(unfiltered, trick.name));
            println!(
                "| {} | {} | {fenced} | {open} | {} | {control} |",
                trick.name,
                trick.defence,
                trick.off.text()
            );
        }
    }

    /// The default fence in its other forms. A program that is PID 1 may look at PID 1, and one that is uid 0 may become it.
    fn other_forms(tricks: &[&'static str]) -> Vec<String> {
        let without = |trick: &str| tricks.iter().copied().filter(|name| *name != trick).collect::<Vec<_>>();
        let mut faults = Vec::new();
        for (form, results) in [
            ("in a copy", copied(tricks)),
            ("as PID 1", first(&without("init_memory"))),
            ("as uid 0", as_uid_0(&without("set_user_id"))),
        ] {
            let through = results.iter().filter(|(_, seen)| !matches!(seen.end, 'B' | 'M'));
            faults.extend(through.map(|(name, seen)| format!("{name} behind the fence, {form}: {seen}")));
        }
        faults
    }

    #[test]
    fn every_trick_fails_behind_the_fence_and_works_with_its_defence_off() {
        const NAME: &str = "every_trick_fails_behind_the_fence_and_works_with_its_defence_off";
        if is_filtered() {
            return say(&format!("SKIPPED {NAME}: the caller is under a filter"));
        }
        if !enter(module_path!(), NAME) {
            return;
        }
        let all = tricks();
        let kinds = [Fence::Default, Fence::NoMemoryFiles, Fence::NoWriteExecute, Fence::Landlocked];
        let (missing, kinds): (Vec<Fence>, Vec<Fence>) = kinds.iter().partition(|fence| {
            let why = absent(**fence);
            why.iter().for_each(|why| say(&format!("SKIPPED tricks against {fence:?}: {why}")));
            why.is_some()
        });
        let all: Vec<&Trick> = all.iter().filter(|trick| !missing.contains(&trick.fence())).collect();
        if is_root() && !is_host_root() {
            say(
                "SKIPPED controls that only root can make: this root has not every capability over the machine",
            );
        }
        let before = untouched();
        let mut fence = Results::new();
        for kind in kinds {
            let those: Vec<&Trick> = all.iter().copied().filter(|trick| trick.fence() == kind).collect();
            fence.extend(fenced(kind, &names(&those)));
        }
        let default: Vec<&Trick> =
            all.iter().copied().filter(|trick| trick.fence() == Fence::Default).collect();
        let open = unfiltered(&names(&default));
        let mut faults = other_forms(&names(&default));
        // The victim shares its state every 50 ms.
        thread::sleep(Duration::from_millis(300));
        let after = untouched();
        let control = controls(&all);
        print(&all, &fence, &open, &control);
        faults.extend(all.iter().flat_map(|trick| row_faults(trick, &fence, &open, &control)));
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
        assert_eq!(before, after, "a fenced run reached something of the host");
        thread::sleep(Duration::from_millis(300));
        assert_ne!(untouched(), before, "the controls have reached nothing of the host");
    }
    #[test]
    fn without_a_filter_memory_files_are_the_kernels_to_refuse_or_nothing_runs() {
        const NAME: &str = "without_a_filter_memory_files_are_the_kernels_to_refuse_or_nothing_runs";
        if !Path::new("/proc/sys/vm/memfd_noexec").try_exists().is_ok_and(|there| there) {
            return say(&format!("SKIPPED {NAME}: this kernel has not vm.memfd_noexec"));
        }
        if !enter(module_path!(), NAME) {
            return;
        }
        let seen = behind(&by_knob(), "execute_memory_file");
        if is_root() {
            assert_eq!(seen.end, 'B', "{seen}");
        } else {
            assert!(seen.step.starts_with("knob vm.memfd_noexec=2: openat: EACCES"), "{seen}");
        }
    }

    /// What the first comment of a trick's source says it does.
    fn tries(trick: &Trick) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/tricks").join(trick.name);
        let text = fs::read_to_string(path.with_extension("c")).expect("its source");
        let comment = text.strip_prefix("/* ").and_then(|text| text.split_once(" */"));
        comment.expect("a comment that says what it does").0.to_owned()
    }

    fn catalogue() -> String {
        let all = tricks();
        let mut text = format!("{HEAD}\nThere are {} of them.\n", all.len());
        let mut group = "";
        for trick in &all {
            if trick.group != group {
                group = trick.group;
                text += &format!(
                    "\n## {group}\n\n| trick | what it tries | what keeps it from that | control |\n|---|---|---|---|\n"
                );
            }
            let only = match trick.callers {
                Callers::Everyone => String::new(),
                Callers::Root(why) => format!("; as root only: {why}"),
            };
            let control = format!("{}{only}", trick.off.text());
            text += &format!("| `{}` | {} | {} | {control} |\n", trick.name, tries(trick), trick.defence);
        }
        text
    }

    const HEAD: &str = "# Tricks

A file in `tricks/` for each way out of a sandbox that is known. `cargo test --test escape` makes one program of them, and runs
each behind the fence, where it has to fail, and in its control, with the defence off, where it has to work: a trick that cannot
work shows nothing. Those of the default sandbox run again without its filter: unless the filter is all there is against
them, they have to fail then too; and again with the set-up in a copy of the caller, as PID 1, and as uid 0. All of it happens
in a throw-away host (`arena.rs`): namespaces of its own, with a victim, planted files, keys, sockets, segments and what
careless callers leave open. The victim's state has to be as before after the fenced runs, and not after the controls. `-- --nocapture` prints what each run was answered.
Where a machine has not what a trick uses, a line `SKIPPED control of` names it. The kernels of `tests/vm/run` have `AF_ALG`, and x32 in
the configuration of that name.

What takes longer than a call stands in `hiding.rs` (living on after a kill, bombs) and `racing.rs` (directories that are swapped
while they are mounted, memory that changes while it is looked at), each with a control too.

This file is written by that test (`RINGFENCE_BLESS=1`), which fails where it is not as the code is.
";

    #[test]
    fn the_catalogue_is_as_the_code_is() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/README.md");
        let wanted = catalogue();
        if env::var_os("RINGFENCE_BLESS").is_some() {
            fs::write(&file, &wanted).expect("README.md");
        }
        let there = fs::read_to_string(&file).expect("README.md");
        let differs = there.lines().zip(wanted.lines()).find(|(is, should)| is != should);
        assert!(there == wanted, "{differs:?}");
        assert!(tricks().len() >= 60);
    }

    #[test]
    fn every_trick_has_a_row_and_every_row_a_trick() {
        let Some(payload) = payload() else {
            return say("SKIPPED every_trick_has_a_row_and_every_row_a_trick: there is no gcc");
        };
        let output = Command::new(payload.path()).arg("list").output().expect("the payload");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let programs: BTreeSet<&str> = text.lines().collect();
        let all = tricks();
        let rows: BTreeSet<&str> = all.iter().map(|trick| trick.name).collect();
        assert_eq!(programs, rows);
        assert_eq!(rows.len(), all.len(), "a name stands twice");
    }
}
