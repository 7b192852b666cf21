//! The caller as the child's debugger: from an address and an errno to step, object, call, cause.

use super::brief::{Brief, Record};
use crate::error::{Cause, Error, ErrorKind, Object, Step};
use crate::host::{Host, KernelVersion, Refusal, RefusedStep, Within, diagnose};
use crate::machine::isa::INSN_SIZE;
use crate::plan::{Code, MapWriter, Op};
use crate::policy::Namespaces;
use nix::sys::signal::Signal;

/// A segment of one launch and where its rows begin for the child.
#[derive(Debug)]
pub(super) struct Region<'a> {
    pub(super) code: &'a Code,
    pub(super) rows_at: u64,
}

impl Region<'_> {
    fn find(&self, pc: u64) -> Option<(&Op, &Object)> {
        let bytes = usize::try_from(pc.checked_sub(self.rows_at)?).ok()?;
        let op = self.code.ops.get(bytes / INSN_SIZE).filter(|_| bytes % INSN_SIZE == 0)?;
        Some((op, self.code.objects.get(op.object)?))
    }
}

/// How a child ended that should have gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    Exited(i32),
    Signaled(i32),
    /// Someone else reaped it.
    Unknown,
    /// It did not end in time.
    TimedOut,
}

/// The error for a child that ended, or had to be ended, during the set-up.
pub(super) fn explain(
    regions: &[Region<'_>],
    brief: &Brief,
    death: Death,
    host: &Host,
    set: Namespaces,
) -> Error {
    let record = match (brief.progress(), brief.init_progress()) {
        (_, init) if init.gave_up => init,
        (main, _) => main,
    };
    let look = |pc| regions.iter().find_map(|region| region.find(pc));
    // The program's half notes its first rows in init's record, and that after init may have given up.
    let pc = match look(record.pc) {
        Some((op, _)) if record.gave_up && record.failed != 0 && op.name != "fail" => record.failed,
        _ => record.pc,
    };
    let Some((op, object)) = look(pc) else {
        let detail = format!("{} before its first instruction", death_text(death));
        return Error::new(ErrorKind::Setup, Step::Start, "image").detail(detail);
    };
    if let (false, Step::Start, "execveat", Death::Exited(status @ 129..=255)) =
        (record.gave_up, op.step, op.name, death)
    {
        // The image runs, and could not tell otherwise (`plan/compile.rs`, `start`).
        let error = Error::new(ErrorKind::Setup, Step::Start, "brief");
        return error.call("mmap", 256 - status);
    }
    if !record.gave_up {
        let error = Error::new(ErrorKind::Setup, op.step, object.clone());
        return error.detail(format!("the child {} in {}", death_text(death), op.name));
    }
    gave_up(&record, (op, object), host, set)
}

fn gave_up(record: &Record, (op, object): (&Op, &Object), host: &Host, set: Namespaces) -> Error {
    let kind = if op.step == Step::Exec { ErrorKind::Exec } else { ErrorKind::Setup };
    let error = Error::new(kind, op.step, object.clone());
    if op.name == "fail" {
        return error.detail(op.text.trim().trim_matches('"'));
    }
    let causes = causes(op.step, record.errno, host, set);
    let error = error.call(op.name, record.errno).causes_found(causes);
    match (op.step, op.name, record.errno) {
        (Step::Mount | Step::Proc | Step::Dev, "openat2" | "openat", libc::ENOENT) => {
            error.detail("the target does not exist there, and nothing is made in a tree of the host")
        }
        (Step::Landlock, "landlock_restrict_self", libc::E2BIG) => {
            error.detail("16 Landlock domains are around the caller already, the most that the kernel stacks")
        }
        (Step::Landlock, "landlock_add_rule", libc::EAFNOSUPPORT) => {
            error.detail("this kernel is built without TCP")
        }
        (Step::Exec, "execveat", libc::ENOENT) => error.detail(missing_beside(host)),
        _ => error,
    }
}

/// What does not exist where the program is an open file. TOMOYO wanted a path until "tomoyo: fallback to realpath if
/// symlink's pathname does not exist" of Linux 6.12, which the stable kernels of October 2024 have too.
fn missing_beside(host: &Host) -> String {
    let needed = "what the file needs is not inside: the loader that a dynamic program names; for a script, whose descriptor is \
        closed by then, its path";
    let tomoyo = host.security().modules.iter().flatten().any(|module| module == "tomoyo");
    if tomoyo && host.kernel() < KernelVersion::new(6, 12, 0) {
        return format!(
            "{needed}; or, as TOMOYO is active and this kernel is older than 6.12, /dev/fd: give it proc and /dev, or a path"
        );
    }
    needed.to_owned()
}

/// What looking at the host finds for a refusal at this step.
#[expect(clippy::wildcard_enum_match_arm, reason = "a step without causes of its own has none to look for")]
pub(super) fn causes(step: Step, errno: i32, host: &Host, set: Namespaces) -> Vec<Cause> {
    let step = match step {
        Step::Clone | Step::Time => RefusedStep::Clone { namespaces: u64::from(set.bits()) },
        Step::IdMap => RefusedStep::IdMap,
        Step::Propagation | Step::Root | Step::Mount | Step::Dev | Step::Pivot => RefusedStep::Mount,
        Step::Proc => RefusedStep::ProcMount,
        Step::Knob => RefusedStep::Knob,
        Step::Image | Step::Start => RefusedStep::MemfdExec,
        Step::Keyring => RefusedStep::Keyring,
        Step::Tether => RefusedStep::Pidfd,
        // Init's child: no namespace, one process more.
        Step::Init => RefusedStep::Clone { namespaces: 0 },
        Step::Bounding | Step::Capabilities => RefusedStep::Capabilities,
        Step::Ids => RefusedStep::Ids,
        Step::Limits => RefusedStep::Limits,
        _ => return Vec::new(),
    };
    causes_of(step, errno, host, set)
}

/// The same where a map that the child cannot write itself was refused.
pub(super) fn map_causes(writer: &MapWriter, errno: i32, host: &Host, set: Namespaces) -> Vec<Cause> {
    let step = match writer {
        MapWriter::Helper => RefusedStep::IdRange,
        MapWriter::Nobody | MapWriter::Child | MapWriter::Caller => RefusedStep::IdMap,
    };
    causes_of(step, errno, host, set)
}

fn causes_of(step: RefusedStep, errno: i32, host: &Host, set: Namespaces) -> Vec<Cause> {
    let user = set.contains(Namespaces::USER) && !matches!(step, RefusedStep::Clone { .. });
    let within = if user { Within::FreshUserNamespace } else { Within::CallersUserNamespace };
    diagnose(host, &Refusal { step, errno, within })
}

fn death_text(death: Death) -> String {
    match death {
        Death::Exited(code) => format!("exited with {code}"),
        Death::Signaled(signal) => {
            let name = Signal::try_from(signal).map_or("a signal", |signal| signal.as_str());
            format!("was killed by {name}")
        }
        Death::Unknown => "ended".to_owned(),
        Death::TimedOut => "did not come on in time and was killed".to_owned(),
    }
}

/// Steps whose refusal says that the namespaces cannot be used: on some hosts the clone succeeds and the first use of what
/// it gave is refused.
pub(super) fn shows_namespaces(step: Step) -> bool {
    matches!(
        step,
        Step::Clone
            | Step::IdMap
            | Step::Time
            | Step::Propagation
            | Step::Root
            | Step::Proc
            | Step::Dev
            | Step::Mount
            | Step::Ids
    )
}
