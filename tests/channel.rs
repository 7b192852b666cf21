//! The application's own messages: whole, bounded, with descriptors; nothing that a program sends makes the caller keep or
//! allocate more than the limits.

#[cfg(test)]
#[path = "support/life.rs"]
#[expect(clippy::allow_attributes, reason = "which helpers are unused differs from file to file")]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, IoSlice, PipeReader, Read, Write, pipe};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::thread;
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use ringfence::{Channel, Child, Sandbox, Stdio, Verdict};

    use super::support::{alone, descriptors, inside_with, shell, system, watchdog};

    fn python(script: &str) -> Child {
        let sandbox = system().build().unwrap();
        let mut command = sandbox.command("python3");
        command.args(["-c", script]).channel(7).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.spawn().unwrap()
    }

    fn channel(child: &Child) -> &Channel {
        child.channel.as_ref().unwrap()
    }

    fn send_raw(to: &Channel, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&numbers)];
        let (fd, flags) = (to.as_fd().as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        sendmsg::<()>(fd, &[IoSlice::new(bytes)], &control, flags, None).unwrap();
    }

    #[test]
    fn messages_go_both_ways_and_stay_whole() {
        let _watchdog = watchdog(60);
        let (one, other) = Channel::pair().unwrap();
        one.send(b"first", &[]).unwrap();
        one.send(&vec![7; Channel::MESSAGE_MAX], &[]).unwrap();
        assert_eq!(other.receive().unwrap().unwrap().bytes, b"first");
        assert_eq!(other.receive().unwrap().unwrap().bytes, vec![7; Channel::MESSAGE_MAX]);
        drop(one);
        assert!(other.receive().unwrap().is_none(), "the end");
        assert_eq!(other.send(b"x", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn descriptors_arrive_close_on_exec() {
        let _watchdog = watchdog(60);
        let (one, other) = Channel::pair().unwrap();
        let (mut read, write) = pipe().unwrap();
        one.send(b"take", &[write.as_fd()]).unwrap();
        drop(write);
        let mut message = other.receive().unwrap().unwrap();
        assert_eq!(message.fds.len(), 1);
        let fd: OwnedFd = message.fds.pop().unwrap();
        let flags = fcntl(&fd, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        File::from(fd).write_all(b"through").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_sent() {
        let (one, _other) = Channel::pair().unwrap();
        let (read, _write) = pipe().unwrap();
        let many = [read.as_fd(); Channel::DESCRIPTORS_MAX + 1];
        for (bytes, fds) in [(0, &many[..0]), (Channel::MESSAGE_MAX + 1, &many[..0]), (1, &many[..])] {
            let error = one.send(&vec![0; bytes], fds).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        one.send(b"x", &many[1..]).unwrap();
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        alone(|| {
            let (hostile, ours) = Channel::pair().unwrap();
            let (read, _write) = pipe().unwrap();
            let before = descriptors();
            let invalid = |what: &str| {
                let error = ours.receive().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}");
                assert_eq!(descriptors(), before, "{what}: every descriptor is closed");
            };
            send_raw(&hostile, &vec![1; Channel::MESSAGE_MAX + 1], &[]);
            invalid("a byte too many");
            send_raw(&hostile, &vec![1; 2 * Channel::MESSAGE_MAX], &[read.as_fd(); 3]);
            invalid("bytes, with descriptors");
            for count in [Channel::DESCRIPTORS_MAX + 1, 253] {
                send_raw(&hostile, b"x", &vec![read.as_fd(); count]);
                invalid("descriptors");
            }
            send_raw(&hostile, b"after", &[read.as_fd(); Channel::DESCRIPTORS_MAX]);
            let message = ours.receive().unwrap().unwrap();
            assert_eq!((message.bytes.as_slice(), message.fds.len()), (&b"after"[..], 16));
            drop(message);
            assert_eq!(descriptors(), before);
        });
    }

    #[test]
    fn a_program_in_any_language_finds_its_end() {
        let _watchdog = watchdog(60);
        let child = python(
            "import os, socket\n\
             s = socket.socket(fileno=int(os.environ['RINGFENCE_CHANNEL']))\n\
             assert s.fileno() == 7\n\
             text, fds, flags, _ = socket.recv_fds(s, 1000, 4)\n\
             os.write(fds[0], text.upper())\n\
             socket.send_fds(s, [b'mine'], [os.open('/etc/passwd', os.O_RDONLY)])",
        );
        let (mut read, write) = pipe().unwrap();
        channel(&child).send(b"hello", &[write.as_fd()]).unwrap();
        drop(write);
        let message = channel(&child).receive().unwrap().unwrap();
        assert_eq!((message.bytes.as_slice(), message.fds.len()), (&b"mine"[..], 1));
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELLO");
        assert!(channel(&child).receive().unwrap().is_none());
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
    }

    #[test]
    fn a_program_in_rust_takes_its_end_once() {
        inside_with(
            system(),
            |command| {
                command.channel(9);
            },
            |child| {
                let channel = channel(child);
                channel.send(b"ping", &[]).unwrap();
                assert_eq!(channel.receive().unwrap().unwrap().bytes, b"pong");
            },
            || {
                let channel = Channel::inherited().unwrap().unwrap();
                assert!(Channel::inherited().unwrap().is_none());
                assert_eq!(channel.receive().unwrap().unwrap().bytes, b"ping");
                channel.send(b"pong", &[]).unwrap();
            },
        );
    }

    #[test]
    fn a_silent_and_a_deaf_program_cost_no_more_than_the_time_limit() {
        let _watchdog = watchdog(60);
        let child = python("import time; time.sleep(1000)");
        let channel = channel(&child);
        channel.set_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(channel.receive().unwrap_err().kind(), ErrorKind::TimedOut);
        let message = vec![0; Channel::MESSAGE_MAX];
        let refused = (0..1000).find_map(|_| channel.send(&message, &[]).err()).unwrap();
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        channel.set_timeout(None).unwrap();
        thread::scope(|scope| {
            let receiver = scope.spawn(|| channel.receive());
            child.kill().unwrap();
            assert!(receiver.join().unwrap().unwrap().is_none(), "the program's end is the channel's");
        });
    }

    /// A program that has sent its own standard output out, and ends.
    const SENT_OUT: &str = "import os, socket, sys\n\
                            s = socket.socket(fileno=int(os.environ['RINGFENCE_CHANNEL']))\n\
                            print('before', flush=True); socket.send_fds(s, [b'x'], [1])";

    #[test]
    fn the_end_of_output_is_the_programs_whoever_else_holds_the_pipe() {
        let _watchdog = watchdog(60);
        let outcome = python(SENT_OUT).wait_with_output().unwrap();
        assert_eq!((outcome.verdict(), &*outcome.stdout), (Verdict::Exited(0), &b"before\n"[..]));
    }

    #[test]
    fn a_socket_that_lingers_does_not_keep_the_caller() {
        let _watchdog = watchdog(60);
        let linger = "import os, socket, struct\n\
                      c = socket.socket(fileno=int(os.environ['RINGFENCE_CHANNEL']))\n\
                      l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname())\n\
                      b, _ = l.accept(); a.setblocking(False)\n\
                      try:\n while True: a.send(bytes(65536))\n\
                      except BlockingIOError: pass\n\
                      a.setblocking(True); a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))\n\
                      socket.send_fds(c, [b'x'], [a.fileno(), b.fileno()])\n\
                      socket.send_fds(c, [bytes(70000)], [a.fileno(), b.fileno()])\n";
        let child = python(linger);
        let message = channel(&child).receive().unwrap().unwrap();
        assert_eq!(message.fds.len(), 2);
        assert_eq!(channel(&child).receive().unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(child.wait().unwrap().verdict(), Verdict::Exited(0));
        // It would wait for an hour.
        drop(message);
    }

    #[test]
    fn each_spawn_has_a_channel_of_its_own_and_numbers_are_checked() {
        let _watchdog = watchdog(60);
        let sandbox: Sandbox = system().build().unwrap();
        let mut command = shell(&sandbox, "cat <&5 >&5");
        command.channel(5);
        let children: Vec<Child> = (0..3).map(|_| command.spawn().unwrap()).collect();
        for (number, child) in (0_u8..).zip(&children) {
            channel(child).send(&[b'a' + number], &[]).unwrap();
        }
        for (number, child) in (0_u8..).zip(&children) {
            assert_eq!(channel(child).receive().unwrap().unwrap().bytes, [b'a' + number]);
        }
        let (read, _write): (PipeReader, _) = pipe().unwrap();
        let error = command.fd(5, read).spawn().unwrap_err();
        assert!(error.to_string().contains("two descriptors for one number"), "{error}");
        let error = shell(&sandbox, "true").channel(2).spawn().unwrap_err();
        assert!(error.to_string().contains("0, 1 and 2"), "{error}");
    }
}
