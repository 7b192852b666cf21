//! The built object: from the clone to the exec a child runs the machine's text and nothing else, so no allocation, no panic
//! and no lock can be reached. Looked at in the release build of an example and in this test's own executable.

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
#[path = "support/disassembly.rs"]
mod disassembly;

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use std::collections::BTreeSet;
    use std::env;
    use std::fs;
    use std::io::{Write, stderr};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use ringfence::internals::machine_text;

    use crate::disassembly::Object;

    /// Names an object of the release build; where it is not set, one is built.
    const OBJECT: &str = "RINGFENCE_RELEASE_OBJECT";
    const CLONE: &str = "ringfence_0_1_machine_clone";
    /// What a row's call may be made of: no call, no stack, no return to anybody.
    const WORDS: [&str; 28] = [
        "mov", "movzx", "movsxd", "movabs", "lea", "add", "sub", "and", "or", "xor", "neg", "shr", "shl",
        "cmp", "test", "sete", "syscall", "jmp", "je", "jne", "jz", "jnz", "ja", "jb", "jge", "jl", "nop",
        "xchg",
    ];
    /// How `Opcode::Return` ends: it is in no plan, as `src/plan/tests/explore.rs` shows.
    const RETURN: [&str; 2] = ["pop", "ret"];

    fn say(line: &str) {
        writeln!(stderr(), "{line}").unwrap();
    }

    fn read(test: &str, path: &Path) -> Option<Object> {
        let object = Object::read(path);
        if object.is_none() {
            say(&format!("SKIPPED {test}: no objdump (binutils)"));
        }
        object
    }

    /// Everything that the child of a clone can come to in an object, and what is wrong with that.
    fn faults(object: &Object, entry: u64, (begin, end): (u64, u64)) -> Vec<String> {
        let reached = object.walk(entry);
        let mut faults: Vec<String> =
            reached.indirect.iter().map(|what| format!("leads anywhere: {what}")).collect();
        faults.extend(reached.nowhere.iter().map(|what| format!("leads out of the code: {what}")));
        for address in &reached.instructions {
            let name = object.name(*address);
            if !(begin..end).contains(address) {
                faults.push(format!("outside of the machine: {name}"));
                continue;
            }
            let word = object.at(*address).mnemonic.as_str();
            let stack = object.at(*address).operands.contains("rsp");
            if stack || !WORDS.contains(&word) && !RETURN.contains(&word) {
                faults.push(format!("{name}: {word} {}", object.at(*address).operands));
            }
        }
        let returns = reached.instructions.iter().filter(|at| object.at(**at).mnemonic == "ret").count();
        if returns > 1 {
            faults.push(format!("{returns} ways to return"));
        }
        faults
    }

    fn look(test: &str, path: &Path) {
        let Some(object) = read(test, path) else { return };
        let symbol = |name: &str| object.symbol(&format!("ringfence_0_1_machine_{name}"));
        let clone =
            object.symbol(CLONE).unwrap_or_else(|| panic!("{path:?} has no {CLONE}: is it stripped?"));
        // The text begins with the image's entry, whose symbol may be the one that is printed.
        let begin = symbol("begin").or_else(|| symbol("image")).unwrap();
        let end = begin + machine_text().len() as u64;
        assert!((begin..end).contains(&clone), "the clone is a part of the machine");
        // Where a result of 0 leads, and the one that a plan in an image starts with.
        let child = object.behind(clone, "syscall").and_then(|result| object.branch(result)).unwrap();
        for entry in [child, begin, symbol("run").unwrap()] {
            let found = faults(&object, entry, (begin, end));
            let own = |fault: &&String| !entry_words(&object, entry, begin, fault);
            let found: Vec<&String> = found.iter().filter(own).collect();
            assert!(found.is_empty(), "{path:?}, from {}: {found:#?}", object.name(entry));
        }
        let reached = object.walk(child);
        assert!(reached.instructions.len() > 80, "only {} instructions", reached.instructions.len());
        let calls = reached.instructions.iter().filter(|at| object.at(**at).mnemonic == "syscall").count();
        assert_eq!(calls, 2, "a row's call, and exit_group");
    }

    /// The image's entry reads the new stack once, and `run` saves three registers: both before the first row.
    fn entry_words(object: &Object, entry: u64, begin: u64, fault: &str) -> bool {
        let reads = entry == begin && fault.contains("[rsp");
        let saves = fault.contains(": push r1") && object.at(entry).mnemonic == "push";
        reads || saves
    }

    fn release() -> PathBuf {
        if let Some(path) = env::var_os(OBJECT) {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let build = ["build", "--release", "--locked", "--offline", "--quiet", "--example", "run"];
        let built = Command::new(env!("CARGO")).current_dir(root).args(build).status().unwrap();
        assert!(built.success(), "the release build of the example");
        target.join("release/examples/run")
    }

    #[test]
    fn in_the_release_build_a_child_reaches_no_allocation_no_panic_and_no_lock() {
        look("in_the_release_build_a_child_reaches_no_allocation_no_panic_and_no_lock", &release());
    }

    #[test]
    fn in_a_test_build_a_child_reaches_no_allocation_no_panic_and_no_lock() {
        let own = env::current_exe().unwrap();
        look("in_a_test_build_a_child_reaches_no_allocation_no_panic_and_no_lock", &own);
    }

    const PLANTED: &str = "
        #![crate_type = \"cdylib\"]
        #[unsafe(no_mangle)] pub extern \"C\" fn allocates(n: usize) -> *const u8 {
            let list: Vec<u8> = Vec::with_capacity(n); let at = list.as_ptr(); std::mem::forget(list); at }
        #[unsafe(no_mangle)] pub extern \"C\" fn panics(n: usize) -> usize { [1_usize, 2, 3][n] }
        #[unsafe(no_mangle)] pub extern \"C\" fn locks() -> usize {
            static CELL: std::sync::Mutex<usize> = std::sync::Mutex::new(0);
            CELL.lock().map_or(0, |mut guard| { *guard += 1; *guard }) }
        #[unsafe(no_mangle)] pub extern \"C\" fn anywhere(f: extern \"C\" fn()) { f(); f(); }
        #[unsafe(no_mangle)] pub extern \"C\" fn nothing(n: usize) -> usize { n ^ 5 }
    ";

    /// A shared object of this source; `None`, and a word about it, where there is no compiler.
    fn compile(test: &str, name: &str, text: &str) -> Option<PathBuf> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (source, built) = (directory.join(format!("{name}.rs")), directory.join(format!("lib{name}.so")));
        fs::write(&source, text).unwrap();
        let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let options = ["--edition", "2024", "-O", "--crate-name", "planted", "-o"];
        match Command::new(compiler).args(options).arg(&built).arg(&source).status() {
            Ok(status) if status.success() => Some(built),
            other => {
                say(&format!("SKIPPED {test}: rustc: {other:?}"));
                None
            }
        }
    }

    #[test]
    fn a_planted_allocation_panic_lock_and_indirect_call_are_seen() {
        let test = "a_planted_allocation_panic_lock_and_indirect_call_are_seen";
        let Some(built) = compile(test, "planted", PLANTED) else { return };
        let Some(object) = read(test, &built) else { return };
        let found = |name: &str| {
            let entry = object.symbol(name).unwrap();
            let inside = (entry, entry + 0x40);
            faults(&object, entry, inside)
        };
        for name in ["allocates", "panics", "locks"] {
            // Directly, or through the table of a shared object.
            let led = |fault: &String| fault.contains("outside") || fault.contains("leads anywhere");
            assert!(found(name).iter().any(led), "{name}: {:?}", found(name));
        }
        assert!(
            found("anywhere").iter().any(|fault| fault.contains("leads anywhere")),
            "{:?}",
            found("anywhere")
        );
        let harmless: BTreeSet<String> = found("nothing").into_iter().collect();
        assert_eq!(harmless, BTreeSet::new());
    }

    /// The machine's own text with a line planted where a table ends.
    fn machine_with(line: &str) -> String {
        let text = include_str!("../src/machine/x86_64.s");
        assert_eq!(text.matches("\n.Lrf_fail:\n").count(), 1);
        let text = text.replace("\n.Lrf_fail:\n", &format!("\n.Lrf_fail:\n    {line}\n"));
        format!(
            "#![crate_type = \"cdylib\"]
            core::arch::global_asm!(r#\"{text}\"#, options(raw));
            unsafe extern \"C\" {{ static ringfence_0_1_machine_begin: u8; }}
            #[unsafe(no_mangle)] pub extern \"C\" fn keep() -> usize {{ &raw const ringfence_0_1_machine_begin as usize }}"
        )
    }

    #[test]
    fn a_call_planted_in_the_machine_is_seen() {
        let test = "a_call_planted_in_the_machine_is_seen";
        for (name, line) in
            [("none", "nop"), ("call", "call malloc@PLT"), ("jump", "jmp rax"), ("stack", "push rax")]
        {
            let Some(built) = compile(test, &format!("machine-{name}"), &machine_with(line)) else { return };
            let Some(object) = read(test, &built) else { return };
            let begin = object
                .symbol("ringfence_0_1_machine_begin")
                .or_else(|| object.symbol("ringfence_0_1_machine_image"))
                .unwrap();
            let end = begin + machine_text().len() as u64 + 8;
            let clone = object.symbol(CLONE).unwrap();
            let child = object.behind(clone, "syscall").and_then(|result| object.branch(result)).unwrap();
            let found = faults(&object, child, (begin, end));
            assert_eq!(found.is_empty(), name == "none", "{line}: {found:?}");
        }
    }
}
