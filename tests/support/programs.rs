//! Real programs as shell scripts that print what they did: compilers, run-time systems, tools. It must not know of a
//! sandbox; a script prints nothing that differs between two runs outside.

/// Whether a script needs more than local sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Unneeded,
    Loopback,
}

/// One program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// Programs without which there is nothing to see.
    pub(crate) needs: &'static [&'static str],
    pub(crate) network: Network,
    /// Name and contents of files in the directory where the script runs.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// For `bash -e`.
    pub(crate) script: &'static str,
}

pub(crate) const SHELL: Program = Program {
    needs: &["seq", "sort", "mkfifo", "diff"],
    network: Network::Unneeded,
    files: &[],
    script: r#"
sh -c 'seq 1 1000 | sort -rn | head -n 3 | tr 0 x'
set -m
sleep 100 & kill %1; wait %1 || echo "ended with $?"
sleep 100 & kill -STOP %%; kill -CONT %%; kill -KILL %%; wait %% || echo "ended with $?"
sleep 0.1 & fg %% >/dev/null; echo "in front: $?"
(exit 3) & wait $! || echo "exit $?"
set +m
trap 'echo a signal' USR1; kill -USR1 $$
mkfifo pipe; (echo through a fifo >pipe) & cat pipe; wait
diff <(seq 3) <(seq 3) && echo the same
ulimit -n 64; ulimit -n
umask 027; touch file; stat -c %a file; ln -s file link; readlink link; mv file other; rm other link
"#,
};

pub(crate) const GCC: Program = Program {
    needs: &["gcc", "ld", "ar"],
    network: Network::Unneeded,
    files: &[
        ("part.c", "int twice(int x) { return 2 * x; }\n"),
        (
            "main.c",
            r#"
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int twice(int);
static void *work(void *p) { *(int *)p = twice(*(int *)p); return p; }
int main(void) {
    int x[4] = {1, 2, 3, 4}, status, sum = 0;
    pthread_t t[4];
    for (int i = 0; i < 4; i++) if (pthread_create(&t[i], 0, work, &x[i])) return 1;
    for (int i = 0; i < 4; i++) { pthread_join(t[i], 0); sum += x[i]; }
    if (fork() == 0) _exit(7);
    wait(&status);
    printf("threads %d, child %d\n", sum, WEXITSTATUS(status));
    return 0;
}
"#,
        ),
    ],
    script: r#"
gcc -O2 -pipe -c part.c && ar rcs libpart.a part.o
gcc -O1 -g -flto -o dynamic main.c -L. -lpart -pthread && ./dynamic
gcc -static -o static main.c part.o -pthread && ./static
gcc -shared -fPIC -o libpart.so part.c && gcc -o linked main.c -Wl,-rpath,. ./libpart.so -pthread && ./linked
"#,
};

pub(crate) const MUSL: Program = Program {
    needs: &["musl-gcc"],
    network: Network::Unneeded,
    files: GCC.files,
    script: r#"
musl-gcc -O1 -static -o static main.c part.c && ./static
musl-gcc -O1 -o dynamic main.c part.c && ./dynamic
"#,
};

pub(crate) const RUSTC: Program = Program {
    needs: &["gcc"],
    network: Network::Unneeded,
    files: &[(
        "main.rs",
        r#"
use std::{fs, io::Read, os::unix::net::UnixStream, io::Write, process::Command, sync::mpsc, thread, time::Duration};
fn main() {
    let (send, receive) = mpsc::channel();
    let all: Vec<_> = (0..8u64).map(|i| { let send = send.clone(); thread::spawn(move || send.send(i * i).unwrap()) }).collect();
    all.into_iter().for_each(|one| one.join().unwrap());
    drop(send);
    println!("sum {}", receive.iter().sum::<u64>());
    thread::scope(|scope| { scope.spawn(|| thread::sleep(Duration::from_millis(5))); });
    println!("{}", thread::spawn(|| panic!("quiet")).join().is_err());
    let output = Command::new("echo").arg("a child").output().unwrap();
    print!("{}", String::from_utf8(output.stdout).unwrap());
    let (mut a, mut b) = UnixStream::pair().unwrap();
    a.write_all(b"local").unwrap();
    drop(a);
    let mut text = String::new();
    b.read_to_string(&mut text).unwrap();
    fs::write("file", &text).unwrap();
    println!("{} {}", fs::read_to_string("file").unwrap(), fs::metadata("file").unwrap().len());
}
"#,
    )],
    script: r#""$RUSTC" --edition 2021 -O -C codegen-units=4 -o main main.rs && ./main 2>/dev/null"#,
};

