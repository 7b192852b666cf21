//! Messages of D-Bus (the D-Bus Specification, "Message Protocol"): calls as bytes, and bytes as what was heard. It must
//! survive whatever a bus sends, and knows no socket.

use zbus::wire::serialized::{Context, Data};
use zbus::wire::{Endian, to_bytes};
use zbus::{ObjectPath, OwnedVariant, Signature, Variant};

/// A message as it begins: byte order, type, flags, version, length of the body, serial number; then fields by number.
type Header<T> = (u8, u8, u8, u8, u32, u32, Vec<(u8, T)>);
/// Properties of a unit.
type Properties<'a> = Vec<(&'a str, Variant<'a>)>;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
/// Nobody is started for our sake.
const NO_AUTO_START: u8 = 2;
/// Bytes up to the length of the fields, and that.
const FIXED: usize = 16;
/// Nothing that is waited for here comes near it.
const LARGEST: usize = 1 << 20;

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// The bus itself.
    Bus,
    /// The manager (org.freedesktop.systemd1(5)).
    Manager,
}

impl Target {
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Bus => ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"],
            Self::Manager => {
                ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
            }
        }
    }
}

/// The values of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    Nothing,
    Name(&'a str),
    /// A new scope: its name, the process that it begins with, what it is for.
    Scope {
        unit: &'a str,
        pid: u32,
        about: &'a str,
        oom: OomPolicy,
    },
    /// A process for a group below a unit.
    Attach {
        unit: &'a str,
        group: &'a str,
        pid: u32,
    },
}

/// Whether the manager is told to leave what the kernel ends for want of memory to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OomPolicy {
    /// Before systemd 253 scopes have no such property, and the manager does nothing.
    Unsaid,
    Continue,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The answer to the call with this number.
    Return { serial: u32, sender: String, values: Answer },
    /// Its refusal.
    Error { serial: u32, name: String, text: String },
    /// A job of a manager is over (`JobRemoved`).
    JobRemoved { sender: String, unit: String, result: String },
    /// Something that nobody here asked for.
    Other,
}

/// The first value of an answer, where it is one that somebody here needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Number(u32),
    Text(String),
    Other,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn broken<E>(_: E) -> Malformed {
    Malformed
}

/// A call as bytes.
pub(super) fn call(
    target: Target,
    member: &str,
    serial: u32,
    values: Values<'_>,
) -> Result<Vec<u8>, Malformed> {
    let context = Context::new(Endian::Little, 0);
    let (signature, body) = encode(context, values)?;
    let [destination, path, interface] = target.names();
    let fields: Vec<(u8, Variant<'_>)> = vec![
        (1, Variant::from(ObjectPath::try_from(path).map_err(broken)?)),
        (2, Variant::from(interface)),
        (3, Variant::from(member)),
        (6, Variant::from(destination)),
    ];
    let length = u32::try_from(body.len()).map_err(broken)?;
    let header: Header<Variant<'_>> = (b'l', CALL, NO_AUTO_START, 1, length, serial, fields);
    let mut bytes = to_bytes(context, &header).map_err(broken)?.bytes().to_vec();
    if !signature.is_empty() {
        add_signature(&mut bytes, signature)?;
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The field with the types of the body: a list, which a value of the type "signature" cannot be, as that is one type.
fn add_signature(bytes: &mut Vec<u8>, signature: &str) -> Result<(), Malformed> {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&[8, 1, b'g', 0, u8::try_from(signature.len()).map_err(broken)?]);
    bytes.extend_from_slice(signature.as_bytes());
    bytes.push(0);
    let fields = u32::try_from(bytes.len() - FIXED).map_err(broken)?;
    bytes[FIXED - 4..FIXED].copy_from_slice(&fields.to_le_bytes());
    Ok(())
}

fn encode(context: Context, values: Values<'_>) -> Result<(&'static str, Vec<u8>), Malformed> {
    let (signature, data) = match values {
        Values::Nothing => return Ok(("", Vec::new())),
        Values::Name(name) => ("s", to_bytes(context, &(name,))),
        Values::Attach { unit, group, pid } => ("ssau", to_bytes(context, &(unit, group, vec![pid]))),
        Values::Scope { unit, pid, about, oom } => {
            let none: Vec<(&str, Properties<'_>)> = Vec::new();
            let body = (unit, "fail", properties(pid, about, oom), none);
            ("ssa(sv)a(sa(sv))", to_bytes(context, &body))
        }
    };
    Ok((signature, data.map_err(broken)?.bytes().to_vec()))
}

/// How long the manager waits for what it has asked to end (`systemctl stop`, shutdown): its own default is 90 s, and what
/// runs here may not listen.
const STOP_LIMIT: u64 = 10_000_000;

fn properties(pid: u32, about: &str, oom: OomPolicy) -> Properties<'_> {
    let mut list = vec![
        ("Description", Variant::from(about)),
        ("PIDs", Variant::from(vec![pid])),
        // What is below is the caller's (CGROUP_DELEGATION).
        ("Delegate", Variant::from(true)),
        // An end that the manager calls a failure leaves nothing to be reset either.
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("TimeoutStopUSec", Variant::from(STOP_LIMIT)),
        // DefaultTasksMax= would be a limit that nobody asked for.
        ("TasksMax", Variant::from(u64::MAX)),
    ];
    if oom == OomPolicy::Continue {
        list.push(("OOMPolicy", Variant::from("continue")));
    }
    list
}

/// The bytes of the message that these begin with; `None` while there are too few to tell.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    let word = |at: usize| {
        let mut four = [0; 4];
        four.copy_from_slice(&fixed[at..at + 4]);
        let value = if fixed[0] == b'B' { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
        usize::try_from(value).unwrap_or(usize::MAX)
    };
    let (body, fields) = (word(4), word(12));
    if !matches!(fixed[0], b'l' | b'B') || fixed[3] != 1 || body > LARGEST || fields > LARGEST {
        return Err(Malformed);
    }
    Ok(Some((FIXED + fields).next_multiple_of(8) + body))
}

