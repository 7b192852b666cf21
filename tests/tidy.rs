//! Keeps the layout honest: what the compiler cannot check, this does.

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Modules from the ground up. A module may use only modules on lower lines.
    const LEVELS: &[&[&str]] = &[
        &["error", "sys"],
        &["policy", "machine"],
        &["host"],
        &["plan"],
        &["spawn"],
        &["process", "lower"],
        &["internals"],
    ];
    /// Who may use what beside that: the machine's text steps by the size of an instruction.
    const EXCEPTIONS: &[(&str, &str)] = &[("sys", "machine::isa")];
    /// Who may use less.
    const ONLY: &[(&str, &[&str])] = &[("machine", &["sys"])];
    const MOST_LINES: usize = 500;
    /// How many `unsafe` each file of `sys` has. A larger number is a decision: it is changed here, too, and its reason stands
    /// in the SAFETY comment.
    const UNSAFE: &[(&str, usize)] = &[
        ("fork", 27),
        ("group", 6),
        ("lower", 9),
        ("machine", 4),
        ("memory", 11),
        ("message", 3),
        ("mod", 2),
        ("mount", 3),
        ("notify", 7),
        ("probe", 4),
        ("process", 19),
        ("reactor", 1),
        ("terminal", 5),
    ];

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn walk(directory: &Path, fits: &dyn Fn(&Path) -> bool, out: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts"].contains(&name) {
                    walk(&path, fits, out);
                }
            } else if fits(&path) {
                out.push(path);
            }
        }
    }

    /// The files below `directory` with their name from the root, and their text.
    fn texts(directory: &str, extensions: &[&str]) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let fits = |path: &Path| path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known));
        walk(&root().join(directory), &fits, &mut files);
        let name = |path: &Path| path.strip_prefix(root()).expect("below the root").display().to_string();
        files.sort();
        files.iter().map(|path| (name(path), fs::read_to_string(path).expect("it is text"))).collect()
    }

    fn rust_files() -> Vec<(String, String)> {
        ["src", "tests", "examples", "benches", "fuzz"].iter().flat_map(|d| texts(d, &["rs"])).collect()
    }

    fn level(module: &str) -> Option<usize> {
        LEVELS.iter().position(|level| level.contains(&module))
    }

    /// A line without its comment.
    fn code(line: &str) -> &str {
        line.split("//").next().unwrap_or_default()
    }

    fn holds(faults: &[String]) {
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }

    /// What the line `code` of `module` uses and may not.
    fn wrong_uses(module: &str, code: &str) -> Vec<String> {
        let own = level(module).unwrap_or(0);
        let only = ONLY.iter().find(|(who, _)| *who == module).map(|(_, list)| *list);
        let mut wrong = Vec::new();
        for path in code.split("crate::").skip(1) {
            let used: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if used == module || EXCEPTIONS.iter().any(|(who, what)| *who == module && path.starts_with(what))
            {
                continue;
            }
            let below = level(&used).is_some_and(|level| level < own);
            if !below || only.is_some_and(|list| !list.contains(&used.as_str())) {
                wrong.push(format!("{module} must not use crate::{}", path.trim_end()));
            }
        }
        wrong
    }

    #[test]
    fn imports_point_one_way() {
        let mut faults = Vec::new();
        for (name, text) in texts("src", &["rs"]) {
            let module = name.split('/').nth(1).unwrap_or_default().trim_end_matches(".rs");
            if module == "lib" {
                continue;
            }
            if level(module).is_none() {
                faults.push(format!("{name}: {module} has no place in LEVELS"));
            }
            for (number, line) in (1..).zip(text.lines()) {
                let wrong = wrong_uses(module, code(line));
                faults.extend(wrong.into_iter().map(|wrong| format!("{name}:{number}: {wrong}")));
            }
        }
        holds(&faults);
    }

    #[test]
    fn a_use_against_the_order_is_seen() {
        let planted = [
            ("policy", "use crate::host::Host;"),
            ("machine", "use crate::error::Error;"),
            ("sys", "use crate::machine::segment::Segment;"),
            ("plan", "let x = crate::spawn::launch();"),
            ("error", "use crate::{sys, plan};"),
            ("host", "use crate::nowhere::Thing;"),
        ];
        for (module, line) in planted {
            assert!(!wrong_uses(module, line).is_empty(), "{module}: {line}");
        }
        for (module, line) in [("sys", "use crate::machine::isa::INSN_SIZE;"), ("plan", "crate::host::Host")]
        {
            assert_eq!(wrong_uses(module, line), Vec::<String>::new(), "{module}: {line}");
        }
    }

    #[test]
    fn every_file_says_what_it_is_for_and_is_short() {
        let mut faults = Vec::new();
        let files = rust_files();
        assert!(files.len() > 60, "{} files", files.len());
        for (name, text) in files {
            let head = text.lines().next().and_then(|line| line.strip_prefix("//! "));
            if head.is_none_or(|words| words.split(' ').count() < 3) {
                faults.push(format!("{name}: no //! line that says what it is for"));
            }
            let lines = text.lines().count();
            if lines > MOST_LINES {
                faults.push(format!("{name}: {lines} lines, at most {MOST_LINES}"));
            }
        }
        holds(&faults);
    }

    #[test]
    fn unsafe_stands_only_in_sys() {
        let mut faults = Vec::new();
        for (name, text) in texts("src", &["rs"]) {
            if name.starts_with("src/sys/") {
                continue;
            }
            for (number, line) in (1..).zip(text.lines()) {
                let mut words = code(line).split(|c: char| !(c.is_alphanumeric() || c == '_'));
                if words.any(|word| word == "unsafe") {
                    faults.push(format!("{name}:{number}: unsafe outside sys"));
                }
            }
        }
        holds(&faults);
    }

    /// Words of the code, without comments.
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.lines().flat_map(|line| code(line).split(|c: char| !(c.is_alphanumeric() || c == '_')))
    }

    #[test]
    fn unsafe_is_counted() {
        let count = |text: &str| words(text).filter(|word| *word == "unsafe").count();
        let found = texts("src/sys", &["rs"]).into_iter().map(|(name, text)| {
            let file = name.trim_start_matches("src/sys/").trim_end_matches(".rs").to_owned();
            (file, count(&text))
        });
        let found: Vec<(String, usize)> = found.filter(|(_, count)| *count > 0).collect();
        let stated: Vec<(String, usize)> =
            UNSAFE.iter().map(|(file, count)| ((*file).to_owned(), *count)).collect();
        assert_eq!(found, stated, "what is found, and what UNSAFE states");
    }

    #[test]
    fn every_unsafe_says_why_it_is_sound() {
        let mut faults = Vec::new();
        for (name, text) in texts("src/sys", &["rs"]) {
            let lines: Vec<&str> = text.lines().collect();
            for (index, line) in lines.iter().enumerate() {
                if !words(line).any(|word| word == "unsafe") {
                    continue;
                }
                // A block may stand some lines into its statement; a function says it under "# Safety".
                let above = &lines[index.saturating_sub(6)..index];
                let said = ["SAFETY:", "# Safety", "unsafe extern"];
                let here = |line: &&str| said.iter().any(|word| line.contains(word));
                if !above.iter().any(here) && !here(line) {
                    faults.push(format!("{name}:{}: unsafe without a SAFETY comment", index + 1));
                }
            }
        }
        holds(&faults);
    }

    #[test]
    fn every_child_is_made_by_the_machine() {
        let makers = ["SYS_clone", "SYS_clone3", "SYS_fork", "SYS_vfork", "vfork"];
        // Modules and functions of the crate are called so too.
        let foreign = ["libc::fork", "unistd::fork", "libc::clone", "sched::clone"];
        let mut faults = Vec::new();
        for (name, text) in texts("src", &["rs"]) {
            // The table makes init's child, and that of a copy; a probe makes none; and there are lists of names.
            let allowed = [
                "src/sys/machine.rs",
                "src/sys/fork.rs",
                "src/plan/init.rs",
                "src/plan/fork.rs",
                "src/host/features.rs",
                "src/policy/seccomp/",
            ];
            if name.contains("/tests") || allowed.iter().any(|place| name.starts_with(place)) {
                continue;
            }
            let found = words(&text).filter(|word| makers.contains(word));
            faults.extend(found.map(|word| format!("{name}: {word}")));
            let imported = text.split("use nix::unistd::").skip(1).filter_map(|rest| rest.split(';').next());
            let imported = imported.flat_map(words).filter(|word| *word == "fork");
            let called = foreign.into_iter().filter(|call| text.contains(call));
            faults.extend(imported.chain(called).map(|word| format!("{name}: {word}")));
        }
        holds(&faults);
    }

    #[test]
    fn nothing_is_left_for_later() {
        let words = [
            concat!("#[", "ignore"),
            concat!("to", "do!"),
            concat!("unimple", "mented!"),
            concat!("FIX", "ME"),
        ];
        let mut faults = Vec::new();
        for (name, text) in rust_files() {
            let found = words.iter().filter(|word| text.contains(**word));
            faults.extend(found.map(|word| format!("{name}: {word}")));
        }
        holds(&faults);
    }

    #[test]
    fn no_file_names_a_path_of_a_build_machine() {
        let own = env!("CARGO_MANIFEST_DIR").to_owned();
        let home = env::var("HOME").unwrap_or_default();
        let mut places: Vec<String> =
            Some(home).filter(|home| home.matches('/').count() > 1).into_iter().collect();
        // A checkout at the top of a file system has too common a name.
        places.extend(Some(own).filter(|own| own.matches('/').count() > 1));
        let mut faults = Vec::new();
        for (name, text) in texts(".", &["rs", "s", "md", "toml", "txt", "sh", "yml"]) {
            let found = places.iter().filter(|place| text.contains(place.as_str()));
            faults.extend(found.map(|place| format!("{name}: {place}")));
        }
        holds(&faults);
    }

    #[test]
    fn the_changelog_has_a_head_for_what_is_to_come() {
        let text = fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md is there");
        let head = text.lines().find(|line| line.starts_with("## ")).unwrap_or_default();
        assert!(head.contains("Unreleased"), "the first head is {head:?}");
    }

    #[test]
    fn the_readme_mentions_each_example() {
        let readme = fs::read_to_string(root().join("README.md")).expect("README.md is there");
        let mut examples = Vec::new();
        for entry in fs::read_dir(root().join("examples")).expect("there are examples") {
            let path = entry.expect("an entry can be read").path();
            examples.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
        assert!(!examples.is_empty(), "there are examples");
        let missing: Vec<&String> = examples.iter().filter(|name| !readme.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "README.md does not mention {missing:?}");
    }
}
