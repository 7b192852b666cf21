//! What can be reached in a built object: instructions as objdump prints them, followed over every jump and call. It must not
//! decide what may be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// With its prefixes, `ret`, `call`, `jmp`, `syscall`.
    pub(crate) mnemonic: String,
    pub(crate) operands: String,
    next: Option<u64>,
}

/// The code of an object of x86_64.
#[derive(Debug, Default)]
pub(crate) struct Object {
    instructions: BTreeMap<u64, Instruction>,
    symbols: BTreeMap<String, u64>,
}

/// What a walk came across.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) instructions: BTreeSet<u64>,
    /// Calls and jumps whose target is not in the text.
    pub(crate) indirect: Vec<String>,
    /// Targets where there is no code.
    pub(crate) nowhere: Vec<String>,
}

impl Object {
    /// Reads it; `None` where there is no objdump.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let output = Command::new("objdump")
            .args(["-d", "-M", "intel", "--no-show-raw-insn", "-w"])
            .arg(path)
            .output();
        let output = match output {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            other => other.unwrap(),
        };
        assert!(output.status.success(), "objdump of {path:?}");
        Some(Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut object = Self::default();
        let mut last = None;
        for line in text.lines() {
            if let Some((address, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
                let address = number(address).unwrap();
                object.symbols.insert(name.to_owned(), address);
                continue;
            }
            let Some((address, code)) = line.split_once(":\t") else { continue };
            let Some(address) = number(address.trim()) else { continue };
            let code = code.split(" #").next().unwrap_or_default().trim();
            let (mnemonic, operands) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
            let instruction = Instruction {
                mnemonic: mnemonic.to_owned(),
                operands: operands.trim().to_owned(),
                next: None,
            };
            object.instructions.insert(address, instruction);
            if let Some(before) = last.replace(address).and_then(|last| object.instructions.get_mut(&last)) {
                before.next = Some(address);
            }
        }
        object
    }

    /// The address of a symbol.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }

    pub(crate) fn at(&self, address: u64) -> &Instruction {
        &self.instructions[&address]
    }

    /// The first instruction behind `from` with this mnemonic, and what comes next.
    pub(crate) fn behind(&self, from: u64, mnemonic: &str) -> Option<u64> {
        let mut list = self.instructions.range(from..);
        list.find(|(_, instruction)| instruction.mnemonic == mnemonic)?.1.next
    }

    /// Where the first conditional jump from here on leads.
    pub(crate) fn branch(&self, from: u64) -> Option<u64> {
        let mut list = self.instructions.range(from..);
        let (_, jump) =
            list.find(|(_, instruction)| ["je", "jz"].contains(&instruction.mnemonic.as_str()))?;
        jump.operands.split(' ').next().and_then(number)
    }

    /// The symbol that an address belongs to, for messages.
    pub(crate) fn name(&self, address: u64) -> String {
        let below = self.symbols.iter().filter(|(_, at)| **at <= address).max_by_key(|(_, at)| **at);
        below.map_or_else(|| format!("{address:#x}"), |(name, at)| format!("{name}+{:#x}", address - at))
    }

    /// Follows every way from `entry`, into what is called as well.
    pub(crate) fn walk(&self, entry: u64) -> Reached {
        let mut reached = Reached::default();
        let mut todo = vec![entry];
        while let Some(address) = todo.pop() {
            if !reached.instructions.insert(address) {
                continue;
            }
            let Some(instruction) = self.instructions.get(&address) else {
                reached.instructions.remove(&address);
                reached.nowhere.push(format!("{address:#x}"));
                continue;
            };
            let word = instruction.mnemonic.trim_start_matches("bnd ").trim_start_matches("notrack ");
            let branches = word.starts_with('j') || word == "call" || word.starts_with("loop");
            if branches {
                let target = instruction.operands.split(' ').next().and_then(number);
                match target {
                    Some(target) => todo.push(target),
                    None => reached.indirect.push(format!(
                        "{}: {word} {}",
                        self.name(address),
                        instruction.operands
                    )),
                }
            }
            let ends = matches!(word, "jmp" | "ret" | "ud2" | "hlt");
            if !ends {
                todo.extend(instruction.next);
            }
        }
        reached
    }
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
