//! The Landlock domain: a ruleset, a rule for each path and port, and the step into it. It must not claim a rule that the
//! kernel did not take: each leaves word in the brief.

mod known;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use known::Known;

use super::asm::{Call, Cell, Label, cwd, num, sym};
use super::context::{Context, u64_of};
use crate::error::{Error, ErrorKind, Object, Result, Step};
use crate::host::Answer;
use crate::policy::{
    AccessFs, AccessNet, Capability, Namespaces, Need, NewPrivileges, Scopes, landlock_rules,
};

pub(crate) const RULE_PATH_BENEATH: u64 = 1;
pub(crate) const RULE_NET_PORT: u64 = 2;
/// Offsets in `struct statx`: `stx_mode`, `stx_ino`, and `stx_dev_major` with the minor behind it.
const MODE: u32 = 28;
const INODE: u32 = 32;
const DEVICE: u32 = 136;
/// Offset in a path's outcome of the inode and device of what the rule is for.
pub(crate) const RULE_FOR: u32 = 16;

/// What is handled on this host, and where the outcome stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LandlockPlan {
    pub(crate) known: Known,
    /// Offset in the brief: 1 once the domain holds; `None` where there is none.
    pub(crate) holds: Option<u32>,
    pub(crate) paths: Vec<PathPlan>,
    pub(crate) ports: Vec<PortPlan>,
}

/// One path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PathPlan {
    pub(crate) path: PathBuf,
    /// Rights of the rule that this kernel does not know: they are not confined.
    pub(crate) unknown: AccessFs,
    /// Offset in the brief: what `openat` said, the rights that the kernel took, and the inode and device of what was there.
    pub(crate) outcome: u32,
}

/// One port.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PortPlan {
    pub(crate) port: u16,
    /// Offset in the brief: the rights that the kernel took.
    pub(crate) outcome: u32,
}

/// The domain of the policy, if there is one. Returns, for a child that joins a living sandbox, where the caller says what
/// each path's rule was made for.
pub(super) fn domain(context: &mut Context<'_>) -> Result<Vec<u32>> {
    let mut known_before = Vec::new();
    let Some(landlock) = context.policy.landlock.clone() else { return Ok(known_before) };
    let known = Known::new(&landlock, context.host.landlock_abi(), &context.host.kernel().to_string())?;
    let mut plan = LandlockPlan { known, holds: None, paths: Vec::new(), ports: Vec::new() };
    if plan.known.holds_something() {
        let allowed = privileged(context);
        let need = plan.known.need(&landlock);
        match (allowed, need) {
            (true, _) => known_before = rows(context, &mut plan, need),
            (false, Need::Preferred) => {
                context.notes.push("no Landlock domain: it needs no_new_privs, or CAP_SYS_ADMIN".into());
            }
            (false, Need::Required) => {
                let error = Error::new(ErrorKind::Unsupported, Step::Landlock, "domain");
                let error = error.call("landlock_restrict_self", libc::EPERM);
                return Err(error.detail("it needs no_new_privs, or CAP_SYS_ADMIN: neither is there"));
            }
        }
    }
    if plan.holds.is_some() {
        gaps(context, &plan);
    }
    context.landlock = Some(plan);
    Ok(known_before)
}

/// What the kernel asks for at the last step (landlock_restrict_self(2), EPERM).
fn privileged(context: &Context<'_>) -> bool {
    let keeps = context.policy.capabilities.contains(Capability::SysAdmin);
    let never = context.policy.hardening.no_new_privs == NewPrivileges::Never;
    never || keeps || context.host.no_new_privs() == Answer::Yes
}