pub(crate) const GO: Program = Program {
    needs: &["go"],
    network: Network::Loopback,
    files: &[(
        "main.go",
        r#"
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func main() {
	var wait sync.WaitGroup
	var lock sync.Mutex
	sum := 0
	for i := 0; i < 1000; i++ {
		wait.Add(1)
		go func(i int) { defer wait.Done(); runtime.Gosched(); lock.Lock(); sum += i; lock.Unlock() }(i)
	}
	wait.Wait()
	fmt.Println("sum", sum)
	out, err := exec.Command("sh", "-c", "echo a child; exit 3").Output()
	fmt.Printf("%s%v\n", out, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { fmt.Println(err); os.Exit(1) }
	go func() {
		for { peer, err := listener.Accept(); if err != nil { return }; io.WriteString(peer, "over loopback\n"); peer.Close() }
	}()
	peer, err := net.Dial("tcp", listener.Addr().String())
	if err != nil { fmt.Println(err); os.Exit(1) }
	io.Copy(os.Stdout, peer)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
	select {
	case <-time.After(10 * time.Millisecond):
		fmt.Println("a timer")
	}
	runtime.GC()
}
"#,
    )],
    script: "go build -o main main.go && ./main",
};

pub(crate) const PYTHON: Program = Program {
    needs: &["/usr/bin/python3"],
    network: Network::Unneeded,
    files: &[(
        "main.py",
        r#"
import asyncio, ctypes, ctypes.util, mmap, multiprocessing, os, select, signal, sqlite3, subprocess, tempfile, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import shared_memory

def square(x):
    return x * x

async def run():
    process = await asyncio.create_subprocess_exec('echo', 'asynchronous', stdout=subprocess.PIPE)
    print((await process.communicate())[0], await asyncio.gather(*[asyncio.sleep(0.01, i) for i in range(3)]))
    reader, writer = await asyncio.open_unix_connection('socket')
    print(await reader.read())
    writer.close()

async def serve():
    async def answer(reader, writer):
        writer.write(b'over a local socket')
        writer.close()
    async with await asyncio.start_unix_server(answer, 'socket'):
        await run()

if __name__ == '__main__':
    for method in ['fork', 'spawn', 'forkserver']:
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(square, range(5)))
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=queue.put, args=('queued',))
    process.start(); print(queue.get()); process.join()
    with ProcessPoolExecutor(2) as pool: print(list(pool.map(square, range(3))))
    with ThreadPoolExecutor(4) as pool: print(list(pool.map(square, range(3))))
    memory = shared_memory.SharedMemory(create=True, size=64); memory.buf[0] = 5; print(memory.buf[0]); memory.close(); memory.unlink()
    done = threading.Event(); threading.Timer(0.01, done.set).start(); print(done.wait(10))
    print(subprocess.run(['sh', '-c', 'cat; exit 4'], input=b'input', capture_output=True).returncode)
    try: subprocess.run(['sleep', '100'], timeout=0.1)
    except subprocess.TimeoutExpired: print('timed out')
    asyncio.run(serve())
    libc = ctypes.CDLL(None, use_errno=True); print(libc.abs(-3), libc.getpid() == os.getpid())
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    numbers = (ctypes.c_int * 3)(3, 1, 2); libc.qsort(numbers, 3, 4, callback(lambda a, b: a[0] - b[0])); print(list(numbers))
    signal.signal(signal.SIGALRM, lambda *_: print('an alarm')); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
    with mmap.mmap(-1, 4096) as page: page[0] = 1; print(page[0])
    with tempfile.TemporaryFile() as file: file.write(b'x'); print(os.pread(file.fileno(), 1, 0), os.fstat(file.fileno()).st_size)
    with sqlite3.connect('data') as data: data.execute('create table t (x)'); data.execute('insert into t values (1)'); print(data.execute('select * from t').fetchall())
    poll = select.epoll(); r, w = os.pipe(); poll.register(r, select.EPOLLIN); os.write(w, b'x'); print(len(poll.poll(1)))
    print(sorted(os.listdir('.')), os.sched_getaffinity(0) == os.sched_getaffinity(os.getpid()))
"#,
    )],
    script: "/usr/bin/python3 main.py",
};

