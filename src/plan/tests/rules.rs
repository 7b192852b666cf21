//! What has to hold wherever a run ends: before an exec, in init, after a failure. Each rule returns what it finds broken.

use super::super::Arrival;
use super::super::Entry;
use super::super::ItemKind;
use super::super::MapWriter;
use super::super::NATIVE;
use super::super::Op;
use super::super::identity::HostIds;
use super::super::seccomp::LEFT;
use super::kernel::PROGRAM_PID;
use super::launch::Finish;
use super::launch::Launch;
use super::launch::PASSED;
use super::world::Event;
use super::world::Scripted;
use super::world::What;
use crate::error::Step;
use crate::host::Features;
use crate::machine::isa::Opcode;
use crate::machine::isa::RETRY;
use crate::machine::layout::BRIEF_BASE;
use crate::machine::layout::EXECS;
use crate::machine::layout::FD_CALLER;
use crate::machine::layout::FD_SANDBOX;
use crate::machine::layout::FD_SCRATCH;
use crate::machine::layout::STATUS;
use crate::machine::layout::STATUS_VALID;
use crate::machine::segment::Arg;
use crate::machine::segment::Place;
use crate::policy::Namespaces;
use crate::policy::Need;
use crate::policy::NewPrivileges;
use crate::policy::Session;

fn bits(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// The trace of a run.
struct Done<'a> {
    world: &'a Scripted,
    events: Vec<Event>,
}

impl<'a> Done<'a> {
    fn new(world: &'a Scripted) -> Self {
        Self { world, events: world.events().copied().collect() }
    }

    fn last(&self, nr: i64, holds: impl Fn(&Event) -> bool) -> Option<usize> {
        self.events.iter().rposition(|event| event.nr == nr && event.result >= 0 && holds(event))
    }

    fn prctl(&self, option: i32, value: u64) -> Option<usize> {
        self.last(libc::SYS_prctl, |event| event.args[0] == bits(option) && event.args[1] == value)
    }
}

fn need(broken: &mut Vec<String>, what: &str, found: Option<usize>) -> usize {
    if found.is_none() {
        broken.push(format!("{what} did not happen"));
    }
    found.unwrap_or(0)
}

/// Each of these happened, in this order.
fn in_order(broken: &mut Vec<String>, list: &[(&str, Option<usize>)]) {
    for pair in list.windows(2) {
        let [(one, before), (other, after)] = pair else { continue };
        let (before, after) = (need(broken, one, *before), need(broken, other, *after));
        if before > after {
            broken.push(format!("{one} came after {other}"));
        }
    }
}

/// What holds where the program is executed.
pub(super) fn at_exec(launch: &Launch<'_>, world: &Scripted) -> Vec<String> {
    let mut broken = Vec::new();
    let done = Done::new(world);
    if world.word_at(BRIEF_BASE + u64::from(EXECS)) != Some(1) {
        broken.push("the caller cannot know that the next thing is the exec".into());
    }
    privileges(launch, &done, &mut broken);
    identity(launch, &done, &mut broken);
    if let Entry::Living(_) = launch.plan.entry {
        joined(launch, &done, &mut broken);
    } else if launch.plan.set.contains(Namespaces::MOUNT) {
        tree(&done, &mut broken);
        restricted(launch, world, &mut broken);
    }
    if launch.policy.hardening.session == Session::New {
        need(&mut broken, "setsid", done.last(libc::SYS_setsid, |_| true));
    }
    let unblocked = |event: &Event| world.word_at(event.args[1]) == Some(0);
    need(&mut broken, "the empty signal mask", done.last(libc::SYS_rt_sigprocmask, unblocked));
    descriptors(launch, world, &mut broken);
    broken
}

fn capset(world: &Scripted, event: &Event) -> [u64; 3] {
    let word = |at: u64| world.word_at(event.args[1] + at).unwrap_or(u64::MAX);
    let (first, second, third) = (word(0), word(8), word(16));
    let low = |word: u64| word & 0xffff_ffff;
    let effective = low(first) | (second >> 32) << 32;
    let permitted = first >> 32 | low(third) << 32;
    let inheritable = low(second) | (third >> 32) << 32;
    [effective, permitted, inheritable]
}

