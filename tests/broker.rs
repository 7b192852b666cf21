//! The broker: opens, connects and execs that a callback decides and the caller's process carries out.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
    use std::os::fd::OwnedFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
    use std::path::{Path, PathBuf};
    use std::process;
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use ringfence::{
        Broker, Builder, ConnectDecision, ExecDecision, Filter, OpenDecision, OpenPurpose, OpenRequest,
        Outcome, PeerAddress, Sandbox, Verdict,
    };

    use super::support::{Scratch, mode, sandbox};

    /// What the loader and Python need: the sandbox has it.
    fn system(request: &OpenRequest) -> Option<OpenDecision> {
        let known = [
            "/dev/urandom",
            "/dev/tty",
            "/dev/pts",
            "/usr",
            "/lib",
            "/lib64",
            "/etc/ld.so.cache",
            "/etc/python3",
        ];
        let is_system = known.iter().any(|place| request.path.starts_with(place)) && !request.writes();
        let is_system = is_system || request.path == Path::new("/dev/null");
        is_system.then_some(OpenDecision::Inside)
    }

    /// The system, and what the callback says of the rest.
    fn opening(rest: impl Fn(&OpenRequest) -> OpenDecision + Send + Sync + 'static) -> Broker {
        Broker::new().on_open(move |request| system(request).unwrap_or_else(|| rest(request)))
    }

    fn run(builder: Builder, broker: Broker, script: &str) -> Outcome {
        let filter = broker.filter(Filter::baseline());
        let sandbox = builder.seccomp(filter).build().unwrap_or_else(|error| panic!("{error:#}"));
        let prelude = "import os, sys, socket, errno\n\
            def show(f, *a):\n  try: print(f(*a), flush=True)\n  \
            except OSError as e: print(errno.errorcode[e.errno], flush=True)\n\
            def read(*a): return os.read(os.open(*a), 99)\n";
        let mut command = sandbox.command("/usr/bin/python3");
        command.args(["-S", "-c", &format!("{prelude}{script}")]).env("PYTHONDONTWRITEBYTECODE", "1");
        command.supervise(broker).output().unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[track_caller]
    fn lines(outcome: &Outcome) -> Vec<String> {
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let err = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!(outcome.verdict(), Verdict::Exited(0), "{text}\n{err}\n{:?}", outcome.supervisor_faults);
        text.lines().map(str::to_owned).collect()
    }

    type Asked = Arc<Mutex<Vec<(PathBuf, OpenPurpose, bool)>>>;

    /// One file to be read, one directory, and one inside.
    fn data_and_below(data: &Path, below: &Path, seen: &Asked) -> Broker {
        let (data, below, list) = (data.to_owned(), below.to_owned(), Arc::clone(seen));
        opening(move |request| {
            list.lock().unwrap().push((request.path.clone(), request.purpose, request.writes()));
            if request.path == data && !request.writes() || request.path.starts_with(&below) {
                OpenDecision::Open
            } else if request.path.starts_with("/below") {
                OpenDecision::Inside
            } else {
                OpenDecision::Refuse(libc::EACCES)
            }
        })
    }

    #[test]
    fn allowed_files_are_opened_and_no_other() {
        let scratch = Scratch::new();
        let (data, other) = (scratch.file("data", "contents"), scratch.file("other", "secret"));
        let below = scratch.directory("below");
        fs::write(below.join("deep"), "from below").unwrap();
        let seen = Arc::default();
        let broker = data_and_below(&data, &below, &seen);
        let builder = sandbox().bind(&below, "/below", ringfence::Access::ReadOnly);
        let script = format!(
            "d, o, b = '{}', '{}', '{}'\n\
             show(read, d, os.O_RDONLY); show(read, o, os.O_RDONLY); show(os.open, d, os.O_WRONLY)\n\
             show(read, b + '/../data', os.O_RDONLY); show(read, b + '/../other', os.O_RDONLY)\n\
             f = os.open('/below', os.O_RDONLY | os.O_DIRECTORY)\n\
             show(lambda: os.read(os.open('deep', os.O_RDONLY, dir_fd=f), 99))\n\
             show(lambda: os.read(os.open('../other', os.O_RDONLY, dir_fd=f), 99))\n\
             show(lambda: os.stat(d).st_size); show(lambda: os.stat(o).st_size)\n\
             show(os.access, d, os.R_OK); show(os.access, o, os.R_OK);\n\
             show(lambda: open(b + '/new', 'w').write('made')); show(lambda: open(b + '/new').read())\n\
             show(os.open, b + '/new', os.O_CREAT | os.O_EXCL | os.O_WRONLY); show(os.open, b + '/absent', 0)\n\
             show(lambda: os.get_inheritable(os.open(d, os.O_RDONLY | os.O_CLOEXEC)))\n\
             for f in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY, os.O_PATH): show(os.open, b, f)\n\
             show(os.open, '/below/deep', os.O_WRONLY)\n\
             show(lambda: os.write(os.open('/dev/null', os.O_WRONLY), b'x'))\n\
             show(lambda: len(os.read(os.open('/dev/urandom', os.O_RDONLY), 4)))\n\
             show(os.open, '/dev/tty', os.O_RDONLY); show(os.open, '/dev/pts/ptmx', os.O_RDONLY)",
            data.display(),
            other.display(),
            below.display()
        );
        let wanted = [
            "b'contents'",
            "EACCES",
            "EACCES",
            "b'contents'",
            "EACCES",
            "b'from below'",
            "EACCES",
            "8",
            "EACCES",
            "True",
            "False",
            "4",
            "made",
            "EEXIST",
            "ENOENT",
            "False",
            "EACCES",
            "EACCES",
            "EACCES",
            "EROFS",
            "1",
            "4",
            "EACCES",
            "EACCES",
        ];
        assert_eq!(lines(&run(builder, broker, &script)), wanted);
        assert_eq!(fs::read_to_string(below.join("new")).unwrap(), "made");
        let seen = seen.lock().unwrap();
        assert!(seen.contains(&(data.clone(), OpenPurpose::Open, true)), "{seen:?}");
        assert!(seen.contains(&(data, OpenPurpose::Look, false)), "{seen:?}");
        assert!(seen.iter().all(|(path, ..)| path.is_absolute() && !path.to_string_lossy().contains("..")));
    }

    #[test]
    fn access_answers_for_what_it_was_asked() {
        let scratch = Scratch::new();
        let (data, below) = (scratch.file("data", "contents"), scratch.directory("below"));
        fs::write(below.join("deep"), "from below").unwrap();
        let broker = data_and_below(&data, &below, &Arc::default());
        let builder = sandbox().bind(&below, "/below", ringfence::Access::ReadOnly);
        let script = format!(
            "d, b = '{}', '{}'\nfor p in (d, b, b + '/deep', '/below/deep'):\n  \
             print([os.access(p, m) for m in (os.R_OK, os.W_OK, os.X_OK)])",
            data.display(),
            below.display()
        );
        // The callback lets the first one be read only; the last one lies on a read-only mount.
        let wanted =
            ["[True, False, False]", "[True, True, True]", "[True, True, False]", "[True, False, False]"];
        assert_eq!(lines(&run(builder, broker, &script)), wanted);
    }

    #[test]
    fn a_planted_symlink_leads_nowhere() {
        let scratch = Scratch::new();
        let secret = scratch.file("secret", "secret");
        let shared = scratch.directory("shared");
        fs::write(shared.join("inside"), "inside").unwrap();
        symlink("inside", shared.join("near")).unwrap();
        let (place, beneath) = (shared.clone(), Arc::new(OwnedFd::from(File::open(&shared).unwrap())));
        let broker = opening(move |request| match request.path.strip_prefix("/beneath") {
            Ok(path) => OpenDecision::Beneath { directory: Arc::clone(&beneath), path: path.into() },
            Err(_) if request.path.starts_with(&place) => OpenDecision::Open,
            Err(_) => OpenDecision::Refuse(libc::EACCES),
        });
        // The program may write to the directory, so it plants what it likes.
        let builder = sandbox().bind(&shared, "/shared", ringfence::Access::ReadWrite);
        let script = format!(
            "os.symlink('{}', '/shared/far'); os.symlink('..', '/shared/up'); os.symlink('/proc/self/fd/0', '/shared/magic')\n\
             s = '{}'\n\
             for n in ('inside', 'near', 'far', 'up/secret', 'magic'): show(read, s + '/' + n, os.O_RDONLY)\n\
             for n in ('inside', 'near', 'far', 'up/secret', 'magic'): show(read, '/beneath/' + n, os.O_RDONLY)",
            secret.display(),
            shared.display()
        );
        let seen = lines(&run(builder, broker, &script));
        assert_eq!(seen[..5], ["b'inside'", "ELOOP", "ELOOP", "ELOOP", "ELOOP"]);
        assert_eq!(seen[5..], ["b'inside'", "b'inside'", "EXDEV", "EXDEV", "EXDEV"]);
    }

    #[test]
    fn nothing_of_the_callers_own_proc_and_no_pipe_is_opened() {
        let scratch = Scratch::new();
        let fifo = scratch.at("fifo");
        mkfifo(&fifo, Mode::from_bits_truncate(0o666)).unwrap();
        let begin = Instant::now();
        let broker = opening(|request| {
            if request.path == Path::new("/given") {
                return OpenDecision::Fd(File::open("/dev/null").unwrap().into());
            }
            OpenDecision::OpenFollowingLinks
        });
        let script = format!(
            "for p in ('/proc/self/environ', '/proc/self/fd/0', '/proc/self/cmdline', '/dev/zero', '{0}'):\n  \
             show(os.open, p, os.O_RDONLY)\n\
             show(os.open, '{0}', os.O_WRONLY); show(os.open, '/tmp', os.O_TMPFILE | os.O_RDWR)\n\
             show(read, '/given', os.O_RDONLY)\n\
             import ctypes, struct; c = ctypes.CDLL(None, use_errno=True)\n\
             r = c.syscall(437, -100, b'/given', struct.pack('QQQ', 0, 0, 8), 24); print(r, errno.errorcode[ctypes.get_errno()])",
            fifo.display()
        );
        let seen = lines(&run(sandbox(), broker, &script));
        assert_eq!(seen[0], "EACCES");
        assert!(["ELOOP", "EACCES"].contains(&seen[1].as_str()), "{seen:?}");
        assert_eq!(seen[2..], ["EACCES", "EACCES", "EACCES", "EACCES", "ENOTSUP", "b''", "-1 ENOTSUP"]);
        assert!(begin.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_is_decided_on_is_opened_whatever_another_thread_writes() {
        let scratch = Scratch::new();
        let (good, bad) = (scratch.file("good", "g"), scratch.file("evil", "b"));
        let allowed = good.clone();
        let broker = opening(move |request| {
            if request.path == allowed { OpenDecision::Open } else { OpenDecision::Refuse(libc::EACCES) }
        });
        let script = format!(
            "import ctypes, threading, time\nlibc = ctypes.CDLL(None, use_errno=True)\n\
             good, bad = b'{}\\0', b'{}\\0'\nb = ctypes.create_string_buffer(good)\n\
             def flip():\n  while True: b.raw = bad + b'\\0'; b.raw = good + b'\\0'\n\
             threading.Thread(target=flip, daemon=True).start(); sys.setswitchinterval(1e-6)\n\
             seen, ones, end = set(), [0, 0], time.time() + 60\n\
             while min(ones) < 20 and time.time() < end:\n  fd = libc.open(b, 0)\n  ones[fd >= 0] += 1\n  \
             if fd >= 0: seen.add(os.read(fd, 9)); os.close(fd)\n\
             print(seen, min(ones) >= 20, flush=True); os._exit(0)",
            good.display(),
            bad.display()
        );
        assert_eq!(lines(&run(sandbox(), broker, &script)), ["{b'g'} True"]);
    }

    /// Answers every connection with a line.
    fn greeter(listener: TcpListener) {
        thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(b"hello").unwrap();
            }
        });
    }

    #[test]
    fn connections_are_made_in_the_callers_network() {
        let (open, closed) = (
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        );
        let (port, other) = (open.local_addr().unwrap().port(), closed.local_addr().unwrap().port());
        greeter(open);
        let scratch = Scratch::new();
        let path = scratch.at("socket");
        let (local, allowed) = (UnixListener::bind(&path).unwrap(), path.clone());
        mode(&path, 0o777);
        symlink(&path, scratch.at("link")).unwrap();
        let name = format!("ringfence-test-{}", process::id());
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let expected = name.clone().into_bytes();
        let broker = Broker::new().on_connect(move |request| {
            let fine = match &request.peer {
                PeerAddress::V4(peer) => peer.port() == port || peer.port() == 1,
                PeerAddress::V6(peer) => *peer.ip() == Ipv6Addr::LOCALHOST,
                PeerAddress::Unix(path) => path.starts_with(allowed.parent().unwrap()),
                PeerAddress::Abstract(name) => *name == expected,
                _ => false,
            };
            if fine { ConnectDecision::Connect } else { ConnectDecision::Refuse(libc::EACCES) }
        });
        let script = format!(
            "def tcp(port, f=socket.AF_INET, a='127.0.0.1'):\n  s = socket.socket(f)\n  n = s.fileno(); s.connect((a, port))\n  \
             return s.recv(9), s.fileno() == n, s.getblocking(), s.get_inheritable()\n\
             show(tcp, {port}); show(tcp, {other}); show(tcp, 1)\n\
             def unix(a):\n  s = socket.socket(socket.AF_UNIX); s.connect(a); return 'connected'\n\
             show(unix, '{0}'); show(unix, '{1}/link'); show(unix, '\\0{name}'); show(unix, '\\0other')\n\
             show(unix, '{1}/absent')\n\
             s = socket.socket(); s.setblocking(False); r = s.connect_ex(('127.0.0.1', {port}))\n\
             import select; select.select([s], [], [], 20)\n\
             print(r in (0, errno.EINPROGRESS), s.recv(9))\n\
             show(lambda: socket.socket(socket.AF_UNIX).connect_ex('\\0{name}'))\n\
             import ctypes; c = ctypes.CDLL(None, use_errno=True)\n\
             print(c.connect(0, b'\\2\\0' + b'\\0' * 14, 16), c.connect(99, b'\\2\\0' + b'\\0' * 14, 16))",
            path.display(),
            scratch.path().display()
        );
        // The program has a network of its own, where nobody listens.
        let seen = lines(&run(sandbox(), broker, &script));
        let hello = "(b'hello', True, True, False)";
        assert_eq!(seen[..3], [hello, "EACCES", "ECONNREFUSED"]);
        assert_eq!(seen[3..8], ["connected", "ELOOP", "connected", "EACCES", "ENOENT"]);
        assert_eq!(seen[8..], ["True b'hello'", "0", "-1 -1"]);
        drop((local, hidden, closed));
    }

    /// A peer at one port, of IPv4, is allowed; no other.
    fn only(allowed: u16) -> Broker {
        Broker::new().connect_limit(Duration::MAX).on_connect(move |request| {
            let fine = match &request.peer {
                PeerAddress::V4(peer) => peer.port() == allowed,
                PeerAddress::Abstract(_) => true,
                PeerAddress::V6(_) | PeerAddress::Unix(_) | _ => false,
            };
            if fine { ConnectDecision::Connect } else { ConnectDecision::Refuse(libc::EACCES) }
        })
    }

    #[test]
    fn a_datagram_socket_that_would_send_to_anybody_is_not_given() {
        let ends = [0; 2].map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [allowed, forbidden] = [0, 1].map(|end: usize| ends[end].local_addr().unwrap().port());
        let name = format!("ringfence-datagram-{}", process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let script = format!(
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nshow(s.connect, ('127.0.0.1', {allowed}))\n\
             try: s.sendto(b'escaped', ('127.0.0.1', {forbidden}))\nexcept OSError: pass\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nshow(s.connect, '\\0none')\n\
             show(s.sendto, b'escaped', '\\0{name}')"
        );
        assert_eq!(
            lines(&run(sandbox(), only(allowed), &script)),
            ["ENOTSUP", "ENOTSUP", "ECONNREFUSED"],
            "the abstract names of the program's own network have no such socket"
        );
        ends[1].set_nonblocking(true).unwrap();
        hidden.set_nonblocking(true).unwrap();
        assert!(ends[1].recv(&mut [0; 9]).is_err() && hidden.recv(&mut [0; 9]).is_err(), "it arrived");
    }

    #[test]
    fn a_socket_that_is_not_connected_is_not_given() {
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let resetting = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let forbidden = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let [nobody, resets, other] =
            [&closed, &resetting, &forbidden].map(|listener| listener.local_addr().unwrap().port());
        drop(closed);
        // A peer that takes the connection back, once it has been given to the program.
        thread::spawn(move || {
            for stream in resetting.incoming() {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                let stream = stream.unwrap();
                setsockopt(&stream, sockopt::Linger, &linger).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
        });
        for (peer, connects) in [(nobody, "ECONNREFUSED"), (resets, "0")] {
            // Neither a connect(2) that nobody is asked about (MSG_FASTOPEN) nor a listener.
            let script = format!(
                "import time\ns = socket.socket(); s.setblocking(False)\nr = s.connect_ex(('127.0.0.1', {peer}))\n\
                 print(errno.errorcode.get(r, 0)); time.sleep(0.3)\n\
                 def sneak():\n  try: return s.sendto(b'escaped', 0x20000000, ('127.0.0.1', {other}))\n  \
                 except OSError: return None\n\
                 [sneak() for _ in range(4)]\n\
                 def there():\n  s.listen(); return 'listens' if r == 0 else 'in its own network'\n\
                 show(there)"
            );
            let seen = lines(&run(sandbox(), only(peer), &script));
            let listens = if connects == "0" { "EINVAL" } else { "in its own network" };
            // The reset may come before the answer: then no socket was given.
            let early = seen == ["ECONNRESET", "in its own network"] && connects == "0";
            assert!(early || seen == [connects, listens], "{seen:?}");
            forbidden.set_nonblocking(true).unwrap();
            assert!(forbidden.accept().is_err(), "somebody else was reached");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_an_ipv4_address() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        greeter(listener);
        let script = format!(
            "def tcp(p):\n  s = socket.socket(socket.AF_INET6); s.connect(('::ffff:127.0.0.1', p)); \
             return s.recv(9), s.getpeername()[0]\nshow(tcp, {port}); show(tcp, 1)"
        );
        let seen = lines(&run(sandbox(), only(port), &script));
        assert_eq!(seen, ["(b'hello', '::ffff:127.0.0.1')", "EACCES"]);
    }

    #[test]
    fn a_connection_that_hangs_is_given_up() {
        // A listener whose queue is full, so that a connect waits.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let broker =
            Broker::new().connect_limit(Duration::from_millis(300)).on_connect(|_| ConnectDecision::Connect);
        let script = format!(
            "keep = []\nlast = None\nfor n in range(8):\n  s = socket.socket(); keep.append(s)\n  \
             try: s.connect(('127.0.0.1', {port}))\n  except OSError as e: last = e; break\nprint(errno.errorcode[last.errno])"
        );
        assert_eq!(lines(&run(sandbox(), broker, &script)), ["ETIMEDOUT"]);
        drop(listener);
    }

    #[test]
    fn an_exec_of_more_than_execve_takes_is_not_copied() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&asked);
        let broker = Broker::new().on_exec(move |request| {
            list.lock().unwrap().push(request.arguments.len());
            ExecDecision::Refuse(libc::EACCES)
        });
        let script = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n\
            def start(count, size):\n  b = ctypes.create_string_buffer(b'x' * size)\n  \
            v = (ctypes.c_void_p * (count + 1))(*([ctypes.addressof(b)] * count + [0]))\n  \
            c.execve(b'/bin/true', v, None); print(errno.errorcode[ctypes.get_errno()])\n\
            start(15, 131000); start(17, 131000); start(1, 131073); start(100000, 1); start(300000, 0)";
        let seen = lines(&run(sandbox(), broker, script));
        assert_eq!(seen, ["EACCES", "E2BIG", "E2BIG", "EACCES", "E2BIG"]);
        assert_eq!(*asked.lock().unwrap(), [15, 100_000]);
    }

    #[test]
    fn an_exec_starts_what_the_callback_made_and_tells_its_end() {
        let inner: Sandbox = sandbox().build().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let broker = Broker::new().on_exec(move |request| {
            list.lock().unwrap().push((
                request.path.clone(),
                request.arguments.clone(),
                request.directory.clone(),
            ));
            if request.path != Path::new("/bin/sh") {
                return ExecDecision::Refuse(libc::EACCES);
            }
            let mut command = inner.command("/bin/sh");
            command.args(&request.arguments[1..]);
            ExecDecision::Spawn(Box::new(command))
        });
        let script = "import ctypes, struct, time\nlibc = ctypes.CDLL(None, use_errno=True)\n\
            def start(path, *args):\n  \
            v = (ctypes.c_char_p * (len(args) + 1))(*args); return libc.execve(path, v, None)\n\
            os.chdir('/tmp')\n\
            fd = start(b'/bin/sh', b'sh', b'-c', b'echo from inside; exit 7')\n\
            print(os.waitstatus_to_exitcode(struct.unpack('i', os.read(fd, 9))[0]), os.read(fd, 9), flush=True)\n\
            print(start(b'/bin/cat', b'cat'), ctypes.get_errno() == errno.EACCES, flush=True)\n\
            fd = start(b'/bin/sh', b'sh', b'-c', b'exec sleep 1000'); os.close(fd)\n\
            fd = start(b'/bin/sh', b'sh', b'-c', b'kill -TERM $$'); print(os.waitstatus_to_exitcode(struct.unpack('i', os.read(fd, 9))[0]))";
        assert_eq!(lines(&run(sandbox(), broker, script)), ["from inside", "7 b''", "-1 True", "-15"]);
        let seen = seen.lock().unwrap();
        assert_eq!(
            (seen[0].0.as_path(), seen[0].1.len(), seen[0].2.as_path()),
            (Path::new("/bin/sh"), 3, Path::new("/tmp"))
        );
        // What was started ends with the descriptor, and then its thread here does.
        let left = || {
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            let mut name = String::new();
            tasks.filter_map(Result::ok).any(|task| {
                name.clear();
                let comm = File::open(task.path().join("comm"));
                comm.is_ok_and(|mut file| file.read_to_string(&mut name).is_ok())
                    && name == "ringfence-exec\n"
            })
        };
        let end = Instant::now() + Duration::from_secs(30);
        while left() {
            assert!(Instant::now() < end, "a program is still there");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