pub(crate) const NODE: Program = Program {
    needs: &["node"],
    network: Network::Unneeded,
    files: &[(
        "main.js",
        r#"
const fs = require('fs'), { Worker, isMainThread, parentPort } = require('worker_threads');
const { execSync, spawn, fork } = require('child_process'), net = require('net'), zlib = require('zlib'), crypto = require('crypto');
if (!isMainThread) { parentPort.postMessage(6 * 7); }
else if (process.argv[2] === 'child') { process.on('message', m => { process.send(m + 1); process.disconnect(); }); }
else (async () => {
  fs.writeFileSync('file', 'text'); fs.mkdirSync('a/b', { recursive: true });
  console.log(fs.readFileSync('file', 'utf8'), await fs.promises.readdir('a'), (await fs.promises.stat('file')).size);
  console.log(execSync('echo a child').toString());
  await new Promise(done => spawn('cat', { stdio: ['pipe', 'inherit', 'inherit'] }).on('close', done).stdin.end('piped\n'));
  await new Promise(done => { const child = fork(__filename, ['child']); child.on('message', m => { console.log('message', m); }); child.on('exit', done); child.send(1); });
  await new Promise(done => new Worker(__filename).on('message', m => console.log('worker', m)).on('exit', done));
  await new Promise(done => { const server = net.createServer(peer => peer.end('over a local socket')).listen('socket', () => {
    net.connect('socket').on('data', data => console.log(data.toString())).on('end', () => server.close(done)); }); });
  console.log(await new Promise(done => crypto.pbkdf2('a', 'b', 1000, 8, 'sha256', (_, key) => done(key.toString('hex')))));
  console.log(zlib.gunzipSync(zlib.gzipSync('compressed')).toString());
  await new Promise(done => { const watcher = fs.watch('a', () => { watcher.close(); console.log('watched'); done(); }); fs.writeFileSync('a/c', ''); });
  setTimeout(() => console.log('a timer'), 5);
})();
"#,
    )],
    script: "node main.js",
};

pub(crate) const JAVA: Program = Program {
    needs: &["java", "javac"],
    network: Network::Unneeded,
    files: &[(
        "Main.java",
        r#"
import java.nio.file.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Main {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        long sum = 0;
        for (Future<Integer> one : pool.invokeAll(IntStream.range(0, 50).mapToObj(i -> (Callable<Integer>) () -> i * i).collect(Collectors.toList())))
            sum += one.get();
        pool.shutdown();
        System.out.println("sum " + sum + " " + LongStream.range(0, 100000).parallel().sum());
        Process process = new ProcessBuilder("sh", "-c", "echo a child; exit 3").redirectErrorStream(true).start();
        System.out.print(new String(process.getInputStream().readAllBytes()));
        System.out.println(process.waitFor());
        Files.writeString(Path.of("file"), "text");
        System.out.println(Files.readString(Path.of("file")) + Files.size(Path.of("file")));
        Thread sleeper = new Thread(() -> { try { Thread.sleep(100000); } catch (InterruptedException e) { System.out.println("interrupted"); } });
        sleeper.start(); sleeper.interrupt(); sleeper.join();
        byte[][] some = new byte[64][]; for (int i = 0; i < 2000; i++) some[i % 64] = new byte[100000];
        System.gc();
        try { int[] none = null; System.out.println(none.length); } catch (NullPointerException e) { System.out.println("null"); }
    }
}
"#,
    )],
    script: "javac -J-Xmx256m Main.java && java -Xmx256m -cp . Main",
};

pub(crate) const TOOLS: Program = Program {
    needs: &["git", "tar", "make", "perl", "gzip"],
    network: Network::Unneeded,
    files: &[
        ("a.txt", "one\n"),
        ("Makefile", "all: b c\n\t@echo all of it\nb c: a.txt\n\t@cp a.txt $@; echo made $@\n.PHONY: all\n"),
    ],
    script: r#"
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git -c init.defaultBranch=main init -q repository
(cd repository && cp ../a.txt . && git add a.txt
 git -c user.name=n -c user.email=e commit -qm first && echo two >>a.txt && git diff --stat && git log --format='%H %s' && git gc -q && git fsck)
git clone -q repository copy && git -C copy rev-parse HEAD
make -j2 all | sort
tar -c --owner=0 --group=0 --numeric-owner --mtime=2020-01-01 --mode=644 a.txt | gzip -n >a.tar.gz && tar -tzf a.tar.gz && mkdir x && tar -xzf a.tar.gz -C x && cat x/a.txt
perl -MIO::Socket::UNIX -e 'use strict; my $pid = fork; exit 5 unless $pid; waitpid $pid, 0; print "child ", $? >> 8, "\n";
  print `echo backticks`; open my $f, "<", "a.txt" or die; print sort <$f>; local $SIG{ALRM} = sub { print "an alarm\n" }; alarm 1; sleep 2;'
"#,
};

/// All of them, by the name that is printed where one is absent.
pub(crate) const ALL: [(&str, Program); 9] = [
    ("sh", SHELL),
    ("gcc", GCC),
    ("musl", MUSL),
    ("rustc", RUSTC),
    ("go", GO),
    ("python", PYTHON),
    ("node", NODE),
    ("java", JAVA),
    ("tools", TOOLS),
];
