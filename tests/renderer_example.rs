//! The example with a worker for each page: good pages are rendered, a crashed and a hung one are lost alone.

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{Command, Output};

    /// The example as cargo built it for the tests, beside this test's own directory.
    fn renderer(args: &[&str]) -> (String, Output) {
        let mut program = env::current_exe().unwrap();
        program.pop();
        program.pop();
        let output = Command::new(program.join("examples/renderer")).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, output)
    }

    #[test]
    fn crashed_and_hung_pages_are_lost_alone() {
        let (text, output) = renderer(&[]);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            text.contains("news: 1 lines") && text.contains("News A fence was built early, and held."),
            "{text}"
        );
        assert!(text.contains("long: 3 lines"), "{text}");
        assert!(text.contains("evil: the tab crashed: killed by SIGABRT"), "{text}");
        assert!(text.contains("slow: the tab crashed: out of time: the limit is 2s"), "{text}");
        assert!(text.ends_with("4 pages, 2 lost; the server still serves: yes\n"), "{text}");
    }

    #[test]
    fn a_file_is_rendered_by_its_descriptor_alone() {
        let (text, output) = renderer(&["/etc/hostname"]);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("/etc/hostname: 1 lines") && text.contains("1 pages, 0 lost"), "{text}");
    }
}