fn privileges(launch: &Launch<'_>, done: &Done<'_>, broken: &mut Vec<String>) {
    let keep = launch.policy.capabilities.bits();
    let last = done.events.iter().rev().find(|event| event.nr == libc::SYS_capset);
    match last {
        Some(event) if event.result == 0 && capset(done.world, event) == [keep; 3] => {}
        other => broken.push(format!("the last capset is not the kept set: {other:?}")),
    }
    let clear = bits(libc::PR_CAP_AMBIENT_CLEAR_ALL);
    let cleared = need(broken, "clearing the ambient set", done.prctl(libc::PR_CAP_AMBIENT, clear));
    let raise = [bits(libc::PR_CAP_AMBIENT), bits(libc::PR_CAP_AMBIENT_RAISE)];
    let prctl = |event: &&Event| event.nr == libc::SYS_prctl && event.result == 0;
    let set =
        |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0_u64, |set, number| set | 1 << (number & 63));
    let raised = done.events.iter().skip(cleared).filter(prctl).filter(|event| event.args[..2] == raise);
    let raised = set(&mut raised.map(|event| event.args[2]));
    if raised != keep {
        broken.push(format!("the ambient set is {raised:#x}, wanted {keep:#x}"));
    }
    if launch.policy.hardening.no_new_privs == NewPrivileges::Never {
        need(broken, "PR_SET_NO_NEW_PRIVS", done.prctl(libc::PR_SET_NO_NEW_PRIVS, 1));
    }
    if launch.policy.seccomp.is_some() {
        let filter = need(broken, "the filter", done.last(libc::SYS_seccomp, |_| true));
        let early = launch.variant.arrival == Arrival::Messages
            && launch.plan.filter.as_ref().is_some_and(|filter| filter.precedes_command());
        // "Ready" behind it, or nothing.
        let wanted = usize::from(early);
        let behind = done
            .events
            .iter()
            .skip(filter)
            .filter(|event| event.nr == libc::SYS_sendto && event.result >= 0)
            .count();
        if behind != wanted {
            broken.push(format!("{behind} words come behind the filter, and not {wanted}"));
        }
        // What such a filter has to let through is all that comes.
        for event in done.events.iter().skip(filter + 1).filter(|_| early) {
            let name =
                u32::try_from(event.nr).ok().and_then(|number| NATIVE.name(number)).unwrap_or_default();
            let terminal = name == "ioctl" && event.args[1] == libc::TIOCSCTTY;
            if !LEFT.contains(&name) && !terminal {
                broken.push(format!("{name} comes behind the filter of a child that waits"));
            }
        }
    }
    landlocked(launch, done, broken);
    if launch.plan.bounds {
        let drop = bits(libc::PR_CAPBSET_DROP);
        let dropped = done.events.iter().filter(prctl).filter(|event| event.args[0] == drop);
        let dropped = set(&mut dropped.map(|event| event.args[1]));
        let wanted = u64::MAX >> (63 - launch.host.last_capability().min(63)) & !keep;
        if dropped != wanted {
            broken.push(format!("dropped from the bounding set: {dropped:#x}, wanted {wanted:#x}"));
        }
        need(broken, "locking the securebits", done.prctl(libc::PR_SET_SECUREBITS, 0b1110_1111));
    }
}

fn identity(launch: &Launch<'_>, done: &Done<'_>, broken: &mut Vec<String>) {
    let ids = &launch.plan.ids;
    let writes = |path: &str| {
        let opened = done.last(libc::SYS_openat, |event| done.world.text(event.args[1]) == path)?;
        let written = |event: &Event| event.nr == libc::SYS_write && event.result > 0;
        done.events.iter().skip(opened + 1).take(2).any(written).then_some(opened)
    };
    let joins = matches!(launch.plan.entry, Entry::Living(_));
    if ids.writer == MapWriter::Child && joins {
        // The map is there.
    } else if ids.writer == MapWriter::Child {
        let maps = ["/proc/self/setgroups", "/proc/self/uid_map", "/proc/self/gid_map"];
        in_order(
            broken,
            &[(maps[0], writes(maps[0])), (maps[1], writes(maps[1])), (maps[2], writes(maps[2]))],
        );
    } else if ids.writer != MapWriter::Nobody || ids.host != HostIds::Callers {
        let groups = launch.policy.identity.groups.len() as u64;
        let set =
            |nr: i64| done.last(nr, |event| event.args[0] == event.args[1] && event.args[1] == event.args[2]);
        let cleared = done.last(libc::SYS_setgroups, |event| event.args[0] == groups);
        in_order(
            broken,
            &[
                ("setgroups", cleared),
                ("setresgid", set(libc::SYS_setresgid)),
                ("setresuid", set(libc::SYS_setresuid)),
            ],
        );
    }
}

