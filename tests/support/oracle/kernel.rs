//! An imagined kernel that a plan is run against: descriptors, the mount tree below the new root, what is made in it. It
//! knows what the calls mean and nothing of the compiler that chose them.

#[path = "mounting.rs"]
mod mounting;

use std::collections::BTreeMap;

use ringfence::internals::{INSN_SIZE, Insn, Linked, World};

use super::tree::{Entry, Fs, MASKS, Place, Tree, What};

const AT_RECURSIVE: u64 = 0x8000;
/// Inode and device of everything.
pub(crate) const IDENTITY: (u64, u64) = (7, 9);

/// What a descriptor is.
#[derive(Clone, Debug)]
enum Node {
    /// Of the caller's, or something that nothing is mounted from.
    Plain,
    /// A place below the new root.
    Place(Place),
    /// The file system that masks are made of, or an entry of it.
    Masks,
    /// A path of the host.
    Host(String),
    /// A file system about to be made.
    Context(Fs),
    /// A detached tree.
    Detached { what: What, attributes: u64, recursive: bool },
    /// A file below the new root, open for writing.
    File(Vec<String>),
}

/// A call that was made, and with what result.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) nr: i64,
    pub(crate) args: [u64; 6],
    pub(crate) result: i64,
    /// What its first string, or what it wrote, said.
    pub(crate) text: String,
}

/// A call that this kernel refused by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) errno: i32,
    pub(crate) path: Vec<String>,
}

pub(crate) struct Kernel {
    memory: Vec<(u64, Vec<u8>)>,
    fds: BTreeMap<i32, Node>,
    pub(crate) tree: Tree,
    pub(crate) events: Vec<Event>,
    pub(crate) refused: Vec<Refused>,
    /// Calls that fail, by their number in the run.
    pub(crate) faults: BTreeMap<usize, i32>,
    pub(crate) hit: usize,
    /// What must never be: a call that is not known, a descriptor that is not open.
    pub(crate) wrong: Vec<String>,
    ids: (u32, u32),
    mode: u16,
}

/// Whether a call covers what is mounted below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    One,
    Whole,
}

impl Reach {
    fn of(flag: u64) -> Self {
        if flag == 0 { Self::One } else { Self::Whole }
    }
}

type Answer = Result<i64, i32>;

fn small(raw: u64) -> i32 {
    i32::try_from(raw.cast_signed()).unwrap_or(-1)
}

