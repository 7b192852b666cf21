//! A bus with a manager on it that does what a test says: refuses, lies, says nothing, or makes a scope as systemd would.

use std::env::temp_dir;
use std::fs;
use std::io::{Error as IoError, ErrorKind as IoErrorKind, Read, Result as IoResult, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use ringfence::Host;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, to_bytes};
use zbus::{ObjectPath, OwnedVariant, Signature, Variant};

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nobody answers, from the first byte on.
    MuteBus,
    /// It takes nobody's uid.
    Unbelieving,
    /// It is in another pid namespace.
    OtherPids,
    /// What it says is no D-Bus.
    Garbled,
    /// The manager never answers.
    MuteManager,
    /// The connection ends with the call.
    Closes,
    /// It answers with this error.
    Refuses(&'static str),
    /// The job fails.
    JobFails,
    /// The job is done, and nothing was.
    Lies,
    /// It is too old for one of the properties.
    TooOld,
    /// It goes before it answers the first call, and is back for the second.
    Anew,
    /// It does what it should and its messages get lost.
    LosesMessages,
    /// It does what it should.
    Willing,
}

type Header<T> = (u8, u8, u8, u8, u32, u32, Vec<(u8, T)>);
/// Unit, mode, properties; the units that it would need are left unread.
type Start<'a> = (&'a str, &'a str, Vec<(&'a str, OwnedVariant)>);

const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A running bus.
pub(crate) struct Toy {
    directory: PathBuf,
}

impl Toy {
    pub(crate) fn start(manner: Manner) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = temp_dir().join(format!("toy-bus-{}-{number}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("bus")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                thread::spawn(move || Conversation { stream, manner, calls: 0 }.run());
            }
        });
        Self { directory }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.directory.join("bus").display())
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Below which it makes scopes: the group of version 2 that this process is in.
pub(crate) fn slice() -> Option<PathBuf> {
    let own = Host::probe().cgroups().unified.as_ref()?.groups.first()?.directory.clone();
    let probe = own.join(format!("toy-probe-{}", process::id()));
    fs::create_dir(&probe).ok()?;
    fs::remove_dir(&probe).unwrap();
    Some(own)
}

struct Conversation {
    stream: UnixStream,
    manner: Manner,
    /// Calls of `StartTransientUnit`.
    calls: usize,
}

impl Conversation {
    fn run(mut self) {
        if self.manner == Manner::MuteBus {
            // Until the other end gives up.
            let mut all = Vec::new();
            self.stream.read_to_end(&mut all).ok();
            return;
        }
        // A client that has gone is what most of these are for.
        self.talk().ok();
    }

    fn line(&mut self) -> IoResult<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn talk(&mut self) -> IoResult<()> {
        assert!(self.line()?.starts_with("\0AUTH EXTERNAL "));
        if self.manner == Manner::Unbelieving {
            self.stream.write_all(b"REJECTED EXTERNAL\r\n")?;
            return Ok(());
        }
        self.stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?;
        assert_eq!(self.line()?, "BEGIN\r\n");
        loop {
            let (member, serial, body) = self.message()?;
            match member.as_str() {
                "Hello" if self.manner == Manner::Garbled => self.stream.write_all(&[0xff; 64])?,
                "Hello" => {
                    // Something that nobody asked for comes first, as on a real bus.
                    self.send(SIGNAL, &[(3, Variant::from("NameAcquired"))], "s", &text(":1.7"))?;
                    self.send(RETURN, &[(5, Variant::from(serial))], "s", &text(":1.7"))?;
                }
                "GetConnectionUnixProcessID" => {
                    let other = u32::from(self.manner == Manner::OtherPids);
                    let pid = getsockopt(&self.stream, sockopt::PeerCredentials).unwrap().pid();
                    let body = (pid.cast_unsigned() + other).to_le_bytes();
                    self.send(RETURN, &[(5, Variant::from(serial))], "u", &body)?;
                }
                "StartTransientUnit" => self.start(serial, &body)?,
                other => panic!("a call of {other}"),
            }
        }
    }

    fn message(&mut self) -> IoResult<(String, u32, Vec<u8>)> {
        let mut fixed = [0; 16];
        self.stream.read_exact(&mut fixed)?;
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let head = (16 + word(12) as usize).next_multiple_of(8);
        let mut rest = vec![0; head - 16 + word(4) as usize];
        self.stream.read_exact(&mut rest)?;
        let bytes = [fixed.as_slice(), &rest].concat();
        let data = Data::new(bytes.as_slice(), Context::new(Endian::Little, 0));
        let (header, _): (Header<OwnedVariant>, usize) = data.deserialize().unwrap();
        let find = |number| header.6.iter().find(|(field, _)| *field == number).map(|(_, value)| value);
        let member = find(3).unwrap().downcast_ref::<&str>().unwrap().to_owned();
        // systemd compares the text: a list of types, not a structure of them.
        let expected = if member == "StartTransientUnit" { "\x10ssa(sv)a(sa(sv))\0" } else { "" };
        assert!(
            bytes[..head]
                .windows(expected.len().max(1))
                .any(|seen| expected.is_empty() || seen == expected.as_bytes())
        );
        Ok((member, word(8), bytes[head..].to_vec()))
    }

