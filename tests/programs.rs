//! Real programs under the default filter: each prints inside what it prints outside, and none is told of the filter.

#[cfg(test)]
#[path = "support/programs.rs"]
mod programs;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio as HostStdio};

    use ringfence::{Access, Builder, Filter, Outcome, Result, Sandbox, Stdio};

    use super::programs::{self, Network, Program};
    use super::support::{Scratch, build, mode, sandbox, skip, static_program};

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    const TOOLCHAIN: &str = "/toolchain";

    /// The directory of this test's own compiler, where it can be read.
    fn toolchain() -> Option<PathBuf> {
        let asked = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
        let sysroot = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
        let runs = Command::new(sysroot.join("bin/rustc")).arg("-V").output().ok()?;
        runs.status.success().then_some(sysroot)
    }

    /// The name of something that it needs and this machine lacks.
    fn absent(program: &Program) -> Option<&'static str> {
        let is_there = |name: &str| PATH.split(':').any(|at| fs::metadata(Path::new(at).join(name)).is_ok());
        program.needs.iter().copied().find(|name| !is_there(name))
    }

    fn variables(home: &Path, rustc: &Path) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("PATH", PATH.into()),
            ("HOME", home.into()),
            ("TMPDIR", home.join("tmp")),
            ("LC_ALL", "C".into()),
            ("RUSTC", rustc.into()),
        ]
    }

    /// A directory in `scratch` with the program's files.
    fn prepared(scratch: &Scratch, name: &str, program: &Program) -> PathBuf {
        let directory = scratch.directory(name);
        for (file, contents) in program.files {
            fs::write(directory.join(file), contents).expect("a file");
        }
        mode(&directory, 0o777);
        scratch.directory(&format!("{name}/tmp"));
        directory
    }

    fn outside(directory: &Path, script: &str, rustc: &Path) -> String {
        let mut command = Command::new("bash");
        command.args(["-ec", script]).env_clear().current_dir(directory).stdin(HostStdio::null());
        let output = command.envs(variables(directory, rustc)).output().expect("bash");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "outside: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn inside(sandbox: &Sandbox, script: &str) -> String {
        let mut command = sandbox.command("bash");
        let variables = variables(Path::new("/job"), &Path::new(TOOLCHAIN).join("bin/rustc"));
        command.args(["-ec", script]).envs(variables).current_dir("/job");
        let outcome = command.output().unwrap_or_else(|error| panic!("{error:#}"));
        let error = String::from_utf8_lossy(&outcome.stderr).into_owned();
        let out = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(outcome.success(), "inside: {}\n{out}{error}", outcome.verdict());
        out
    }

    /// What it prints outside it prints inside too: under the default filter as it is, and without a network where it needs
    /// none.
    fn every_way(name: &str) {
        let program = programs::ALL.iter().find(|(known, _)| *known == name).expect("a known name").1;
        if let Some(missing) = absent(&program) {
            skip!(format_args!("{name} under the default filter"), "no {missing}");
        }
        let toolchain = toolchain();
        if name == "rustc" && toolchain.is_none() {
            skip!("rustc under the default filter", "no toolchain that this user can read");
        }
        let scratch = Scratch::new();
        let rustc = toolchain.clone().unwrap_or_default().join("bin/rustc");
        let wanted = outside(&prepared(&scratch, "outside", &program), program.script, &rustc);
        assert!(wanted.lines().count() > 1, "it prints something: {wanted}");
        let narrower = (program.network == Network::Unneeded).then(Filter::no_network);
        for filter in [None].into_iter().chain(narrower.map(Some)) {
            let way = if filter.is_none() { "baseline" } else { "no_network" };
            let mut builder = sandbox().bind(prepared(&scratch, way, &program), "/job", Access::ReadWrite);
            if let (Some(toolchain), "rustc") = (&toolchain, name) {
                builder = builder.bind(toolchain, TOOLCHAIN, Access::ReadOnly);
            }
            let sandbox = build(filter.into_iter().fold(builder, Builder::seccomp));
            if way == "baseline" {
                assert_eq!(sandbox.policy().seccomp(), Some(&Filter::baseline()), "the default, unchanged");
            }
            assert_eq!(inside(&sandbox, program.script), wanted, "{name}, {way}");
        }
    }

    #[test]
    fn a_shell_with_pipes_jobs_and_signals() {
        every_way("sh");
    }

    #[test]
    fn gcc_and_the_linker_and_what_they_made() {
        every_way("gcc");
    }

    #[test]
    fn programs_made_with_musl() {
        every_way("musl");
    }

    #[test]
    fn rustc_and_a_program_with_threads() {
        every_way("rustc");
    }

    #[test]
    fn go_with_goroutines_children_and_a_listener() {
        every_way("go");
    }

    #[test]
    fn python_with_processes_threads_and_coroutines() {
        every_way("python");
    }

    #[test]
    fn node_with_files_children_and_workers() {
        every_way("node");
    }

    #[test]
    fn java_with_threads_and_children() {
        every_way("java");
    }

    #[test]
    fn git_make_tar_and_perl() {
        every_way("tools");
    }

    /// What a program without a network is left with: `errno socket(family)`, then local sockets at work.
    const LOCAL: &str = "
