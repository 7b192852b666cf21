//! The tricks of `tests/escape` behind other sandboxes beside this one: a table of what each let through. It asserts only that
//! this one lets nothing through.

#[cfg(test)]
#[path = "escape/arena.rs"]
#[expect(clippy::allow_attributes, reason = "the other test uses the rest")]
#[allow(dead_code, reason = "the other test uses the rest")]
mod arena;
#[cfg(test)]
#[path = "escape/fence.rs"]
#[expect(clippy::allow_attributes, reason = "the other test uses the rest")]
#[allow(dead_code, reason = "the other test uses the rest")]
mod fence;
#[cfg(test)]
mod support;
#[cfg(test)]
#[path = "escape/table.rs"]
#[expect(clippy::allow_attributes, reason = "the other test uses the rest")]
#[allow(dead_code, reason = "the other test uses the rest")]
mod table;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::arena::{at, enter, handle_of, planted};
    use super::fence::{Fence, Results, complete, fenced};
    use super::support::say;
    use super::table::tricks;

    /// One of the others, and how it is called.
    struct Peer {
        program: &'static str,
        version: String,
        command: Command,
    }

    /// By which names the program sees the planted trees.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Names {
        Hosts,
        Own,
    }

    /// The first line of what `--version` says; `None` where it is not installed.
    fn version(program: &str) -> Option<String> {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(|line| line.replace("version ", ""))
    }

    fn path(name: &str) -> String {
        at(name).display().to_string()
    }

    /// As strict as its own options go, without a filter made elsewhere.
    fn bwrap(told: &[(String, String)]) -> Command {
        let mut command = Command::new("bwrap");
        command.args([
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--uid",
            "1000",
            "--gid",
            "1000",
        ]);
        command.args(["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]);
        command.args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]);
        command.args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]);
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        command.args(["--ro-bind", &path("ro"), "/ro", "--ro-bind", "/dev/null", "/ro/cover/masked"]);
        command.args(["--bind", &path("rw"), "/rw", "--ro-bind", &path("escape"), "/escape"]);
        for (name, value) in told {
            command.args(["--setenv", name, value]);
        }
        command.args(["--chdir", "/", "--", "/escape"]);
        command
    }

    /// Its own tree, with what is named in the directory of the test.
    fn firejail(told: &[(String, String)]) -> Command {
        let mut command = Command::new("firejail");
        command.args(["--noprofile", "--caps.drop=all", "--nonewprivs", "--seccomp", "--noroot"]);
        command.args(["--net=none", "--ipc-namespace", "--private-dev", "--private", "--nogroups"]);
        for name in ["escape", "ro", "rw"] {
            command.arg(format!("--whitelist={}", path(name)));
        }
        command.arg(format!("--read-only={}", path("ro")));
        command.arg(format!("--blacklist={}", path("ro/cover/masked"))).arg("--rmenv=PLANTED");
        for (name, value) in told {
            command.arg(format!("--env={name}={value}"));
        }
        command.arg("--").arg(path("escape"));
        command
    }

    /// Every namespace, and nothing else.
    fn unshare(told: &[(String, String)]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
        command.args(["--mount-proc", "--ipc", "--net", "--uts", "--cgroup", "--"]).arg(path("escape"));
        command.envs(told.iter().cloned());
        command
    }

    fn told(names: Names) -> Vec<(String, String)> {
        let place = |name: &str| if names == Names::Own { format!("/{name}") } else { path(name) };
        let mut all = planted();
        if names == Names::Hosts {
            all.push(("ESC_TMP".to_owned(), path("rw")));
        }
        let handle = handle_of(&at("outside/secret"));
        for (name, value) in [
            ("ESC_RO", place("ro")),
            ("ESC_RW", place("rw")),
            ("ESC_RUNTIME", "1".to_owned()),
            ("ESC_HANDLE", handle),
        ] {
            all.push((name.to_owned(), value));
        }
        all
    }

    fn peers() -> Vec<Peer> {
        type Make = fn(&[(String, String)]) -> Command;
        let known: [(&str, Names, Make); 3] = [
            ("bwrap", Names::Own, bwrap),
            ("firejail", Names::Hosts, firejail),
            ("unshare", Names::Hosts, unshare),
        ];
        let mut peers = Vec::new();
        for (program, names, make) in known {
            match version(program) {
                Some(version) => {
                    let peer = |version| Peer { program, version, command: make(&told(names)) };
                    if fences(&mut peer(String::new())) {
                        peers.push(peer(version));
                    }
                }
                None => say(&format!("SKIPPED {program}: it is not installed, or does not start here")),
            }
        }
        peers
    }

    /// Whether it is one at all: firejail runs programs without any fence where it takes its place for a sandbox.
    fn fences(peer: &mut Peer) -> bool {
        let output = peer.command.arg("list").stdin(Stdio::null()).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if text.contains("existing sandbox was detected") {
            say(&format!("SKIPPED {}: it does nothing here: {}", peer.program, text.trim()));
            return false;
        }
        true
    }

    /// What became of the tricks; `None`, with a line that says why, where it ran none of them.
    fn run(peer: &mut Peer, tricks: &[&str]) -> Option<Results> {
        peer.command.arg(tricks.join(",")).env("PLANTED", "secret").stdin(Stdio::null());
        peer.command.current_dir(at("outside/deep"));
        let output = match peer.command.output() {
            Ok(output) => output,
            Err(error) => {
                say(&format!("SKIPPED {}: it cannot be started: {error}", peer.program));
                return None;
            }
        };
        let results = complete(&output.stdout, &output.stderr, tricks, &output.status);
        if results.values().all(|seen| seen.end == 'X') {
            let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            say(&format!("SKIPPED {}: it runs nothing here: {}: {why}", peer.program, output.status));
            return None;
        }
        Some(results)
    }

    fn cell(results: &Results, name: &str) -> &'static str {
        match results.get(name).map(|seen| seen.end) {
            Some('E') => "**through**",
            Some('B') => "held",
            Some('M') => "absent here",
            _ => "not tried",
        }
    }

    #[expect(clippy::print_stdout, reason = "the table is what this is for")]
    fn print(names: &[&str], columns: &[(String, Results)]) {
        // libtest has begun a line.
        println!();
        let row = |first: &str, cells: Vec<String>| println!("| {first} | {} |", cells.join(" | "));
        row("trick", columns.iter().map(|(title, _)| title.clone()).collect());
        row("---", columns.iter().map(|_| "---".to_owned()).collect());
        for name in names {
            row(name, columns.iter().map(|(_, results)| cell(results, name).to_owned()).collect());
        }
        let through = |results: &Results| results.values().filter(|seen| seen.end == 'E').count();
        let of = |(_, results): &(String, Results)| format!("{} of {}", through(results), names.len());
        row("let through", columns.iter().map(of).collect());
    }

    #[test]
    fn what_others_let_through_is_shown_and_this_lets_nothing_through() {
        const NAME: &str = "what_others_let_through_is_shown_and_this_lets_nothing_through";
        if !enter(module_path!(), NAME) {
            return;
        }
        let all = tricks();
        let names: Vec<&str> =
            all.iter().filter(|trick| trick.fence() == Fence::Default).map(|trick| trick.name).collect();
        let mut columns = vec![("ringfence".to_owned(), fenced(Fence::Default, &names))];
        for mut peer in peers() {
            if let Some(results) = run(&mut peer, &names) {
                columns.push((peer.version, results));
            }
        }
        print(&names, &columns);
        let (_, own) = &columns[0];
        let through: Vec<&String> =
            own.iter().filter(|(_, seen)| seen.end == 'E').map(|(name, _)| name).collect();
        assert_eq!(through, Vec::<&String>::new());
    }
}
