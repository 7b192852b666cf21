//! The command of `examples/broker.rs`, run as its users run it. `cargo test` builds the examples before it runs this.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::read_to_string;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::support::Scratch;

    fn broker(args: &[&str]) -> Output {
        let own = env::current_exe().expect("a path");
        let path = own.parent().and_then(Path::parent).expect("a directory").join("examples/broker");
        assert!(
            path.is_file(),
            "{} is not built: run all of `cargo test`, or `cargo build --examples`",
            path.display()
        );
        Command::new(path).args(args).output().expect("the example runs")
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn allowed_files_are_read_and_others_refused() {
        let scratch = Scratch::new();
        let allowed = scratch.directory("allowed");
        let (list, secret) =
            (scratch.file("allowed/list", "in the list\n"), scratch.file("secret", "secret\n"));
        symlink(&secret, allowed.join("link")).expect("a symlink");
        let [dir, list, secret] = [&allowed, &list, &secret].map(|path| path.display().to_string());
        let output = broker(&["--allow", &dir, "cat", &list]);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), "in the list\n".to_owned()),
            "{output:?}"
        );
        assert_eq!(text(&output.stderr), format!("broker: read {list}: allowed\n"));
        // What is not below it, what leaves it, and what is to be written.
        let link = format!("{dir}/link");
        let around = format!("{dir}/../secret");
        for path in [secret.as_str(), &link, &around] {
            let output = broker(&["--allow", &dir, "cat", path]);
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{output:?}");
        }
        let output = broker(&["--allow", &dir, "sh", "-c", "echo more >> \"$0\"", &list]);
        assert_ne!(output.status.code(), Some(0));
        assert!(text(&output.stderr).contains(&format!("broker: write {list}: refused\n")), "{output:?}");
        assert_eq!(read_to_string(&list).expect("the list"), "in the list\n");
        // Without the directory nothing of it is there.
        let output = broker(&["cat", &list]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }

    #[test]
    fn python_reads_by_its_own_means() {
        let scratch = Scratch::new();
        let list = scratch.file("list", "1\n2\n3\n").display().to_string();
        let dir = scratch.path().display().to_string();
        let script = "import sys, json, subprocess; print(sum(int(line) for line in open(sys.argv[1])))";
        let output = broker(&["--allow", &dir, "python3", "-c", script, &list]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "6\n".to_owned()), "{output:?}");
        let output = broker(&["--allow", &dir, "sh", "-c", "exit 7"]);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
}