/// It is in every namespace of the sandbox, and none of its calls could have mounted anything.
fn joined(launch: &Launch<'_>, done: &Done<'_>, broken: &mut Vec<String>) {
    let joins = |event: &&Event| event.nr == libc::SYS_setns && event.result == 0;
    let all = done.events.iter().filter(joins).fold(0, |all, event| all | event.args[1]);
    if all != u64::from(launch.plan.set.bits()) {
        broken.push(format!("joined {all:#x}, the set is {}", launch.plan.set));
    }
    let mounts = [libc::SYS_mount, libc::SYS_move_mount, libc::SYS_pivot_root, libc::SYS_umount2];
    if done.events.iter().any(|event| mounts.contains(&event.nr)) {
        broken.push("it mounts in a living sandbox".into());
    }
}

/// Nothing of the old tree is left, and nothing was mounted where it could be seen outside.
fn tree(done: &Done<'_>, broken: &mut Vec<String>) {
    let world = done.world;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let made_private =
        done.last(libc::SYS_mount, |event| event.args[3] == private && world.text(event.args[1]) == "/");
    let mounts = |event: &Event| {
        event.nr == libc::SYS_move_mount || (event.nr == libc::SYS_mount && event.args[3] != private)
    };
    let first = done.events.iter().position(mounts);
    let pivot = done.last(libc::SYS_pivot_root, |_| true);
    let after = pivot.unwrap_or(0);
    let detach = bits(libc::MNT_DETACH);
    let find = |holds: &dyn Fn(&Event) -> bool| {
        done.events
            .iter()
            .skip(after)
            .position(|event| event.result >= 0 && holds(event))
            .map(|at| at + after)
    };
    let detached = find(&|event| {
        event.nr == libc::SYS_umount2 && event.args[1] == detach && world.text(event.args[0]) == "."
    });
    let changed = find(&|event| event.nr == libc::SYS_chdir && world.text(event.args[0]) == "/");
    in_order(
        broken,
        &[
            ("private propagation", made_private),
            ("the first mount", first),
            ("pivot_root", pivot),
            ("detaching the old root", detached),
            ("chdir to the new root", changed),
        ],
    );
    let looked = done.last(libc::SYS_getcwd, |_| true);
    need(broken, "a look at the working directory", looked);
}

/// Every bind is restricted: before it is attached where the kernel can, else after that.
fn restricted(launch: &Launch<'_>, world: &Scripted, broken: &mut Vec<String>) {
    let mounts = &world.mounts;
    let before = Features::MOUNT_API | Features::MOUNT_SETATTR;
    let later = if launch.host.features().contains(before) { 0 } else { mounts.remounts };
    if mounts.loose > later {
        broken.push(format!("{} binds were attached without a restriction", mounts.loose - later));
    }
}

/// What stays open over the exec is what was asked for, each at its number.
fn descriptors(launch: &Launch<'_>, world: &Scripted, broken: &mut Vec<String>) {
    let mut wanted: Vec<(i32, u64)> = (0..3).zip(0..).collect();
    wanted.extend(launch.variant.targets.iter().copied().zip(PASSED..));
    wanted.sort_unstable();
    let left = world.fds.iter().filter(|(_, fd)| !fd.cloexec);
    let left: Vec<(i32, What)> = left.map(|(number, fd)| (*number, fd.what)).collect();
    let same = wanted.iter().map(|(number, label)| (*number, What::Given(*label))).collect::<Vec<_>>();
    if left != same {
        broken.push(format!("open over the exec: {left:?}, asked for {wanted:?}"));
    }
    let strays = world.fds.iter().filter(|(number, fd)| fd.what == What::Given(99) && **number > 2);
    broken.extend(strays.map(|(number, _)| format!("the caller's descriptor {number} is open in the child")));
}

/// A required domain is around the process.
fn landlocked(launch: &Launch<'_>, done: &Done<'_>, broken: &mut Vec<String>) {
    let required = launch.policy.landlock().is_some_and(|landlock| !landlock.files.required.is_empty());
    if required {
        need(broken, "landlock_restrict_self", done.last(libc::SYS_landlock_restrict_self, |_| true));
    }
}

