//! What comes in by way of dependencies, held against deny.toml by cargo's own metadata: licences, banned crates, wildcards,
//! sources. `cargo deny` does the same and more where it is installed.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::env;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use serde_json::{Value, from_slice};

    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn metadata() -> Value {
        let output = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"])
            // What is for other systems is neither built nor downloaded.
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        from_slice(&output.stdout).unwrap()
    }

    fn deny() -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap()
    }

    /// The words in quotes on the line of deny.toml that begins so.
    fn quoted(text: &str, begin: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.trim_start().starts_with(begin)).unwrap_or_default();
        line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn text<'a>(package: &'a Value, key: &str) -> &'a str {
        package[key].as_str().unwrap_or_default()
    }

    fn packages(metadata: &Value) -> &Vec<Value> {
        metadata["packages"].as_array().unwrap()
    }

    /// Whether an SPDX expression can be met with these licences: `OR` needs one side, `AND` both, and a `/` is an old `OR`.
    fn is_met(expression: &str, allowed: &[String]) -> bool {
        let words = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut at = 0;
        any_of(&words, &mut at, allowed) && at == words.len()
    }

    fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
        let mut met = all_of(words, at, allowed);
        while words.get(*at) == Some(&"OR") {
            *at += 1;
            met |= all_of(words, at, allowed);
        }
        met
    }

    fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
        let mut met = one(words, at, allowed);
        while words.get(*at) == Some(&"AND") {
            *at += 1;
            met &= one(words, at, allowed);
        }
        met
    }

    fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
        let word = words.get(*at).copied().unwrap_or_default();
        *at += 1;
        if word == "(" {
            let met = any_of(words, at, allowed);
            *at += 1;
            return met;
        }
        // `WITH` only allows more.
        if words.get(*at) == Some(&"WITH") {
            *at += 2;
        }
        allowed.iter().any(|licence| licence == word)
    }

    #[test]
    fn an_expression_of_licences_is_understood() {
        let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
        for (expression, met) in [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("Apache-2.0/MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-2.0", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("GPL-3.0", false),
            ("", false),
        ] {
            assert_eq!(is_met(expression, &allowed), met, "{expression}");
        }
    }

    #[test]
    fn every_licence_is_an_allowed_one() {
        let (metadata, allowed) = (metadata(), quoted(&deny(), "allow ="));
        assert!(allowed.len() > 1, "deny.toml allows {allowed:?}");
        let wrong = packages(&metadata).iter().filter(|package| !is_met(text(package, "license"), &allowed));
        let wrong: Vec<_> = wrong.map(|package| (text(package, "name"), text(package, "license"))).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn everything_comes_from_the_registry_and_names_a_version() {
        let metadata = metadata();
        let mut wrong = Vec::new();
        for package in packages(&metadata) {
            let (name, source) = (text(package, "name"), text(package, "source"));
            if source.is_empty() != (name == env!("CARGO_PKG_NAME")) || !["", REGISTRY].contains(&source) {
                wrong.push(format!("{name} comes from {source:?}"));
            }
            if name == env!("CARGO_PKG_NAME") {
                let wild =
                    package["dependencies"].as_array().unwrap().iter().filter(|one| text(one, "req") == "*");
                wrong.extend(wild.map(|one| format!("{}: any version", text(one, "name"))));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// The names of the crates that a user of the crate builds: reached without development dependencies.
    fn built_for_a_user(metadata: &Value) -> BTreeSet<String> {
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let mut todo = vec![metadata["resolve"]["root"].as_str().unwrap().to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let Some(node) = nodes.iter().find(|node| text(node, "id") == id) else { continue };
            for dependency in node["deps"].as_array().unwrap() {
                let kinds = dependency["dep_kinds"].as_array().unwrap();
                if kinds.iter().any(|kind| text(kind, "kind") != "dev") {
                    todo.push(text(dependency, "pkg").to_owned());
                }
            }
        }
        let name = |id: &String| {
            packages(metadata)
                .iter()
                .find(|package| text(package, "id") == id)
                .map(|p| text(p, "name").to_owned())
        };
        seen.iter().filter_map(name).collect()
    }

    #[test]
    fn a_user_of_the_crate_builds_nothing_that_is_banned() {
        let (metadata, deny) = (metadata(), deny());
        let names = built_for_a_user(&metadata);
        assert!(names.contains("libc") && !names.contains("criterion"), "{names:?}");
        let banned =
            deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next());
        let banned: Vec<&str> = banned.collect();
        assert!(banned.len() > 2, "{banned:?}");
        let found: Vec<_> = banned.iter().filter(|name| names.contains(**name)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