fn bits(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

impl Kernel {
    pub(crate) fn new(linked: &Linked, tree: Tree, mode: u16) -> Self {
        // Streams, socket, brief, the caller, and two scratch numbers.
        let mut fds: BTreeMap<i32, Node> = (0..8).map(|number| (number, Node::Plain)).collect();
        for source in &linked.sources {
            if let Some((fd, attributes, recursive)) = source.tree {
                let what = What::Passed(source.name.clone());
                fds.insert(fd, Node::Detached { what, attributes, recursive });
            }
        }
        Self {
            memory: linked.memory.clone(),
            fds,
            tree,
            events: Vec::new(),
            refused: Vec::new(),
            faults: BTreeMap::new(),
            hit: 0,
            wrong: Vec::new(),
            ids: linked.ids,
            mode,
        }
    }

    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.memory.iter().find_map(|(base, bytes)| {
            let at = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(at..at.checked_add(length)?)
        })
    }

    fn put(&mut self, address: u64, data: &[u8]) -> Option<()> {
        self.memory.iter_mut().find_map(|(base, bytes)| {
            let at = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get_mut(at..at.checked_add(data.len())?)?.copy_from_slice(data);
            Some(())
        })
    }

    pub(crate) fn word_at(&self, address: u64) -> u64 {
        let bytes = self.bytes(address, 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    pub(crate) fn text(&self, address: u64) -> String {
        if address == 0 {
            return String::new();
        }
        let bytes =
            (address..).map_while(|at| self.bytes(at, 1)).map(|one| one[0]).take_while(|one| *one != 0);
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }

    fn node(&self, raw: u64) -> Result<Node, i32> {
        self.fds.get(&small(raw)).cloned().ok_or(libc::EBADF)
    }

    fn open(&mut self, node: Node) -> Answer {
        let free = (0..).find(|number| !self.fds.contains_key(number)).unwrap_or(i32::MAX);
        self.fds.insert(free, node);
        Ok(i64::from(free))
    }

    /// The node that a path through `/proc/self/fd` leads to, or the path itself.
    fn by_path(&self, path: &str) -> Result<Node, i32> {
        match path.strip_prefix("/proc/self/fd/").and_then(|number| number.parse::<u64>().ok()) {
            Some(number) => self.node(number),
            None => Ok(Node::Host(path.to_owned())),
        }
    }

    fn refuse(&mut self, errno: i32, path: Vec<String>) -> i32 {
        self.refused.push(Refused { errno, path });
        errno
    }

    /// The text that a call is about, for the trace.
    fn about(&self, nr: i64, args: [u64; 6]) -> String {
        match nr {
            libc::SYS_write | libc::SYS_sendto => {
                let length = usize::try_from(args[2]).unwrap_or(0);
                let bytes = self.bytes(args[1], length).unwrap_or_default();
                let to = if let Ok(Node::Host(path)) = self.node(args[0]) { path } else { String::new() };
                format!("{to}={}", bytes.iter().copied().map(char::from).collect::<String>())
            }
            libc::SYS_sethostname | libc::SYS_setdomainname | libc::SYS_umount2 | libc::SYS_chdir => {
                self.text(args[0])
            }
            libc::SYS_mount => self.text(args[1]),
            _ => String::new(),
        }
    }

    fn answer(&mut self, nr: i64, args: [u64; 6]) -> Answer {
        match nr {
            libc::SYS_close => self.fds.remove(&small(args[0])).map(|_| 0).ok_or(libc::EBADF),
            libc::SYS_close_range => {
                self.fds.retain(|fd, _| {
                    let fd = u64::from(fd.cast_unsigned());
                    !(args[0]..=args[1]).contains(&fd)
                });
                Ok(0)
            }
            libc::SYS_dup3 => {
                let node = self.node(args[0])?;
                self.fds.insert(small(args[1]), node);
                Ok(i64::from(small(args[1])))
            }
            libc::SYS_fcntl => {
                let node = self.node(args[0])?;
                self.open(node)
            }
            libc::SYS_openat | libc::SYS_openat2 => self.open_at(nr, args),
            libc::SYS_mkdirat => self.make(args[0], args[1], Entry::Directory(args[2])),
            libc::SYS_mknodat => self.make(args[0], args[1], Entry::File),
            libc::SYS_symlinkat => {
                let to = self.text(args[0]);
                self.make(args[1], args[2], Entry::Link(to))
            }
            libc::SYS_fsopen | libc::SYS_fsconfig | libc::SYS_fsmount => self.file_system(nr, args),
            libc::SYS_open_tree => self.copy_tree(args),
            libc::SYS_mount_setattr => {
                let set = self.word_at(args[3]);
                self.restrict(small(args[0]), set, Reach::of(args[2] & AT_RECURSIVE))
            }
            libc::SYS_move_mount => self.move_mount(args),
            libc::SYS_mount => self.mount(args),
            libc::SYS_write => self.write(args),
            _ => self.plain(nr, args),
        }
    }

    fn open_at(&mut self, nr: i64, args: [u64; 6]) -> Answer {
        let path = self.text(args[1]);
        if small(args[0]) == libc::AT_FDCWD {
            let node = self.tree.at_host_path(&path).map_or(Node::Host(path), |at| match at {
                MASKS => Node::Masks,
                _ => Node::Place(Place::default()),
            });
            return self.open(node);
        }
        let node = match self.node(args[0])? {
            Node::Masks => Node::Masks,
            Node::Place(place) => {
                let creates = nr == libc::SYS_openat && args[2] & bits(libc::O_CREAT) != 0;
                let full = place.join(&path);
                if creates {
                    self.tree.make(&full, Entry::File, self.events.len()).or_else(|errno| {
                        if errno == libc::EEXIST { Ok(()) } else { Err(self.refuse(errno, full.clone())) }
                    })?;
                    Node::File(full)
                } else {
                    self.tree.look(&full).map_err(|errno| self.refuse(errno, full.clone()))?;
                    Node::Place(self.tree.place(full))
                }
            }
            other => return self.misused("openat", &other),
        };
        self.open(node)
    }

    fn misused(&mut self, call: &str, node: &Node) -> Answer {
        self.wrong.push(format!("{call} on {node:?}"));
        Err(libc::EINVAL)
    }

    fn make(&mut self, at: u64, name: u64, entry: Entry) -> Answer {
        let name = self.text(name);
        match self.node(at)? {
            Node::Masks => Ok(0),
            Node::Place(place) => {
                let full = place.join(&name);
                let made = self.tree.make(&full, entry, self.events.len());
                made.map(|()| 0).map_err(|errno| self.refuse(errno, full))
            }
            other => self.misused("making an entry", &other),
        }
    }

    fn write(&mut self, args: [u64; 6]) -> Answer {
        if let Node::File(path) = self.node(args[0])? {
            self.tree.written(&path, args[2], self.events.len());
        }
        Ok(i64::try_from(args[2]).unwrap_or(i64::MAX))
    }

    fn plain(&mut self, nr: i64, args: [u64; 6]) -> Answer {
        match nr {
            libc::SYS_mmap => Ok(args[0].cast_signed()),
            libc::SYS_getuid => Ok(i64::from(self.ids.0)),
            libc::SYS_getgid => Ok(i64::from(self.ids.1)),
            libc::SYS_sendto => Ok(args[2].cast_signed()),
            libc::SYS_statx => {
                self.node(args[0])?;
                let mode = self.mode.to_le_bytes();
                for (at, bytes) in
                    [(28, &mode[..]), (32, &IDENTITY.0.to_le_bytes()), (136, &IDENTITY.1.to_le_bytes())]
                {
                    self.put(args[4] + at, bytes).ok_or(libc::EFAULT)?;
                }
                Ok(0)
            }
            libc::SYS_readlinkat => {
                self.put(args[2], b"usr/x").ok_or(libc::EFAULT)?;
                Ok(5)
            }
            libc::SYS_recvfrom => {
                self.put(args[1], &Linked::go()).ok_or(libc::EFAULT)?;
                Ok(8)
            }
            // With a timeout it is only a look whether the caller lives.
            libc::SYS_ppoll => Ok(i64::from(args[2] == 0)),
            libc::SYS_socket | libc::SYS_signalfd4 | libc::SYS_landlock_create_ruleset => {
                self.open(Node::Plain)
            }
            libc::SYS_clone if args[0] != bits(libc::SIGCHLD) => {
                self.wrong.push(format!("clone with flags {:#x}", args[0]));
                Err(libc::EINVAL)
            }
            libc::SYS_umount2 if self.tree.pivoted.is_none() => {
                self.tree.masks = None;
                Ok(0)
            }
            libc::SYS_pivot_root => {
                self.tree.pivoted = Some(self.events.len());
                Ok(0)
            }
            libc::SYS_execve | libc::SYS_execveat => {
                self.wrong.push("an exec before the tail".to_owned());
                Err(libc::EINVAL)
            }
            libc::SYS_fchdir | libc::SYS_ioctl | libc::SYS_faccessat | libc::SYS_fchownat => {
                self.node(args[0]).map(|_| 0)
            }
            // It ends the run, as a required call that fails does.
            libc::SYS_exit_group => Err(libc::ENOSYS),
            // No signal is pending.
            libc::SYS_rt_sigtimedwait => Err(libc::EAGAIN),
            _ if HARMLESS.contains(&nr) => Ok(0),
            _ => {
                self.wrong.push(format!("call {nr}, which no set-up has a use for"));
                Err(libc::ENOSYS)
            }
        }
    }
}

/// Calls that just succeed.
const HARMLESS: [i64; 23] = [
    libc::SYS_umount2,
    libc::SYS_chdir,
    libc::SYS_umask,
    libc::SYS_prctl,
    libc::SYS_capset,
    libc::SYS_setsid,
    libc::SYS_keyctl,
    libc::SYS_setgroups,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_prlimit64,
    libc::SYS_setpriority,
    libc::SYS_personality,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_clone,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

impl World for Kernel {
    fn call(&mut self, _pc: u64, nr: u32, args: [u64; 6]) -> Option<i64> {
        let nr = i64::from(nr);
        let text = self.about(nr, args);
        // What a look at an entry of /proc is told to be absent is absent, and no failure.
        let is_answer = |errno: &i32| nr == libc::SYS_faccessat && *errno == libc::ENOENT;
        let fault = self.faults.get(&self.events.len()).copied().filter(|errno| !is_answer(errno));
        let answer = match fault {
            Some(errno) => {
                self.hit += 1;
                // close(2) lets go of the number whatever it says.
                if nr == libc::SYS_close {
                    self.fds.remove(&small(args[0]));
                }
                Err(errno)
            }
            None => self.answer(nr, args),
        };
        if answer == Err(libc::EBADF) && nr != libc::SYS_close && self.hit == 0 {
            self.wrong.push(format!("call {nr} on descriptor {}, which is not open", small(args[0])));
        }
        let result = answer.unwrap_or_else(|errno| -i64::from(errno));
        self.events.push(Event { nr, args, result, text });
        Some(result)
    }

    fn fetch(&mut self, pc: u64) -> Option<Insn> {
        Insn::from_bytes(self.bytes(pc, INSN_SIZE)?)
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(address, 8)?.try_into().ok()?))
    }

    fn half(&mut self, address: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(address, 4)?.try_into().ok()?))
    }

    fn store(&mut self, address: u64, value: u64) -> Option<()> {
        self.put(address, &value.to_le_bytes())
    }
}