/// What holds where init has served and ends.
pub(super) fn at_exit(launch: &Launch<'_>, world: &Scripted) -> Vec<String> {
    let mut broken = Vec::new();
    let done = Done::new(world);
    let cloned = need(&mut broken, "the fork of init", done.last(libc::SYS_clone, |_| true));
    let open: Vec<i32> = world.fds.keys().copied().collect();
    let joins = matches!(launch.plan.entry, Entry::Living(_));
    let wanted = if joins { vec![FD_CALLER, FD_SCRATCH, FD_SANDBOX] } else { vec![FD_CALLER, FD_SCRATCH] };
    if open != wanted {
        broken.push(format!("init holds {open:?}"));
    }
    let dumpable = done.prctl(libc::PR_SET_DUMPABLE, 0);
    if dumpable.is_none_or(|at| at > cloned) {
        broken.push("init can be traced".into());
    }
    let empty = |event: &Event| capset(world, event) == [0; 3];
    let none = done.last(libc::SYS_capset, empty);
    if none.is_none_or(|at| !launch.policy.capabilities.is_empty() && at < cloned) {
        broken.push("init holds capabilities".into());
    }
    if launch.policy.hardening.no_new_privs == NewPrivileges::Never {
        need(&mut broken, "PR_SET_NO_NEW_PRIVS", done.prctl(libc::PR_SET_NO_NEW_PRIVS, 1));
    }
    if launch.policy.seccomp.is_some() {
        let filter = done.last(libc::SYS_seccomp, |_| true);
        if filter.is_none_or(|at| at < cloned) {
            broken.push("init has no filter".into());
        }
    }
    landlocked(launch, &done, &mut broken);
    if !world.script.caller_dies {
        let passed = |event: &Event| {
            event.args[0].cast_signed() == PROGRAM_PID && event.args[1] == bits(libc::SIGTERM)
        };
        let sent = done.events.iter().rposition(|event| event.nr == libc::SYS_kill && passed(event));
        need(&mut broken, "passing on SIGTERM", sent);
        let word = |offset: u32| world.word_at(BRIEF_BASE + u64::from(offset));
        if (word(STATUS), word(STATUS_VALID)) != (Some(3 << 8), Some(1)) {
            broken.push(format!("the wait status is {:?}", word(STATUS)));
        }
    }
    broken
}

/// What a failed call is allowed to lead to.
pub(super) fn after_failure(
    launch: &Launch<'_>,
    world: &Scripted,
    finish: Finish,
    (index, errno): (usize, i32),
) -> Vec<String> {
    let Some(event) = world.event(index) else { return vec!["the call was not made".into()] };
    let Some(op) = launch.op(event.pc) else { return vec!["a call from nowhere".into()] };
    let went_on = matches!(finish, Finish::Exec | Finish::Exit);
    let small = u8::try_from(errno).unwrap_or(0);
    let excused = op.row.fine.contains(&small) || errno == libc::EINTR && op.row.flags == RETRY;
    // Without the caller's word, and without a path that can be executed, there is no way on.
    let last_word = matches!(op.name, "recvfrom" | "execve" | "execveat");
    if excused {
        let fine = went_on || last_word;
        return if fine { Vec::new() } else { vec!["a harmless errno ends the launch".into()] };
    }
    if let Some(outcome) = outcome(launch, op, event.pc) {
        return preferred(launch, world, (went_on, outcome), (event, errno));
    }
    if let Some(rung) = rung(launch, op, event.pc) {
        return later_rung(world, finish, rung);
    }
    if op.name == "mount" && op.step == Step::Root && op.row.jump.is_some() {
        return next_place(launch, world, (finish, went_on), index);
    }
    // A listener that cannot be had: the filter that needs none is attached instead, which the end has looked for.
    if op.name == "seccomp" && op.row.jump.is_some() {
        return if went_on { Vec::new() } else { vec!["without a listener nothing runs".into()] };
    }
    if op.name == "faccessat" && op.step == Step::Exec {
        return if went_on { Vec::new() } else { vec!["a look at a path ends the launch".into()] };
    }
    // Where nothing can be left in the brief, the exit status says it, by one call more.
    let more = if op.step == Step::Start && op.name == "mmap" { 2 } else { 1 };
    if went_on || world.made() > index + more || finish != Finish::GaveUp {
        return vec![format!("a required call failed and the run went on to {finish:?}")];
    }
    Vec::new()
}

/// Where the word about a preferred item stands, if a failure of this row leaves one.
fn outcome(launch: &Launch<'_>, op: &Op, pc: u64) -> Option<u32> {
    let (code, _) = launch.row(pc)?;
    let word = code.ops.get(op.row.jump?)?.row.result.filter(|address| address.place == Place::Brief)?;
    let known = |kind: &ItemKind| *kind == ItemKind::Preferred;
    let item = launch.plan.items.iter().find(|item| item.outcome == word.offset && known(&item.kind))?;
    (op.need == Need::Preferred).then_some(item.outcome)
}

