//! A scripted world for the model: the memory of one launch, the descriptors, a trace, and one failure to order.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::mem;
use std::rc::Rc;

use crate::machine::isa::ERRNO_AT;
use crate::machine::isa::FAILED_AT;
use crate::machine::isa::INSN_SIZE;
use crate::machine::isa::Insn;
use crate::machine::isa::Opcode;
use crate::machine::model::World;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// One that the caller had or passed: its label.
    Given(u64),
    /// A detached copy of a tree, with what is below it or without.
    Copied { recursive: bool },
    /// Anything else.
    Other,
}

/// A descriptor; those that come of one another by dup have one serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fd {
    pub(super) what: What,
    pub(super) serial: u64,
    pub(super) cloexec: bool,
}

/// What becomes of mounts.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts {
    /// Serials of what is restricted: nothing that is bound from there needs more.
    pub(super) restricted: BTreeSet<u64>,
    /// How many binds were attached without a restriction, and how many mounts were restricted after they were attached.
    pub(super) loose: usize,
    pub(super) remounts: usize,
}

/// A kernel call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) pc: u64,
    pub(super) nr: i64,
    pub(super) args: [u64; 6],
    pub(super) result: i64,
}

/// Which side of init's fork the run follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Program,
    Init,
}

/// Why a call did not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Exec,
    Exit,
    Refused,
}

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) role: Role,
    /// Mode that statx says of everything.
    pub(super) mode: u16,
    /// uid and gid as the maps give them.
    pub(super) ids: (u32, u32),
    /// The caller's process is gone when init looks.
    pub(super) caller_dies: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Scripted {
    memory: Vec<(u64, Rc<Vec<u8>>)>,
    pub(super) fds: BTreeMap<i32, Fd>,
    pub(super) mounts: Mounts,
    /// The last serial given.
    pub(super) serial: u64,
    /// The trace: the first `shared` calls are those of another run, then come its own.
    before: Rc<Vec<Event>>,
    shared: usize,
    own: Vec<Event>,
    pub(super) script: Script,
    /// Fails the next call with this errno.
    pub(super) fail: Option<i32>,
    pub(super) over: Option<Over>,
    /// What must never be seen: unknown calls, descriptors that are not open.
    pub(super) faults: Vec<String>,
    /// Keeps a copy of the world before each call.
    pub(super) recording: bool,
    pub(super) snapshots: Vec<(u64, Scripted)>,
    /// Where the progress record is, and the last instruction fetched.
    pub(super) progress: u64,
    /// How often init was woken, and how often it asked for an ended child.
    pub(super) woken: usize,
    pub(super) waited: usize,
    /// Labels of the descriptors that messages are still to bring.
    pub(super) coming: Vec<u64>,
}

impl Scripted {
    pub(super) fn new(memory: Vec<(u64, Vec<u8>)>, fds: BTreeMap<i32, Fd>, script: Script) -> Self {
        Self {
            memory: memory.into_iter().map(|(base, bytes)| (base, Rc::new(bytes))).collect(),
            fds,
            mounts: Mounts::default(),
            serial: 0,
            before: Rc::default(),
            shared: 0,
            own: Vec::new(),
            script,
            fail: None,
            over: None,
            faults: Vec::new(),
            recording: false,
            snapshots: Vec::new(),
            progress: 0,
            woken: 0,
            waited: 0,
            coming: Vec::new(),
        }
    }

    fn find(&self, address: u64, length: usize) -> Option<(usize, usize)> {
        self.memory.iter().enumerate().find_map(|(index, (base, bytes))| {
            let at = usize::try_from(address.checked_sub(*base)?).ok()?;
            (at.checked_add(length)? <= bytes.len()).then_some((index, at))
        })
    }

    pub(super) fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let (index, at) = self.find(address, length)?;
        self.memory[index].1.get(at..at + length)
    }

    /// Puts bytes there; whether there is memory.
    pub(super) fn put(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some((index, at)) = self.find(address, bytes.len()) else { return false };
        Rc::make_mut(&mut self.memory[index].1)[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }

    pub(super) fn word_at(&self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(address, 8)?.try_into().ok()?))
    }

    /// The C string at an address.
    pub(super) fn text(&self, address: u64) -> String {
        let bytes = (address..).map_while(|at| self.bytes(at, 1)).map(|b| b[0]).take_while(|b| *b != 0);
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }

    fn record_failure(&mut self, pc: u64, errno: i32) {
        let at = |offset: usize| self.progress + offset as u64;
        let (failed, number) = (at(FAILED_AT), at(ERRNO_AT));
        self.put(failed, &pc.to_le_bytes());
        self.put(number, &errno.to_le_bytes());
    }

    pub(super) fn fault(&mut self, text: String) {
        self.faults.push(text);
    }
}

impl World for Scripted {
    fn call(&mut self, pc: u64, nr: u32, args: [u64; 6]) -> Option<i64> {
        if self.recording {
            let copy = self.snapshot();
            self.snapshots.push((pc, copy));
        }
        let nr = i64::from(nr);
        let answer = match self.fail.take() {
            Some(errno) => {
                super::kernel::even_if_failed(self, nr, args);
                Err(errno)
            }
            None => super::kernel::answer(self, nr, args),
        };
        let result = answer.unwrap_or_else(|errno| -i64::from(errno));
        self.own.push(Event { pc, nr, args, result });
        if let Err(errno) = answer {
            self.record_failure(pc, errno);
        }
        self.over.is_none().then_some(result)
    }

    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        let insn = Insn::from_bytes(self.bytes(pc, INSN_SIZE)?)?;
        if insn.opcode == Opcode::Progress as u8 {
            self.progress = insn.args[0];
        }
        Some(insn)
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        self.word_at(address)
    }

    fn half(&mut self, address: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(address, 4)?.try_into().ok()?))
    }

    fn store(&mut self, address: u64, value: u64) -> Option<()> {
        self.put(address, &value.to_le_bytes()).then_some(())
    }
}

impl Scripted {
    /// The world as it is, with its trace still to come: see [`Self::share`].
    fn snapshot(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            fds: self.fds.clone(),
            mounts: self.mounts.clone(),
            serial: self.serial,
            before: Rc::default(),
            shared: self.shared + self.own.len(),
            own: Vec::new(),
            script: self.script,
            fail: None,
            over: None,
            faults: self.faults.clone(),
            recording: false,
            snapshots: Vec::new(),
            progress: self.progress,
            woken: self.woken,
            waited: self.waited,
            coming: self.coming.clone(),
        }
    }

    /// At the end of a recorded run: its copies, each with the trace up to it.
    pub(super) fn share(&mut self) -> Vec<(u64, Self)> {
        let trace = Rc::new(self.events().copied().collect::<Vec<Event>>());
        let mut snapshots = mem::take(&mut self.snapshots);
        snapshots.iter_mut().for_each(|(_, copy)| copy.before = Rc::clone(&trace));
        snapshots
    }

    /// The trace.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.before[..self.shared.min(self.before.len())].iter().chain(&self.own)
    }

    /// The call with this number.
    pub(super) fn event(&self, index: usize) -> Option<&Event> {
        if index < self.shared { self.before.get(index) } else { self.own.get(index - self.shared) }
    }

    /// How many calls there were.
    pub(super) fn made(&self) -> usize {
        self.shared + self.own.len()
    }

    /// The last call of all.
    pub(super) fn last(&self) -> Option<&Event> {
        self.events().next_back()
    }
}
