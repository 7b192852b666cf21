//! The example that serves jobs from a pool: every answer is right, and the histogram counts every job.

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{Command, Output};

    /// The example as cargo built it for the tests, beside this test's own directory.
    fn pool(args: &[&str]) -> Output {
        let mut program = env::current_exe().unwrap();
        program.pop();
        program.pop();
        Command::new(program.join("examples/pool")).args(args).output().unwrap()
    }

    /// What it printed, and the jobs that the lines of the histogram count.
    fn counted(output: &Output) -> (String, u32) {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let lines = text.lines().filter(|line| line.contains(" ms to ") && line.ends_with('#'));
        let counts = lines.filter_map(|line| line.split_whitespace().nth(5)?.parse::<u32>().ok());
        let sum = counts.sum();
        (text, sum)
    }

    #[test]
    fn a_thousand_jobs_are_answered_and_counted() {
        let (text, sum) = counted(&pool(&["--jobs", "1000", "--threads", "4", "--size", "4"]));
        assert_eq!(sum, 1000, "{text}");
        assert!(text.contains("1000 jobs by 4 threads") && text.ends_with("wrong answers: 0\n"), "{text}");
        let line = text.lines().find(|line| line.starts_with("from the pool")).unwrap();
        let numbers: Vec<u32> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        assert!(numbers[0] >= 4 && numbers[0] + numbers[1] == 1000 && numbers[2..] == [0, 0], "{line}");
    }

    #[test]
    fn without_a_pool_the_answers_are_the_same() {
        let (text, sum) = counted(&pool(&["--jobs", "20", "--threads", "1", "--size", "0"]));
        assert_eq!(sum, 20, "{text}");
        assert!(!text.contains("from the pool"), "{text}");
    }
}