fn preferred(
    launch: &Launch<'_>,
    world: &Scripted,
    (went_on, outcome): (bool, u32),
    (event, errno): (&Event, i32),
) -> Vec<String> {
    let mut broken = Vec::new();
    let word = |at: u32| world.word_at(BRIEF_BASE + u64::from(outcome + at));
    let wanted = [Some(bits(errno)), Some(event.pc), Some(1)];
    if [word(0), word(8), word(16)] != wanted {
        broken.push(format!("the report of the preferred item is {:x?}", [word(0), word(8), word(16)]));
    }
    if !went_on {
        broken.push("a preferred item ends the launch".into());
    }
    // What is reported missing must not be there half built.
    let inside = |other: &&Event| {
        let attaches = other.nr == libc::SYS_move_mount || other.nr == libc::SYS_mount;
        attaches && other.result == 0 && item_of(launch, other.pc) == Some(outcome)
    };
    let undone = world.events().any(|other| {
        other.nr == libc::SYS_umount2
            && other.result == 0
            && launch.op(other.pc).is_some_and(|op| op.step != Step::Pivot && op.step != Step::Root)
    });
    // Nothing that is half built comes of a descriptor that would not close.
    let closing = event.nr == libc::SYS_close;
    if let Some(attached) = world.events().find(inside)
        && !(undone || closing)
    {
        broken.push(format!("missing, and yet attached by {}", launch.named(attached.pc)));
    }
    broken
}

/// The preferred item that a row belongs to: the nearest leave behind it.
fn item_of(launch: &Launch<'_>, pc: u64) -> Option<u32> {
    let (code, row) = launch.row(pc)?;
    (code.ops[row].need == Need::Preferred).then_some(())?;
    let leaves = |op: &Op| {
        let at = op.row.result.filter(|at| at.place == Place::Brief && op.row.opcode == Opcode::Set)?.offset;
        let mut items = launch.plan.items.iter();
        items.find(|item| item.outcome == at && item.kind == ItemKind::Preferred).map(|item| item.outcome)
    };
    code.ops[row..].iter().find_map(leaves)
}

/// A ladder's cell, and the rung that a row belongs to.
fn rung(launch: &Launch<'_>, op: &Op, pc: u64) -> Option<(u32, u64)> {
    op.row.jump?;
    let (code, row) = launch.row(pc)?;
    (op.step == Step::Proc).then_some(())?;
    let takes = |op: &Op| {
        let at = op.row.result.filter(|at| at.place == Place::Brief && op.row.opcode == Opcode::Set)?.offset;
        let ladder = |kind: &ItemKind| matches!(kind, ItemKind::Ladder(_));
        let known = launch.plan.items.iter().any(|item| item.outcome == at && ladder(&item.kind));
        let Arg::Value(number) = op.row.args[0] else { return None };
        known.then_some((at, number))
    };
    code.ops[row..].iter().find_map(takes)
}

fn later_rung(world: &Scripted, finish: Finish, (cell, failed): (u32, u64)) -> Vec<String> {
    let taken = world.word_at(BRIEF_BASE + u64::from(cell));
    if !matches!(finish, Finish::Exec | Finish::Exit) {
        return vec![format!("rung {failed} failed and no later one was taken: {taken:?}")];
    }
    if taken.is_none_or(|taken| taken <= failed) {
        return vec![format!("rung {failed} failed and the ladder says {taken:?}")];
    }
    Vec::new()
}

/// With mount(2) the new root is tried at one place after the other: the next one was taken, and nothing else followed.
fn next_place(
    launch: &Launch<'_>,
    world: &Scripted,
    (finish, went_on): (Finish, bool),
    index: usize,
) -> Vec<String> {
    let failed = &world.events().nth(index).map(|event| (event.args[1], event.args[3]));
    let next = world.events().skip(index + 1).find(|event| event.nr == libc::SYS_mount);
    let taken = next.is_some_and(|next| {
        let root = launch.op(next.pc).is_some_and(|op| op.step == Step::Root);
        root && failed.is_some_and(|(path, flags)| path != next.args[1] && flags == next.args[3])
    });
    if went_on && taken { Vec::new() } else { vec![format!("no next place for the root: {finish:?}")] }
}
