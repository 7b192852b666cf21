//! The machine's texts for other architectures against its model, by cross assemblers and under qemu; and all
//! texts' functions.

#[cfg(test)]
#[path = "support/machine_image.rs"]
mod machine_image;

#[cfg(test)]
mod tests {
    use std::env::{self, consts::ARCH};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{self, Command};

    use ringfence::internals::{INSN_SIZE, Insn, Kind, Opcode};

    use crate::machine_image::{Arch, Bench, arch, cases, random, under};

    const RANDOM_TABLES: usize = 500;
    const SYMBOLS: [&str; 5] = ["begin", "image", "run", "clone", "end"];
    const BTI_C: [u8; 4] = [0x5f, 0x24, 0x03, 0xd5];

    /// Calls `run` and `clone` with a value of its own in each register that a callee must keep. Ends with 0,
    /// or with the number of what went wrong.
    const DRIVER_AARCH64: &str = r"
    .globl _start
_start:
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 29
    mov     x\n, #\n
    .endr
    mov     x28, sp
    adr     x0, returns
    adr     x1, record
    bl      ringfence_0_1_machine_run
    cmp     x0, #77
    mov     x0, #1
    b.ne    exit
    bl      kept
    adr     x27, others
1:  mov     x0, x27
    bl      clone
    ldr     x1, [x27, #56]
    cmp     x0, x1
    mov     x0, #3
    b.ne    exit
    add     x27, x27, #64
    adr     x1, others_end
    cmp     x27, x1
    b.ne    1b
    mov     x27, #27
    bl      kept
    adr     x0, forking
    bl      clone
    cmp     x0, #0
    mov     x0, #4
    b.le    exit
    bl      kept
    mov     x0, #-1
    adr     x1, status
    mov     x2, #0
    mov     x3, #0
    mov     x8, #260
    svc     #0
    ldr     w1, status
    adr     x2, leaves
    ubfiz   w2, w2, #8, #8
    cmp     w1, w2
    mov     x0, #5
    b.ne    exit
    mov     x0, #0
exit:
    mov     x8, #nr_exit_group
    svc     #0
clone:
    adr     x1, leaves
    adr     x2, childs_record
    b       ringfence_0_1_machine_clone
kept:
    mov     x0, #2
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 29
    cmp     x\n, #\n
    b.ne    exit
    .endr
    mov     x1, sp
    cmp     x28, x1
    b.ne    exit
    ret
";
    const DRIVER_RISCV64: &str = r"
    .option norelax
    .globl _start
_start:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    li      s\n, 100 + \n
    .endr
    mv      s11, sp
    lla     a0, returns
    lla     a1, record
    call    ringfence_0_1_machine_run
    li      a1, 77
    li      t0, 1
    bne     a0, a1, exit
    call    kept
    lla     s10, others
1:  mv      a0, s10
    call    clone
    ld      a1, 56(s10)
    li      t0, 3
    bne     a0, a1, exit
    addi    s10, s10, 64
    lla     a1, others_end
    bne     s10, a1, 1b
    li      s10, 110
    call    kept
    lla     a0, forking
    call    clone
    li      t0, 4
    blez    a0, exit
    call    kept
    li      a0, -1
    lla     a1, status
    li      a2, 0
    li      a3, 0
    li      a7, 260
    ecall
    lla     a1, status
    lw      a1, 0(a1)
    lla     a2, leaves
    andi    a2, a2, 255
    slli    a2, a2, 8
    li      t0, 5
    bne     a1, a2, exit
    li      t0, 0
exit:
    mv      a0, t0
    li      a7, nr_exit_group
    ecall
clone:
    lla     a1, leaves
    lla     a2, childs_record
    tail    ringfence_0_1_machine_clone
kept:
    li      t0, 2
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    li      t1, 100 + \n
    bne     s\n, t1, exit
    .endr
    bne     s11, sp, exit
    ret
";
    const DRIVER_X86_64: &str = "
    .globl _start
_start:
    mov     ebx, 1
    mov     ebp, 2
    mov     r12d, 3
    mov     r13d, 4
    mov     r14, rsp
    mov     r15d, 6
    lea     rdi, [rip + returns]
    lea     rsi, [rip + record]
    call    ringfence_0_1_machine_run
    mov     edi, 1
    cmp     rax, 77
    jne     exit
    call    kept
    lea     rbx, [rip + others]
1:  mov     rdi, rbx
    call    clone
    mov     edi, 3
    cmp     rax, qword ptr [rbx + 56]
    jne     exit
    add     rbx, 64
    lea     rax, [rip + others_end]
    cmp     rbx, rax
    jne     1b
    mov     ebx, 1
    call    kept
    lea     rdi, [rip + forking]
    call    clone
    mov     edi, 4
    cmp     rax, 0
    jle     exit
    call    kept
    mov     rdi, -1
    lea     rsi, [rip + status]
    mov     edx, 0
    mov     r10d, 0
    mov     eax, 61
    syscall
    lea     rax, [rip + leaves]
    movzx   eax, al
    shl     eax, 8
    mov     edi, 5
    cmp     eax, dword ptr [rip + status]
    jne     exit
    mov     edi, 0
exit:
    mov     eax, nr_exit_group
    syscall
clone:
    lea     rsi, [rip + leaves]
    lea     rdx, [rip + childs_record]
    jmp     ringfence_0_1_machine_clone
kept:
    mov     edi, 2
    cmp     rbx, 1
    jne     exit
    cmp     rbp, 2
    jne     exit
    cmp     r12, 3
    jne     exit
    cmp     r13, 4
    jne     exit
    cmp     r15, 6
    jne     exit
    lea     rax, [rsp + 8]
    cmp     r14, rax
    jne     exit
    ret
";
    const NUMBERS_GENERIC: &str = "
    .set    nr_clone, 220
    .set    nr_epoll_pwait, 22
    .set    nr_exit_group, 94
    .set    nr_mmap, 222
    .set    nr_prctl, 167
    .set    nr_write, 64
";
    const NUMBERS_X86_64: &str = "
    .set    nr_clone, 56
    .set    nr_epoll_pwait, 281
    .set    nr_exit_group, 231
    .set    nr_mmap, 9
    .set    nr_prctl, 157
    .set    nr_write, 1
";
    /// Calls as `clone` takes them: a fork, then others with their results. By these they tell
    /// whether each argument came, and whole.
    const DRIVER_DATA: &str = "
    .data
    .balign 8
forking:
    .quad   nr_clone, 17, 0, 0, 0, 0, 0
others:
    .quad   nr_mmap, 0x300000000, 0x10000, 3, 0x32, -1, 0, 0x300000000
    .quad   nr_mmap, 0x300000000, 0, 3, 0x32, -1, 0, -22
    .quad   nr_mmap, 0x300000000, 0x10000, 3, 0x12, -1, 0, -9
    .quad   nr_mmap, 0x300000000, 0x10000, 3, 0x32, -1, 1, -22
    .quad   nr_prctl, 0x300000000, 0, 0, 0, 0, 0, -22
    .quad   nr_prctl, 38, 0x100000001, 0, 0, 0, 0, -22
    .quad   nr_prctl, 38, 1, 0x100000000, 0, 0, 0, -22
    .quad   nr_prctl, 38, 1, 0, 0x100000000, 0, 0, -22
    .quad   nr_prctl, 38, 1, 0, 0, 0x100000000, 0, -22
    .quad   nr_epoll_pwait, -1, record, 1, 0, record, 8, -9
    .quad   nr_write, 1, record, 3, 0, 0, 0, 3
    .quad   nr_epoll_pwait, -1, record, 1, 0, record, 0x100000008, -22
others_end:
record:
    .zero   64
childs_record:
    .zero   64
status:
    .zero   8
    .balign 256
";

    /// A cross assembler's folder of work.
    struct Tools {
        arch: &'static Arch,
        /// Not needed for this kernel's own architecture.
        emulator: Option<&'static str>,
        work: PathBuf,
    }

    /// What stands in for a test that cannot run where that is allowed.
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    fn skipped(reason: &str) {
        println!("SKIPPED machine_cross: {reason}");
    }

    /// The tools for this architecture. Without them the test fails, or is skipped where that is allowed.
    fn tools(name: &str, emulators: [&'static str; 2], what_for: &str) -> Option<Tools> {
        let arch = arch(name);
        let starts = |program: &&str| Command::new(program).arg("--version").output().is_ok();
        let names = ["as", "ld", "nm", "objcopy"].map(|tool| format!("{}-linux-gnu-{tool}", arch.name));
        let mut missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !starts(name)).collect();
        let emulator = emulators.into_iter().find(|name| starts(name));
        let native = arch.name == ARCH;
        if emulator.is_none() && !native {
            missing.push(emulators[0]);
        }
        if missing.is_empty() {
            let folder = format!("machine-{}-{what_for}-{}", arch.name, process::id());
            let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
            fs::create_dir_all(&work).unwrap();
            return Some(Tools { arch, emulator: if native { None } else { emulator }, work });
        }
        let reason = format!(
            "{}: not found: {} (Debian: apt-get install binutils-{}-linux-gnu qemu-user-static)",
            arch.name,
            missing.join(", "),
            arch.name.replace('_', "-")
        );
        assert!(env::var_os("RINGFENCE_ALLOW_SKIP").is_some(), "{reason}; or set RINGFENCE_ALLOW_SKIP");
        skipped(&reason);
        None
    }

    fn aarch64(what_for: &str) -> Option<Tools> {
        tools("aarch64", ["qemu-aarch64-static", "qemu-aarch64"], what_for)
    }

    fn riscv64(what_for: &str) -> Option<Tools> {
        tools("riscv64", ["qemu-riscv64-static", "qemu-riscv64"], what_for)
    }

    fn x86_64(what_for: &str) -> Option<Tools> {
        tools("x86_64", ["qemu-x86_64-static", "qemu-x86_64"], what_for)
    }

    impl Drop for Tools {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.work).ok();
        }
    }

    impl Tools {
        /// Runs one of the tools in the folder of work and gives what it wrote.
        fn tool(&self, tool: &str, args: &[&str]) -> String {
            let name = format!("{}-linux-gnu-{tool}", self.arch.name);
            let output = Command::new(&name).args(args).current_dir(&self.work).output().unwrap();
            assert!(output.status.success(), "{name} {args:?}: {output:?}");
            // What an assembler says about the text is of interest, even if it goes on.
            assert!(tool != "as" || output.stderr.is_empty(), "{name} {args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }

        fn assemble(&self, object: &str, source: &str) {
            let syntax: &[&str] =
                if self.arch.name == "x86_64" { &["-msyntax=intel", "-mnaked-reg"] } else { &[] };
            self.tool("as", &[syntax, &["-o", object, source]].concat());
        }

        fn assemble_machine(&self) {
            let source = format!("{}/src/machine/{}.s", env!("CARGO_MANIFEST_DIR"), self.arch.name);
            self.assemble("machine.o", &source);
        }

        /// The machine's text, which needs nothing from a linker but to be put somewhere.
        fn bench(&self) -> Bench {
            self.assemble_machine();
            self.tool("ld", &["-e", "ringfence_0_1_machine_image", "-o", "machine", "machine.o"]);
            self.tool("objcopy", &["-O", "binary", "-j", ".text", "machine", "machine.bin"]);
            let text = fs::read(self.work.join("machine.bin")).unwrap();
            let symbols = self.symbols();
            assert_eq!(symbols[0], symbols[1], "the image's entry is where the text begins");
            assert_eq!(symbols[4] - symbols[0], text.len() as u64, "the text ends where its section does");
            if self.arch.name == "aarch64" {
                for at in &symbols[1..4] {
                    let at = usize::try_from(at - symbols[0]).unwrap();
                    assert_eq!(text[at..at + 4], BTI_C, "a landing pad at {at:#x}");
                }
            }
            Bench { arch: self.arch, text, emulator: self.emulator }
        }

        /// Where each of the machine's symbols is; all must be there.
        fn symbols(&self) -> [u64; 5] {
            let lines = self.tool("nm", &["machine"]);
            SYMBOLS.map(|symbol| {
                let end = format!(" ringfence_0_1_machine_{symbol}");
                let line = lines.lines().find(|line| line.ends_with(&end)).expect(symbol);
                u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
            })
        }

        /// Calls `run` and `clone` as functions.
        fn drive(&self, driver: &str) {
            self.assemble_machine();
            let returns = Insn {
                opcode: Opcode::Return as u8,
                flags: 0,
                kinds: Kind::Const as u16,
                nr: 0,
                jump: 0,
                fine: [0; 4],
                result: 0,
                args: [0; 6],
            };
            // The child ends with the lowest byte of the address that its record has: that of this row.
            let leaves = Insn { opcode: Opcode::Call as u8, kinds: Kind::Word as u16, ..returns };
            let row = |label: &str, insn: Insn, argument: &str| {
                let bytes = insn.to_bytes().map(|byte| byte.to_string());
                let (head, tail) = (bytes[..4].join(", "), bytes[8..INSN_SIZE - 48].join(", "));
                format!(
                    "{label}:
                    .byte {head}
                    .long nr_exit_group
                    .byte {tail}
                    .quad {argument}, 0, 0, 0, 0, 0
                    "
                )
            };
            let numbers = if self.arch.name == "x86_64" { NUMBERS_X86_64 } else { NUMBERS_GENERIC };
            let rows = row("returns", returns, "77") + &row("leaves", leaves, "childs_record");
            fs::write(self.work.join("driver.s"), [numbers, driver, DRIVER_DATA, &rows].concat()).unwrap();
            self.assemble("driver.o", "driver.s");
            self.tool("ld", &["-o", "driver", "driver.o", "machine.o"]);
            let output = under(self.emulator, &self.work.join("driver")).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}: {output:?}", self.arch.name);
        }
    }

    #[test]
    fn small_tables_on_aarch64() {
        if let Some(tools) = aarch64("small") {
            cases::try_all(&tools.bench());
        }
    }

    #[test]
    fn small_tables_on_riscv64() {
        if let Some(tools) = riscv64("small") {
            cases::try_all(&tools.bench());
        }
    }

    #[test]
    fn random_tables_on_aarch64() {
        if let Some(tools) = aarch64("random") {
            random::compare(&tools.bench(), RANDOM_TABLES);
        }
    }

    #[test]
    fn random_tables_on_riscv64() {
        if let Some(tools) = riscv64("random") {
            random::compare(&tools.bench(), RANDOM_TABLES);
        }
    }

    #[test]
    fn functions_on_aarch64() {
        if let Some(tools) = aarch64("functions") {
            tools.drive(DRIVER_AARCH64);
        }
    }

    #[test]
    fn functions_on_x86_64() {
        if let Some(tools) = x86_64("functions") {
            tools.drive(DRIVER_X86_64);
        }
    }

    #[test]
    fn functions_on_riscv64() {
        if let Some(tools) = riscv64("functions") {
            tools.drive(DRIVER_RISCV64);
        }
    }
}