/// One whole message.
pub(super) fn parse(bytes: &[u8]) -> Result<Heard, Malformed> {
    let endian = if bytes.first() == Some(&b'B') { Endian::Big } else { Endian::Little };
    let data = Data::new(bytes, Context::new(endian, 0));
    let (header, read): (Header<OwnedVariant>, usize) = data.deserialize().map_err(broken)?;
    let (_, kind, _, _, _, _, fields) = header;
    let find = |number| fields.iter().find(|(field, _)| *field == number).map(|(_, value)| value);
    let text = |number| find(number).and_then(|value| value.downcast_ref::<&str>().ok()).unwrap_or_default();
    let serial = find(5).and_then(|value| value.downcast_ref::<u32>().ok()).unwrap_or(0);
    let signature = find(8).and_then(|value| value.downcast_ref::<Signature>().ok());
    let signature = signature.map(|signature| signature.to_string_no_parens()).unwrap_or_default();
    let body = bytes.get(read.next_multiple_of(8)..).unwrap_or_default();
    let body = Data::new(body, Context::new(endian, 0));
    let first = || body.deserialize::<(&str,)>().map_or("", |((text,), _)| text).to_owned();
    let sender = text(7).to_owned();
    Ok(match kind {
        RETURN if signature == "u" => {
            let ((number,), _) = body.deserialize::<(u32,)>().map_err(broken)?;
            Heard::Return { serial, sender, values: Answer::Number(number) }
        }
        RETURN if signature == "s" => Heard::Return { serial, sender, values: Answer::Text(first()) },
        RETURN => Heard::Return { serial, sender, values: Answer::Other },
        ERROR => {
            let told = if signature.starts_with('s') { first() } else { String::new() };
            Heard::Error { serial, name: text(4).to_owned(), text: told }
        }
        SIGNAL if text(3) == "JobRemoved" && signature == "uoss" => {
            let ((_, _, unit, result), _) =
                body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>().map_err(broken)?;
            Heard::JobRemoved { sender, unit: unit.to_owned(), result: result.to_owned() }
        }
        _ => Heard::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_what_a_bus_expects() {
        let bytes = call(Target::Bus, "GetConnectionUnixProcessID", 3, Values::Name(":1.7")).expect("a call");
        assert_eq!(length(&bytes), Ok(Some(bytes.len())));
        assert!(bytes.starts_with(&[b'l', CALL, NO_AUTO_START, 1, 9, 0, 0, 0, 3, 0, 0, 0]));
        assert!(bytes.ends_with(b"\x04\0\0\0:1.7\0"));
        let scope = Values::Scope { unit: "a.scope", pid: 7, about: "b", oom: OomPolicy::Continue };
        for (values, signature) in
            [(scope, "ssa(sv)a(sa(sv))"), (Values::Attach { unit: "a.scope", group: "/b", pid: 7 }, "ssau")]
        {
            let bytes = call(Target::Manager, "M", 1, values).expect("a call");
            let field =
                [&[8, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(0)], signature.as_bytes(), &[0]];
            let field = field.concat();
            assert!(bytes.windows(field.len()).any(|window| window == field), "{signature}");
        }
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_read() {
        let whole = call(Target::Manager, "M", 1, Values::Attach { unit: "u", group: "/g", pid: 1 });
        let whole = whole.expect("a call");
        for end in 0..whole.len() {
            // A part is none, and says so: as too few bytes, or as no message.
            assert_ne!(length(&whole[..end]), Ok(Some(end)));
            parse(&whole[..end]).ok();
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                length(&bytes).ok();
                parse(&bytes).ok();
            }
        }
        assert_eq!(length(&[0xff; 64]), Err(Malformed));
        assert_eq!(length(&[b'l', 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed));
    }
}
