//! Times single calls in threads that differ in nothing but their filters, in turns on one CPU. It must not know what a
//! filter says.

use std::error::Error;
use std::ffi::CStr;
use std::hint::black_box;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use seccompiler::{BpfProgram, apply_filter, sock_filter};

use super::median;

const ROUNDS: usize = 301;
/// Calls in one turn: short beside a time slice.
const CALLS: u32 = 4_000;

/// A thread under a filter, that measures when it is asked to.
struct Worker {
    ask: Sender<Call>,
    answer: Receiver<f64>,
}

/// Something to time; how many calls it is.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    make: fn(&Room),
}

/// What the calls work on.
struct Room {
    zero: i32,
    null: i32,
    bytes: *mut u8,
    stat: *mut libc::stat,
    time: *mut libc::timespec,
}

/// One raw call; its answer does not matter.
macro_rules! raw {
    ($number:expr $(, $argument:expr)*) => {{
        // SAFETY: each call below is given memory and descriptors of its thread's own.
        black_box(unsafe { libc::syscall($number $(, $argument)*) })
    }};
}

const PATH: &CStr = c"/dev/null";
const PAGE: usize = 4096;
/// One for all: the kernel's bucket of a futex hangs on its address.
static WORD: AtomicU32 = AtomicU32::new(0);

const EACH: &[Call] = &[
    Call { name: "getppid", make: |_| _ = raw!(libc::SYS_getppid) },
    Call {
        name: "read, 1 byte of /dev/zero",
        make: |room| _ = raw!(libc::SYS_read, room.zero, room.bytes, 1),
    },
    Call {
        name: "write, 1 byte to /dev/null",
        make: |room| _ = raw!(libc::SYS_write, room.null, room.bytes, 1),
    },
    Call { name: "fstat", make: |room| _ = raw!(libc::SYS_fstat, room.zero, room.stat) },
    Call {
        name: "futex, wake nobody",
        make: |_| _ = raw!(libc::SYS_futex, WORD.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1),
    },
    Call {
        name: "clock_gettime, by the call",
        make: |room| _ = raw!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, room.time),
    },
    Call {
        name: "openat and close",
        make: |_| {
            let fd = raw!(libc::SYS_openat, libc::AT_FDCWD, PATH.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            raw!(libc::SYS_close, fd);
        },
    },
    Call {
        name: "mmap and munmap",
        make: |_| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let page = raw!(libc::SYS_mmap, 0, PAGE, libc::PROT_READ, flags, -1, 0);
            raw!(libc::SYS_munmap, page, PAGE);
        },
    },
    Call {
        name: "ioctl (a condition)",
        make: |room| _ = raw!(libc::SYS_ioctl, room.null, libc::TCGETS, room.bytes),
    },
    Call {
        name: "socket and close (a condition)",
        make: |_| {
            let fd = raw!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            raw!(libc::SYS_close, fd);
        },
    },
];

/// The least that a filter can be.
pub(super) fn floor() -> BpfProgram {
    vec![sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]
}

/// Nanoseconds for one.
fn time(call: Call, room: &Room) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        (call.make)(room);
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn worker(programs: Vec<BpfProgram>) -> Worker {
    let (ask, asked) = channel::<Call>();
    let (answered, answer) = channel();
    thread::spawn(move || {
        // SAFETY: a constant path, opened for reading and for writing.
        let zero = unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY) };
        // SAFETY: likewise.
        let null = unsafe { libc::open(PATH.as_ptr(), libc::O_WRONLY) };
        let (mut bytes, mut stat, mut time_at) =
            ([0_u8; 256], Vec::<libc::stat>::with_capacity(1), libc::timespec { tv_sec: 0, tv_nsec: 0 });
        let room =
            Room { zero, null, bytes: bytes.as_mut_ptr(), stat: stat.as_mut_ptr(), time: &raw mut time_at };
        let attached = programs.iter().all(|program| apply_filter(program).is_ok());
        for call in asked {
            let taken = if attached { time(call, &room) } else { f64::NAN };
            if answered.send(taken).is_err() {
                break;
            }
        }
    });
    Worker { ask, answer }
}

/// All threads of this process stay where it is now.
fn stay() {
    // SAFETY: it takes nothing.
    let cpu = unsafe { libc::sched_getcpu() };
    let mut words = [0_u64; 16];
    if let Some(word) = usize::try_from(cpu / 64).ok().and_then(|at| words.get_mut(at)) {
        *word = 1 << (cpu % 64);
    }
    // SAFETY: a set of CPUs, with its size in bytes.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&words), words.as_ptr().cast()) };
    if done != 0 {
        println!("not on one CPU: expect scatter");
    }
}

/// Rounds of one measurement in each thread, beginning with another one each time.
fn rounds(call: Call, workers: &[Worker]) -> Result<Vec<Vec<f64>>, Box<dyn Error>> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut row = vec![0.0; workers.len()];
        for turn in 0..workers.len() {
            let at = (round + turn) % workers.len();
            let (Some(worker), Some(cell)) = (workers.get(at), row.get_mut(at)) else { continue };
            worker.ask.send(call)?;
            *cell = worker.answer.recv()?;
        }
        rounds.push(row);
    }
    Ok(rounds)
}

/// The median of the quotients of two columns, round by round.
fn ratio(rounds: &[Vec<f64>], above: usize, below: usize) -> f64 {
    let pair = |row: &Vec<f64>| Some(row.get(above)? / row.get(below)?);
    median(rounds.iter().filter_map(pair).collect())
}

fn column(rounds: &[Vec<f64>], at: usize) -> f64 {
    median(rounds.iter().filter_map(|row| row.get(at).copied()).collect())
}

/// Each call without a filter (twice: the second is the control), under the floor, under the filter.
pub(super) fn each_call(filter: &BpfProgram) -> Result<(), Box<dyn Error>> {
    stay();
    let sets = [vec![], vec![], vec![floor()], vec![filter.clone()]];
    let workers: Vec<Worker> = sets.into_iter().map(worker).collect();
    println!("{ROUNDS} rounds, medians; baseline of {} instructions", filter.len());
    println!(
        "{:32} {:>8} {:>8} {:>12} {:>15} {:>15}",
        "call", "none, ns", "control", "floor/none", "baseline/none", "baseline/floor"
    );
    for call in EACH {
        let rounds = rounds(*call, &workers)?;
        let none = column(&rounds, 0);
        let [control, least, ours, over] =
            [(1, 0), (2, 0), (3, 0), (3, 2)].map(|(a, b)| ratio(&rounds, a, b));
        println!("{:32} {none:8.1} {control:8.3} {least:12.3} {ours:15.3} {over:15.3}", call.name);
    }
    Ok(())
}

/// One call under filters of very different length and depth.
pub(super) fn getppid(sets: &[(&str, Vec<BpfProgram>)]) -> Result<(), Box<dyn Error>> {
    let Some(call) = EACH.first() else { return Ok(()) };
    let workers: Vec<Worker> = sets.iter().map(|(_, programs)| worker(programs.clone())).collect();
    let rounds = rounds(*call, &workers)?;
    println!("{} under", call.name);
    for (at, (name, programs)) in sets.iter().enumerate() {
        let length: usize = programs.iter().map(Vec::len).sum();
        let (taken, least) = (column(&rounds, at), ratio(&rounds, at, 1));
        println!("{name:45} {length:6} instructions {taken:8.1} ns, {least:.3} of one instruction's");
    }
    Ok(())
}