/// Ruleset, rules, and the step into the domain. Each is an item, so that a preferred one can fail alone.
fn rows(context: &mut Context<'_>, plan: &mut LandlockPlan, need: Need) -> Vec<u32> {
    let mut known_before = Vec::new();
    let ruleset = context.asm.cell_with("ruleset", &[u64::MAX]);
    context.item(Step::Landlock, "ruleset", need, |context| create(context, &plan.known, ruleset));
    let end = context.asm.label();
    if need == Need::Preferred {
        context.asm.if_less(&ruleset.word(), num(0), end);
    }
    let weaker = |rule: Need| if need == Need::Preferred { Need::Preferred } else { rule };
    for rule in landlock_rules(context.policy, context.set) {
        let outcome = context.brief("rule", 32);
        let before = context.joins().then(|| context.brief("rule_for", 16));
        known_before.extend(before.map(|cell| cell.address.offset));
        let allow = rule.allow & plan.known.files;
        let object = Object::SandboxPath(rule.path.clone());
        if !allow.is_empty() {
            context.item(Step::Landlock, object, weaker(rule.need), |context| {
                path(context, (ruleset, outcome, before), &rule.path, allow);
            });
        }
        let unknown = plan.known.unknown_of(rule.allow);
        plan.paths.push(PathPlan { path: rule.path, unknown, outcome: outcome.address.offset });
    }
    for rule in context.policy.landlock.iter().flat_map(|landlock| landlock.ports.clone()) {
        let outcome = context.brief("rule", 8);
        let allow = rule.allow & plan.known.net;
        let object = format!("TCP port {}", rule.port);
        if !allow.is_empty() {
            context.item(Step::Landlock, object, weaker(rule.need), |context| {
                port(context, (ruleset, outcome), rule.port, allow);
            });
        }
        plan.ports.push(PortPlan { port: rule.port, outcome: outcome.address.offset });
    }
    let holds = context.brief("landlock", 8);
    plan.holds = Some(holds.address.offset);
    let log = plan.known.log;
    context.item(Step::Landlock, "domain", need, |context| {
        let flags = sym(log.bits(), if log.is_empty() { "0".to_owned() } else { log.to_string() });
        let call = Call::new(libc::SYS_landlock_restrict_self, "landlock_restrict_self");
        context.asm.call(call.arg(ruleset.word()).arg(flags));
        context.asm.set(holds, &num(1), &num(0));
    });
    context.close(ruleset);
    context.asm.bind(end);
    known_before
}

fn create(context: &mut Context<'_>, known: &Known, ruleset: Cell) {
    let text = format!("{{files {}, net {}, scopes {}}}", known.files, known.net, known.scopes);
    let words = known.attributes();
    let size = num(8 * i64::try_from(words.len()).unwrap_or(0));
    let attributes = context.asm.words(&words, text);
    let call = Call::new(libc::SYS_landlock_create_ruleset, "landlock_create_ruleset").arg(attributes);
    context.asm.call(call.arg(size).arg(num(0)).into(ruleset));
}

/// What the program could not reach by this path anyway needs no rule: it is left out, and said.
fn path(
    context: &mut Context<'_>,
    (ruleset, outcome, before): (Cell, Cell, Option<Cell>),
    path: &Path,
    allow: AccessFs,
) {
    let (done, taken) = (context.asm.label(), Cell { address: outcome.address.plus(8), name: "taken" });
    if let Some(before) = before {
        // Where there was nothing, there was no rule.
        context.asm.if_equal(&before.word(), u64::MAX, num(0), done);
    }
    let name = context.asm.string(path.as_os_str().as_bytes());
    let flags = sym(u64_of(libc::O_PATH | libc::O_CLOEXEC), "O_PATH|O_CLOEXEC");
    let call = Call::new(libc::SYS_openat, "openat").arg(cwd()).arg(name).arg(flags).into(outcome);
    context.asm.call(call.fine(&[libc::ENOENT, libc::ENOTDIR, libc::EACCES, libc::ELOOP]));
    context.asm.if_less(&outcome.word(), num(0), done);
    // struct landlock_path_beneath_attr is packed: u64 allowed_access, s32 parent_fd.
    let attributes = context.asm.cell_with("beneath", &[allow.bits(), 0]);
    let parent = Cell { address: attributes.address.plus(8), name: "beneath.fd" };
    let close = context.asm.label();
    identify(context, outcome, before);
    if allow.for_files() != allow {
        mask(context, attributes, allow, close);
    }
    context.asm.set(parent, &outcome.word(), &num(0));
    let call = Call::new(libc::SYS_landlock_add_rule, "landlock_add_rule").arg(ruleset.word());
    let call = call.arg(sym(RULE_PATH_BENEATH, "LANDLOCK_RULE_PATH_BENEATH")).arg(attributes.pointer());
    context.asm.call(call.arg(num(0)));
    context.asm.set(taken, &attributes.word(), &num(0));
    context.asm.bind(close);
    context.close(outcome);
    context.asm.bind(done);
}