import array, os, socket, threading
for family in [socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK]:
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]:
        try: print(socket.socket(family, kind))
        except OSError as error: print(error.errno)
a, b = socket.socketpair(); a.sendall(b'pair'); print(b.recv(9))
path = os.environ['TMPDIR'] + '/socket'
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
def answer():
    peer, _ = server.accept()
    r, w = os.pipe(); os.write(w, b'passed')
    peer.sendmsg([b'by name'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r]))])
threading.Thread(target=answer).start()
peer = socket.socket(socket.AF_UNIX); peer.connect(path)
text, extra, _, _ = peer.recvmsg(9, 99); print(text, os.read(array.array('i', extra[0][2])[0], 9))
d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind('\\0abstract'); d.sendto(b'x', '\\0abstract'); print(d.recv(9))
";

    #[test]
    fn without_a_network_local_sockets_work_and_no_other() {
        let outcome = {
            let sandbox = build(sandbox().seccomp(Filter::no_network()));
            let mut command = sandbox.command("/usr/bin/python3");
            command
                .args(["-c", LOCAL])
                .env("TMPDIR", "/tmp")
                .output()
                .unwrap_or_else(|error| panic!("{error:#}"))
        };
        let refused = format!("{}\n", libc::EAFNOSUPPORT).repeat(15);
        let wanted = format!("{refused}b'pair'\nb'by name' b'passed'\nb'x'\n");
        let error = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), wanted, "{error}");
    }

    #[test]
    fn without_a_network_a_socket_that_was_passed_can_be_used() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let ours = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (theirs, _) = listener.accept().expect("its other end");
        let sandbox = build(sandbox().seccomp(Filter::no_network()));
        let script = "import socket; s = socket.socket(fileno=3); s.sendall(s.recv(9).upper()); s.close()";
        let mut command = sandbox.command("/usr/bin/python3");
        command.args(["-c", script]).fd(3, OwnedFd::from(theirs)).stderr(Stdio::inherit());
        let child = command.spawn().unwrap_or_else(|error| panic!("{error:#}"));
        (&ours).write_all(b"passed").expect("written");
        let mut answer = String::new();
        drop(command);
        (&ours).read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "PASSED");
        assert!(child.wait().expect("its end").success());
    }

    /// Reads descriptor 0 to its end, writes it in capitals to descriptor 1, and ends with 3.
    #[cfg(target_arch = "x86_64")]
    const CAPITALS: &str = r#"
static long call(long n, long a, long b, long c) { long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r; }
void _start(void) { char text[64]; long length;
    while ((length = call(0, 0, (long)text, sizeof text)) > 0) {
        for (long i = 0; i < length; i++) if (text[i] >= 'a' && text[i] <= 'z') text[i] -= 32;
        if (call(1, 1, (long)text, length) != length) call(231, 1, 0, 0);
    }
    call(231, 3, 0, 0); }
"#;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_static_program_reads_and_writes_under_strict() {
        let scratch = Scratch::new();
        fs::write(scratch.at("p.c"), CAPITALS).expect("a source");
        let mut gcc = Command::new("gcc");
        gcc.args(["-static", "-nostdlib", "-O1", "-fno-stack-protector", "-o"]);
        assert!(gcc.args([scratch.at("p"), scratch.at("p.c")]).status().expect("gcc").success());
        let sandbox = Sandbox::builder().bind(scratch.at("p"), "/p", Access::ReadOnly);
        let sandbox = build(sandbox.seccomp(Filter::strict()));
        let mut command = sandbox.command("/p");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
        let text = "a line\n".repeat(100);
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        let outcome = child.wait_with_output().expect("its end");
        assert_eq!(
            (outcome.code(), String::from_utf8_lossy(&outcome.stdout)),
            (Some(3), text.to_uppercase().into())
        );
    }

    #[test]
    fn a_static_program_runs_in_the_empty_root() {
        let scratch = Scratch::new();
        let source = "#include <stdio.h>\n#include <dirent.h>\nint main(void) { int n = 0; DIR *d = opendir(\"/\"); \
            while (d && readdir(d)) n++; printf(\"%d\\n\", n); return 7; }";
        let Some(program) = static_program(scratch.path(), source) else {
            skip!("a_static_program_runs_in_the_empty_root", "gcc -static does not work here");
        };
        let ran = |outcome: Result<Outcome>, entries: &str| {
            let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
            assert_eq!((outcome.code(), outcome.stdout.as_slice()), (Some(7), entries.as_bytes()));
        };
        let bound = build(Sandbox::builder().empty().bind(&program, "/program", Access::ReadOnly));
        ran(bound.command("/program").output(), "3\n");
        let open = File::open(&program).expect("open");
        match build(Sandbox::builder().empty()).command("program").program_fd(open).output() {
            Err(error) if error.to_string().contains("TOMOYO") => {
                skip!("a_static_program_runs_in_the_empty_root", "{error}")
            }
            // Nothing but "." and "..".
            by_descriptor => ran(by_descriptor, "2\n"),
        }
    }
}
