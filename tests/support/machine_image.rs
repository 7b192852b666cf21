//! Images to try the machine's text in, a static ELF around the text, a table and its memory, and the running
//! of them. It must not know what a table is for.

#[path = "machine_cases.rs"]
pub(crate) mod cases;
#[path = "machine_oracle.rs"]
pub(crate) mod oracle;
#[path = "machine_random.rs"]
pub(crate) mod random;

use std::env;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::thread;
use std::time::Duration;

use ringfence::internals::{INSN_SIZE, Insn, Kind, Opcode};

/// Everything lies above 4 GiB, so that an address cut to 32 bits shows.
const IMAGE: u64 = 0x2_0000_0000;
const ENTRY_AT: usize = 0x200;
/// A signal handler, and 16 bytes on what it returns to where the kernel has nothing for that itself.
const HANDLER_AT: usize = 0x180;
const FILE_DATA_AT: usize = 0x1_0000;

/// The writable part: the early progress record, more records, cells for random tables, literals, the table.
const DATA: u64 = 0x2_0010_0000;
const EARLY: u64 = DATA;
const RECORDS: u64 = DATA + 0x40;
const RECORD_SIZE: u64 = 0x20;
const CELLS: u64 = DATA + 0x100;
const LITERALS_AT: usize = 0x300;
const TABLE: u64 = DATA + 0x2_0000;
/// A place for mappings.
const PAGE: u64 = DATA + 0x100_0000;
const PAGE_SIZE: u64 = 0x1_0000;

/// `/proc/self/mem` is opened here: its `lseek` gives any result that one asks for.
const MEM_FD: u64 = 100;
const RETRY: u8 = 1;
const GAVE_UP: i32 = 125;

/// The numbers of the kernel calls that the tables make.
struct Calls {
    clone: u32,
    close: u32,
    dup: u32,
    dup3: u32,
    exit_group: u32,
    lseek: u32,
    mmap: u32,
    nanosleep: u32,
    openat: u32,
    rt_sigaction: u32,
    sched_yield: u32,
    setitimer: u32,
    umask: u32,
    wait4: u32,
    write: u32,
}

const GENERIC: Calls = Calls {
    clone: 220,
    close: 57,
    dup: 23,
    dup3: 24,
    exit_group: 94,
    lseek: 62,
    mmap: 222,
    nanosleep: 101,
    openat: 56,
    rt_sigaction: 134,
    sched_yield: 124,
    setitimer: 103,
    umask: 166,
    wait4: 260,
    write: 64,
};

const OF_X86_64: Calls = Calls {
    clone: 56,
    close: 3,
    dup: 32,
    dup3: 292,
    exit_group: 231,
    lseek: 8,
    mmap: 9,
    nanosleep: 35,
    openat: 257,
    rt_sigaction: 13,
    sched_yield: 24,
    setitimer: 38,
    umask: 95,
    wait4: 61,
    write: 1,
};

/// What the images of one architecture differ in.
pub(crate) struct Arch {
    pub(crate) name: &'static str,
    elf_machine: u16,
    calls: Calls,
    /// The handler, then whatever else the kernel needs to come back from a signal.
    handler: &'static [u8],
    sigaction_flags: u64,
}

const X86_64: Arch = Arch {
    name: "x86_64",
    elf_machine: 62,
    calls: OF_X86_64,
    // ret; and at 16: mov eax, rt_sigreturn; syscall
    handler: &[0xc3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb8, 15, 0, 0, 0, 0x0f, 0x05],
    sigaction_flags: 0x0400_0000,
};

const AARCH64: Arch = Arch {
    name: "aarch64",
    elf_machine: 183,
    calls: GENERIC,
    handler: &[0xc0, 0x03, 0x5f, 0xd6],
    sigaction_flags: 0,
};

const RISCV64: Arch = Arch {
    name: "riscv64",
    elf_machine: 243,
    calls: GENERIC,
    handler: &[0x67, 0x80, 0, 0],
    sigaction_flags: 0,
};

static ARCHES: [Arch; 3] = [X86_64, AARCH64, RISCV64];

/// The architecture by the name that `std::env::consts::ARCH` has for it.
pub(crate) fn arch(name: &str) -> &'static Arch {
    ARCHES.iter().find(|arch| arch.name == name).unwrap()
}

/// An argument of an instruction.
#[derive(Clone, Copy)]
enum Arg {
    Const(u64),
    Word(u64),
    Half(u64),
}

/// An instruction with these arguments, all else 0.
fn insn(opcode: Opcode, args: &[Arg]) -> Insn {
    let mut out = Insn {
        opcode: opcode as u8,
        flags: 0,
        kinds: 0,
        nr: 0,
        jump: 0,
        fine: [0; 4],
        result: 0,
        args: [0; 6],
    };
    for (index, arg) in args.iter().enumerate() {
        let (kind, value) = match *arg {
            Arg::Const(value) => (Kind::Const, value),
            Arg::Word(address) => (Kind::Word, address),
            Arg::Half(address) => (Kind::Half, address),
        };
        out.kinds |= u16::from(kind as u8) << (2 * index);
        out.args[index] = value;
    }
    out
}

/// The call `nr` with these constants.
fn call(nr: u32, args: &[u64]) -> Insn {
    let args: Vec<Arg> = args.iter().copied().map(Arg::Const).collect();
    Insn { nr, ..insn(Opcode::Call, &args) }
}

/// Stores the sum of two arguments.
fn set(result: u64, a: Arg, b: Arg) -> Insn {
    Insn { result, ..insn(Opcode::Set, &[a, b]) }
}

/// How far `rows` instructions are.
fn rows(rows: usize) -> i32 {
    i32::try_from(rows * INSN_SIZE).unwrap()
}