/// Notes what the rule is for. In a living sandbox it has to be what the first one was for: a program that may write where
/// the path leads could have put something else there, and gain by it.
fn identify(context: &mut Context<'_>, found: Cell, before: Option<Cell>) {
    let stat = context.stat;
    let asm = &mut context.asm;
    let empty = asm.string(b"");
    let at = sym(u64_of(libc::AT_EMPTY_PATH), "AT_EMPTY_PATH");
    let what = sym(u64::from(libc::STATX_TYPE | libc::STATX_INO), "STATX_TYPE|STATX_INO");
    let call = Call::new(libc::SYS_statx, "statx").arg(found.word()).arg(empty).arg(at).arg(what);
    asm.call(call.arg(stat.pointer()));
    for (at, name, from) in [(RULE_FOR, "inode", INODE), (RULE_FOR + 8, "device", DEVICE)] {
        let noted = Cell { address: found.address.plus(at), name };
        asm.set(noted, &stat.word_at(from), &num(0));
        if let Some(before) = before {
            let wanted = before.word_at(at - RULE_FOR);
            asm.assert_equal(&noted.word(), u64::MAX, wanted, "it is not what the program's own rule is for");
        }
    }
}

/// The kernel refuses rights of directories for anything else; which it is shows only now.
fn mask(context: &mut Context<'_>, attributes: Cell, allow: AccessFs, close: Label) {
    let (stat, directory) = (context.stat, context.asm.label());
    let asm = &mut context.asm;
    let kind = sym(u64::from(libc::S_IFDIR), "S_IFDIR");
    asm.if_equal(&stat.half(MODE), u64::from(libc::S_IFMT), kind, directory);
    let files = allow.for_files();
    if files.is_empty() {
        asm.goto(close);
    } else {
        asm.set(attributes, &sym(files.bits(), files.to_string()), &num(0));
    }
    asm.bind(directory);
}

fn port(context: &mut Context<'_>, (ruleset, taken): (Cell, Cell), port: u16, allow: AccessNet) {
    let attributes = context.asm.words(&[allow.bits(), u64::from(port)], format!("{{{allow}, {port}}}"));
    let call = Call::new(libc::SYS_landlock_add_rule, "landlock_add_rule").arg(ruleset.word());
    let call = call.arg(sym(RULE_NET_PORT, "LANDLOCK_RULE_NET_PORT")).arg(attributes);
    context.asm.call(call.arg(num(0)));
    context.asm.set(taken, &sym(allow.bits(), allow.to_string()), &num(0));
}

/// What stays open where no namespace closes it.
fn gaps(context: &mut Context<'_>, plan: &LandlockPlan) {
    let tree = context.in_set(Namespaces::MOUNT);
    let net = context.in_set(Namespaces::NET);
    let no_memfd = context.policy.hardening.deny_memfd_exec.is_some() && context.in_set(Namespaces::PID);
    let lacks = |right: AccessFs| !plan.known.files.contains(right);
    let files = [
        (
            true,
            "Landlock does not confine stat, access, readlink and chdir: names and metadata of the host's files can be read",
        ),
        (
            true,
            "Landlock does not confine chmod, chown, utimensat and setxattr: they take effect on the host's files as far as the program's ids go",
        ),
        (lacks(AccessFs::TRUNCATE), "truncation is not confined: LANDLOCK_ACCESS_FS_TRUNCATE is not handled"),
        (
            lacks(AccessFs::IOCTL_DEV),
            "ioctl on devices is not confined: LANDLOCK_ACCESS_FS_IOCTL_DEV is not handled",
        ),
        (
            lacks(AccessFs::RESOLVE_UNIX),
            "pathname unix sockets of the host can be connected to: LANDLOCK_ACCESS_FS_RESOLVE_UNIX is not handled",
        ),
        (!no_memfd, "a memfd can be executed, whatever LANDLOCK_ACCESS_FS_EXECUTE says"),
    ];
    let others = [
        (net, "Landlock confines TCP only: UDP, raw, netlink, packet and vsock sockets are the host's"),
        (
            net || plan.known.net == AccessNet::all(),
            "TCP is not wholly confined: LANDLOCK_ACCESS_NET_BIND_TCP and CONNECT_TCP are not both handled",
        ),
        (
            net || plan.known.scopes.contains(Scopes::ABSTRACT_UNIX_SOCKET),
            "abstract unix sockets of the host can be connected to: LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET is not closed",
        ),
    ];
    let open = files.into_iter().filter(|(open, _)| *open && !tree);
    let reached = others.into_iter().filter(|(closed, _)| !closed);
    context.notes.extend(open.chain(reached).map(|(_, note)| note.to_owned()));
}