    fn send(&mut self, kind: u8, fields: &[(u8, Variant<'_>)], signature: &str, body: &[u8]) -> IoResult<()> {
        let mut all: Vec<(u8, Variant<'_>)> =
            fields.iter().map(|(number, value)| (*number, value.try_clone().unwrap())).collect();
        all.push((7, Variant::from(":1.1")));
        all.push((8, Variant::from(Signature::try_from(signature).unwrap())));
        let header: Header<Variant<'_>> = (b'l', kind, 0, 1, u32::try_from(body.len()).unwrap(), 1, all);
        let mut bytes = to_bytes(Context::new(Endian::Little, 0), &header).unwrap().bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(body);
        // In pieces: nobody promises whole messages.
        for piece in bytes.chunks(50) {
            self.stream.write_all(piece)?;
        }
        Ok(())
    }

    fn error(&mut self, serial: u32, name: &str, told: &str) -> IoResult<()> {
        self.send(ERROR, &[(4, Variant::from(name)), (5, Variant::from(serial))], "s", &text(told))
    }

    fn start(&mut self, serial: u32, body: &[u8]) -> IoResult<()> {
        self.calls += 1;
        let data = Data::new(body, Context::new(Endian::Little, 0));
        let ((unit, mode, properties), _): (Start<'_>, _) = data.deserialize().unwrap();
        assert_eq!(mode, "fail");
        let find = |name: &str| properties.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
        let Some(Variant::Array(pids)) = find("PIDs").map(|value| &**value) else { panic!("no pid") };
        let pid = pids.inner().first().unwrap().downcast_ref::<u32>().unwrap();
        assert!(find("Delegate").unwrap().downcast_ref::<bool>().unwrap());
        let says_oom = find("OOMPolicy").is_some();
        match self.manner {
            Manner::MuteManager => return Ok(()),
            Manner::Closes => return Err(IoError::from(IoErrorKind::ConnectionAborted)),
            Manner::Refuses(name) => return self.error(serial, name, "no"),
            Manner::TooOld if says_oom => {
                let name = "org.freedesktop.DBus.Error.PropertyReadOnly";
                return self.error(serial, name, "Cannot set property OOMPolicy, or unknown property.");
            }
            Manner::Anew if self.calls == 1 => {
                return self.error(serial, "org.freedesktop.DBus.Error.NoReply", "it has gone");
            }
            Manner::TooOld
            | Manner::Anew
            | Manner::JobFails
            | Manner::Lies
            | Manner::LosesMessages
            | Manner::Willing => {}
            Manner::MuteBus | Manner::Unbelieving | Manner::OtherPids | Manner::Garbled => {
                panic!("{:?} lets nobody call", self.manner)
            }
        }
        if !matches!(self.manner, Manner::JobFails | Manner::Lies) {
            make(unit, pid);
        }
        if self.manner == Manner::LosesMessages {
            return Ok(());
        }
        let path = ObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap();
        let context = Context::new(Endian::Little, 0);
        let body = to_bytes(context, &(&path,)).unwrap().bytes().to_vec();
        self.send(RETURN, &[(5, Variant::from(serial))], "o", &body)?;
        let result = if self.manner == Manner::JobFails { "failed" } else { "done" };
        let of = |unit: &str, result: &str| {
            to_bytes(context, &(7_u32, &path, unit, result)).unwrap().bytes().to_vec()
        };
        let member = [(3, Variant::from("JobRemoved"))];
        self.send(SIGNAL, &member, "uoss", &of("other.scope", "failed"))?;
        self.send(SIGNAL, &member, "uoss", &of(unit, result))
    }
}

fn text(text: &str) -> Vec<u8> {
    to_bytes(Context::new(Endian::Little, 0), &(text,)).unwrap().bytes().to_vec()
}

/// As systemd does: the group, the process in it, and later, when it is empty, no group.
fn make(unit: &str, pid: u32) {
    let scope = slice().unwrap().join(unit);
    fs::create_dir(&scope).unwrap();
    fs::write(scope.join("cgroup.procs"), pid.to_string()).unwrap();
    thread::spawn(move || {
        let populated =
            || fs::read_to_string(scope.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"));
        while populated() {
            thread::sleep(Duration::from_millis(5));
        }
        trim(&scope);
    });
}

fn trim(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.path().is_dir() {
            trim(&entry.path());
        }
    }
    fs::remove_dir(directory).ok();
}
