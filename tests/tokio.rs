//! A child on a tokio runtime: waiting without a thread, pipes, limits, cancelling.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfence::{AsyncChild, Builder, Clock, Stdio, Verdict};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::support::{descriptors, eventually, members, pid_namespace, shell, system, watchdog};

    fn spawn(builder: Builder, script: &str) -> AsyncChild {
        let sandbox = builder.build().unwrap();
        let mut command = shell(&sandbox, script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        AsyncChild::new(command.spawn().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_child_is_waited_for_and_its_output_collected() {
        let _watchdog = watchdog(60);
        let outcome =
            spawn(system(), "echo out; echo err >&2; cat; exit 3").wait_with_output().await.unwrap();
        assert_eq!(outcome.verdict(), Verdict::Exited(3));
        assert_eq!((&*outcome.stdout, &*outcome.stderr), (&b"out\n"[..], &b"err\n"[..]));
        let script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2";
        let outcome = spawn(system(), script).wait_with_output().await.unwrap();
        assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (3_000_000, 3_000_000));
    }

    #[tokio::test]
    async fn streams_can_be_read_and_written() {
        let _watchdog = watchdog(60);
        let mut child = spawn(system(), "while read line; do echo got $line; done");
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for number in 0..100 {
            stdin.write_all(format!("{number}\n").as_bytes()).await.unwrap();
            assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("got {number}"));
        }
        drop(stdin);
        assert_eq!(lines.next_line().await.unwrap(), None);
        assert!(child.wait().await.unwrap().success());
    }

    #[tokio::test]
    async fn many_wait_on_one_thread() {
        let _watchdog = watchdog(120);
        let mut set = JoinSet::new();
        for number in 0..32 {
            let child = spawn(system(), &format!("sleep 0.1; exit {number}"));
            set.spawn(async move { (number, child.wait().await.unwrap()) });
        }
        let mut count = 0;
        while let Some(done) = set.join_next().await {
            let (number, outcome) = done.unwrap();
            assert_eq!(outcome.verdict(), Verdict::Exited(number));
            count += 1;
        }
        assert_eq!(count, 32);
    }

    #[tokio::test]
    async fn a_wait_that_is_cancelled_harms_nothing_and_a_drop_kills() {
        let _watchdog = watchdog(60);
        let child = spawn(system(), "sleep 1000 & sleep 1000");
        let inode = pid_namespace(child.child());
        timeout(Duration::from_millis(50), child.wait()).await.unwrap_err();
        assert!(!members(&inode).is_empty(), "it runs on");
        timeout(Duration::from_millis(50), child.wait_with_output()).await.unwrap_err();
        assert_eq!(members(&inode), Vec::<i32>::new(), "with its owner it is gone");
    }

    #[tokio::test]
    async fn a_kill_is_told_by_the_wait() {
        let _watchdog = watchdog(60);
        let child = spawn(system(), "sleep 1000 & sleep 1000");
        child.start_kill().unwrap();
        assert_eq!(child.wait().await.unwrap().verdict(), Verdict::Killed);
        assert_eq!(child.wait().await.unwrap().verdict(), Verdict::Killed, "it can be asked again");
        child.start_kill().unwrap();
    }

    #[tokio::test]
    async fn the_end_of_output_is_the_programs_whoever_else_holds_the_pipe() {
        let _watchdog = watchdog(60);
        let script = "import os, socket\n\
                      s = socket.socket(fileno=int(os.environ['RINGFENCE_CHANNEL']))\n\
                      print('before', flush=True); socket.send_fds(s, [b'x'], [1])";
        let sandbox = system().build().unwrap();
        let mut command = sandbox.command("python3");
        command.args(["-c", script]).channel(7).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = AsyncChild::new(command.spawn().unwrap()).unwrap();
        let outcome = child.wait_with_output().await.unwrap();
        assert_eq!((outcome.verdict(), &*outcome.stdout), (Verdict::Exited(0), &b"before\n"[..]));
    }

    #[tokio::test]
    async fn limits_hold_here_too() {
        let _watchdog = watchdog(60);
        let limit = Duration::from_millis(200);
        let outcome = spawn(system().wall_time(limit), "sleep 1000").wait_with_output().await.unwrap();
        assert_eq!(outcome.verdict(), Verdict::TimedOut { clock: Clock::Wall, limit });
        for script in ["cat /dev/zero", "cat /dev/zero >&2", "cat /dev/zero & cat /dev/zero >&2"] {
            let outcome = spawn(system().output_limit(10_000), script).wait_with_output().await.unwrap();
            assert_eq!(outcome.verdict(), Verdict::TooMuchOutput { limit: 10_000 }, "{script}");
            assert_eq!(outcome.stdout.len() + outcome.stderr.len(), 10_000);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_stays_open() {
        let _watchdog = watchdog(120);
        drop(spawn(system(), "true").wait_with_output().await.unwrap());
        let before = descriptors().len();
        let mut set = JoinSet::new();
        for _ in 0..40 {
            let child = spawn(system(), "echo x");
            set.spawn(child.wait_with_output());
        }
        while let Some(done) = set.join_next().await {
            assert!(done.unwrap().unwrap().success());
        }
        // Other tests of this program open and close meanwhile.
        assert!(eventually(30, || descriptors().len() <= before), "{before} {:?}", descriptors());
    }
}
