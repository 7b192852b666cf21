//! The online judge on real submissions: each verdict, the table, the JSON, the exit status.

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::io::{Write, stderr};
    use std::path::{Path, PathBuf};
    use std::process::{self, Command, Output};

    use serde_json::Value;

    /// A directory of this test's own, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("ringfence-judge-{}-{name}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // What is left in the temporary directory does no harm.
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// For what is not judged by its time: an interpreter takes a second to start on an emulated machine.
    const LONG: [&str; 2] = ["--time", "30000"];

    fn sample() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/judge")
    }

    /// The example as cargo built it for the tests, beside this test's own directory.
    fn judge(args: &[&str], cases: &Path, submission: &Path) -> Output {
        let mut program = env::current_exe().unwrap();
        program.pop();
        program.pop();
        let mut command = Command::new(program.join("examples/judge"));
        command.args(args).arg("--cases").arg(cases).arg(submission);
        command.output().unwrap()
    }

    fn text(output: &Output) -> String {
        let out = String::from_utf8_lossy(&output.stdout);
        format!("{}\n{out}{}", output.status, String::from_utf8_lossy(&output.stderr))
    }

    /// The verdict of the one case of a submission.
    fn verdict(scratch: &Scratch, name: &str, source: &str, args: &[&str]) -> Value {
        let cases = scratch.0.join("cases");
        fs::create_dir_all(&cases).unwrap();
        fs::write(cases.join("one.in"), "4 5\n").unwrap();
        fs::write(cases.join("one.out"), "9\n").unwrap();
        let submission = scratch.write(name, source);
        let args: Vec<&str> = ["--format", "json"].iter().chain(args).copied().collect();
        let output = judge(&args, &cases, &submission);
        let json: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let accepted = json["accepted"] == json["of"];
        assert_eq!(output.status.code(), Some(i32::from(!accepted)), "{}", text(&output));
        json["cases"][0].clone()
    }

    #[test]
    fn right_answers_are_accepted_in_both_languages() {
        for name in ["sum.c", "sum.py"] {
            let output = judge(&LONG, &sample().join("sum"), &sample().join(name));
            assert!(output.status.success(), "{}", text(&output));
            let table = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(table.starts_with("case "), "{table}");
            assert!(table.ends_with("4 of 4 accepted\n"), "{table}");
        }
    }

    #[test]
    fn each_way_to_fail_has_its_verdict() {
        let scratch = Scratch::new("verdicts");
        let short = &["--time", "300", "--jobs", "1"][..];
        let cases = [
            ("wrong.py", "print(8)", "WA", &LONG[..]),
            ("crash.c", "int main(void) { return *(volatile int *)8; }", "RE", &LONG),
            ("code.py", "exit(3)", "RE", &LONG),
            ("loop.c", "int main(void) { for (volatile int i = 0;; i++); }", "TLE", short),
            ("sleep.py", "import time; time.sleep(1000)", "TLE", short),
            ("flood.py", "while True: print('x' * 1000)", "OLE", &["--output", "64", "--time", "30000"]),
            ("quiet.py", "print(9)\nprint(end=' ')", "AC", &LONG),
        ];
        for (name, source, expected, args) in cases {
            let case = verdict(&scratch, name, source, args);
            assert_eq!(case["verdict"], expected, "{name}: {case}");
        }
    }

    #[test]
    fn memory_and_processes_are_bounded_where_the_kernel_can() {
        let scratch = Scratch::new("bounded");
        let hog = "x = bytearray(1 << 30)\nx[::4096] = b'x' * len(x[::4096])\nprint(9)";
        let case = verdict(&scratch, "hog.py", hog, &["--memory", "64", "--time", "30000"]);
        if case["limits"] == "hard" {
            assert_eq!(case["verdict"], "MLE", "{case}");
            let peak = case["peak_bytes"].as_u64().unwrap();
            // Before Linux 5.19 version 2 counts no peak: a process's own has what is charged to nobody in it.
            let most = if case["peak_of"] == "tree" { 64 << 20 } else { 96 << 20 };
            assert!(peak > 32 << 20 && peak <= most, "{case}");
            let case = verdict(&scratch, "bomb.py", "import os\nwhile True: os.fork()", &LONG);
            assert_eq!(case["verdict"], "PLE", "{case}");
        } else {
            assert_ne!(case["verdict"], "AC", "{case}");
            let line =
                "SKIPPED memory_and_processes_are_bounded_where_the_kernel_can: no control group here\n";
            stderr().write_all(line.as_bytes()).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_judged_is_2_with_a_text() {
        let scratch = Scratch::new("mistakes");
        let bad = scratch.write("bad.c", "int main(void) { return }");
        let output = judge(&[], &sample().join("sum"), &bad);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output).contains("does not compile") && text(&output).contains("error:"),
            "{}",
            text(&output)
        );
        let odd = scratch.write("odd.rb", "puts 9");
        assert_eq!(judge(&[], &sample().join("sum"), &odd).status.code(), Some(2));
        let output = judge(&[], &scratch.0, &sample().join("sum.c"));
        assert!(text(&output).contains("no NAME.in"), "{}", text(&output));
    }

    #[test]
    fn a_submission_reads_no_answers() {
        let scratch = Scratch::new("cheat");
        let cheat = format!(
            "import glob, os\nfor p in ['/', '/tmp', '{0}', '{0}/cases']:\n try: assert 'one.out' not in os.listdir(p)\n \
             except OSError: pass\nprint(9)",
            scratch.0.display()
        );
        assert_eq!(verdict(&scratch, "cheat.py", &cheat, &LONG)["verdict"], "AC");
    }
}