fn negative(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A table and the memory that it works on.
#[derive(Clone)]
pub(crate) struct Program {
    arch: &'static Arch,
    /// From `DATA` to the end of the literals.
    memory: Vec<u8>,
    table: Vec<Insn>,
}

impl Program {
    /// A table that an alarm ends after half a minute, should it not end by itself.
    fn new(arch: &'static Arch) -> Self {
        let mut out = Self { arch, memory: vec![0; LITERALS_AT], table: Vec::new() };
        let half_a_minute = out.words(&[0, 0, 30, 0]);
        out.push(call(arch.calls.setitimer, &[0, half_a_minute, 0]));
        out
    }

    /// The same with `MEM_FD` open, and with all memory that the model does not know cleared.
    fn prepared(arch: &'static Arch) -> Self {
        let mut out = Self::new(arch);
        let (path, fd) = (out.literal(b"/proc/self/mem\0"), out.words(&[0]));
        let at_fdcwd = negative(-100);
        out.push(Insn { result: fd, ..call(arch.calls.openat, &[at_fdcwd, path, 0, 0]) });
        let place = [Arg::Word(fd), Arg::Const(MEM_FD), Arg::Const(0)];
        out.push(Insn { nr: arch.calls.dup3, ..insn(Opcode::Call, &place) });
        for unknown in [fd, EARLY + 24, EARLY + 32, EARLY + 40] {
            out.push(set(unknown, Arg::Const(0), Arg::Const(0)));
        }
        out.push(call(arch.calls.umask, &[0o22]));
        out
    }

    /// Puts bytes into memory, on a multiple of 8.
    fn literal(&mut self, bytes: &[u8]) -> u64 {
        self.memory.resize(self.memory.len().next_multiple_of(8), 0);
        let address = DATA + self.memory.len() as u64;
        self.memory.extend_from_slice(bytes);
        address
    }

    fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.literal(&bytes)
    }

    fn push(&mut self, insn: Insn) {
        self.table.push(insn);
    }

    /// The address of row `index`.
    fn row(index: usize) -> u64 {
        TABLE + (index * INSN_SIZE) as u64
    }

    /// The address of the row that comes next.
    fn here(&self) -> u64 {
        Self::row(self.table.len())
    }

    /// Writes all memory to standard output and ends.
    fn finish(mut self, status: u64) -> Self {
        self.memory.resize(self.memory.len().next_multiple_of(8), 0);
        self.push(call(self.arch.calls.write, &[1, DATA, self.memory.len() as u64]));
        self.push(call(self.arch.calls.exit_group, &[status]));
        self
    }

    /// The memory as the image starts with it, table and all.
    fn segment(&self) -> Vec<u8> {
        let mut out = self.memory.clone();
        let table_at = usize::try_from(TABLE - DATA).unwrap();
        assert!(out.len() <= table_at, "the literals run into the table");
        out.resize(table_at, 0);
        self.table.iter().for_each(|insn| out.extend_from_slice(&insn.to_bytes()));
        out
    }

    /// The image as an executable file.
    fn elf(&self, text: &[u8]) -> Vec<u8> {
        let segment = self.segment();
        let (text_end, length) = (ENTRY_AT + text.len(), segment.len());
        assert!(text_end <= FILE_DATA_AT);
        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        out.extend([2, self.arch.elf_machine, 1, 0].map(u16::to_le_bytes).concat());
        out.extend([IMAGE + ENTRY_AT as u64, 64, 0].map(u64::to_le_bytes).concat());
        out.extend([0, 0, 64, 56, 3, 64, 0, 0].map(u16::to_le_bytes).concat());
        let segments = [
            (1, 5, 0, IMAGE, text_end as u64),
            (1, 6, FILE_DATA_AT as u64, DATA, length as u64),
            // PT_GNU_STACK: no executable stack.
            (0x6474_e551, 6, 0, 0, 0),
        ];
        for (kind, flags, offset, address, size) in segments {
            out.extend([kind, flags].map(u32::to_le_bytes).concat());
            out.extend([offset, address, address, size, size, 0x1_0000].map(u64::to_le_bytes).concat());
        }
        out.resize(HANDLER_AT, 0);
        out.extend(self.arch.handler);
        out.resize(ENTRY_AT - 16, 0);
        out.extend([TABLE, EARLY].map(u64::to_le_bytes).concat());
        out.extend(text);
        out.resize(FILE_DATA_AT, 0);
        out.extend(segment);
        out
    }
}

/// The machine's text, and what its images run under where that is not this kernel.
pub(crate) struct Bench {
    pub(crate) arch: &'static Arch,
    pub(crate) text: Vec<u8>,
    pub(crate) emulator: Option<&'static str>,
}

impl Bench {
    /// Runs the image of a table with one argument and one variable of environment.
    fn run(&self, name: &str, program: &Program) -> Output {
        let name = format!("machine-{}-{name}-{}", self.arch.name, process::id());
        // What is no integration test has no such directory.
        let place = option_env!("CARGO_TARGET_TMPDIR").map_or_else(env::temp_dir, PathBuf::from);
        let path = place.join(name);
        fs::write(&path, program.elf(&self.text)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let output = start(under(self.emulator, &path).arg("argument").env_clear().env("RF", "environment"));
        fs::remove_file(&path).unwrap();
        output
    }
}

/// The program at `path`, under an emulator if there is one.
pub(crate) fn under(emulator: Option<&str>, path: &Path) -> Command {
    let mut command = Command::new(emulator.map_or(path, Path::new));
    if emulator.is_some() {
        command.arg(path);
    }
    command
}

/// Another thread's child may hold the fresh file open for writing until it has called `execve`.
fn start(command: &mut Command) -> Output {
    loop {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other.unwrap(),
        }
    }
}
