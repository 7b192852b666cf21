//! THE ORDER: the steps of a launch, one line each with its reason. Every decision that can be made before the clone is made here.

use super::asm::{Call, Cell, fd, num, sym};
use super::context::{Context, u64_of};
use super::identity::{self, IdPlan};
use super::seccomp::{self, Attach};
use super::{Plan, capability, cgroup, gate, init, knob, landlock, mount, process, root};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::host::{Features, Host};
use crate::machine::image::{EARLY_ARGV, EARLY_ENVP};
use crate::machine::layout::{
    ARGV, BRIEF_BASE, ENVP, FD_BRIEF, FD_FIRST_FREE, FREE_FD, PROGRESS, TAIL_ENTRY,
};
use crate::machine::segment::{Address, Place};
use crate::machine::wire::Message;
use crate::policy::{Init, MountKind, Namespaces, Policy};
use std::mem;

/// Bytes of the brief that the image maps: more than any command fills, as the kernel maps pages beyond the end of the
/// memfd without complaint and the tail never reaches there.
pub(crate) const BRIEF_SPAN: i64 = 4 << 20;

/// The plan of `policy` on `host` for one namespace set.
pub(crate) fn compile(policy: &Policy, host: &Host, set: Namespaces) -> Result<Plan> {
    let missing = Namespaces::from_bits_truncate(
        set.bits() & !u32::try_from(host.namespace_flags()).unwrap_or(u32::MAX),
    );
    if !missing.is_empty() {
        let error = Error::new(ErrorKind::Unsupported, Step::Clone, format!("namespaces {missing}"));
        return Err(error.call("clone", libc::EINVAL).detail("this kernel does not have them"));
    }
    let ids = identity::plan(policy, host, set)?;
    let program_enters = policy.init == Init::Reaper || host.features().contains(Features::TIME_NS_ON_EXEC);
    if set.contains(Namespaces::TIME) && !program_enters {
        let error = Error::new(ErrorKind::Unsupported, Step::Time, "time namespace");
        return Err(
            error.detail("without an init a program enters it only at exec, since Linux 6.2: keep the init")
        );
    }
    let mut context = Context::new(policy, host, set);
    let context = &mut context;
    context.group = cgroup::choose(policy, host)?;
    let copy_entry = start(context);

    // The image holds everything that the set-up needs; nothing was inherited but the descriptors.
    name(context);
    // In the host's /proc, while it is there; and before a change of ids makes the file someone else's.
    process::oom_score(context);
    // A map of the caller's own ids the child may write itself; before anything that needs a mapped id.
    identity::own_map(context, &ids);
    // Any other map is the caller's part, and so are control groups that the child was not made in: wait for it.
    caller_part(context, &ids);
    // What the program sees of the control groups begins at its own.
    own_cgroup(context);
    // The offsets are written before anything enters the namespace, and through the host's /proc.
    process::time(context);
    // In a user namespace files can be made only by ids that it maps; capabilities stay.
    if set.contains(Namespaces::USER) {
        identity::take(context, &ids);
    }
    // From here on the caller's death is this process's.
    process::tether(context);
    // Before the program can hold a terminal or a key of the caller.
    process::session(context);
    if set.contains(Namespaces::MOUNT) {
        context.owner = identity::late_owner(&ids, set);
        tree(context)?;
    }
    shared(context);
    // They need CAP_SYS_ADMIN and CAP_SYS_RESOURCE over the sandbox's own namespaces, and the host's /proc in reach.
    knob::user_namespaces(context);
    knob::memfd_exec(context)?;
    knob::names(context)?;
    knob::loopback(context);
    if set.contains(Namespaces::MOUNT) {
        // Nothing is made in the root any more.
        root::seal_root(context);
        root::pivot(context);
    }
    // Limits last among what needs the caller's resources: the steps above need memory and descriptors.
    process::limits(context);
    // While CAP_SETPCAP is still there.
    capability::bounding(context);
    // Without a user namespace nothing needed the new ids until here, and the mounts needed the old ones.
    if !set.contains(Namespaces::USER) {
        identity::take(context, &ids);
    }
    // After the ids, which need CAP_SETUID and CAP_SETGID.
    capability::rest(context);
    // After the last step that could gain anything; before Landlock and seccomp, which ask for it.
    process::no_new_privs(context);
    // The paths are those inside, reached with the program's ids; a domain may not mount, and nothing below opens a file.
    drop(landlock::domain(context)?);
    // A change of ids clears PDEATHSIG (prctl(2)), and the caller may have died before it was set: once more.
    process::tether(context);
    // Dispositions as a fresh program expects them; everything stays blocked until exec.
    process::signals(context);
    // Confined already: init is what the program will be, less what the program may keep.
    init::split(context)?;
    // Before the caller looks whether it can take the filter's listener over.
    seccomp::make_fetchable(context);
    // Its program is part of the plan; the tail attaches it last, as it would filter every step above.
    let filter = seccomp::lower(context)?;
    // But a child that waits for its command has it already, if it lets through all that is left to do: so that it is read
    // back, and takes no time when the command comes.
    seccomp::attach_to_waiting(context, filter.as_ref());
    // The caller reads back what holds, and may keep the child here for as long as it likes.
    ready(context);
    Ok(finish(context, ids, copy_entry, filter))
}

/// Rows that only an image needs: the brief is mapped, progress goes there. Returns the first row behind them.
pub(super) fn start(context: &mut Context<'_>) -> usize {
    let asm = &mut context.asm;
    asm.step(Step::Start, "brief");
    // Without the brief there is nowhere to leave an errno, so the exit status is its negative.
    let (begin, refused, mapped) = (asm.label(), asm.label(), asm.cell("mapped"));
    asm.goto(begin);
    asm.bind(refused);
    asm.call(Call::new(libc::SYS_exit_group, "exit_group").arg(mapped.word()));
    asm.bind(begin);
    let protection = sym(u64_of(libc::PROT_READ | libc::PROT_WRITE), "PROT_READ|PROT_WRITE");
    let flags = sym(u64_of(libc::MAP_SHARED | libc::MAP_FIXED), "MAP_SHARED|MAP_FIXED");
    let call = Call::new(libc::SYS_mmap, "mmap").arg(sym(BRIEF_BASE, "brief")).arg(num(BRIEF_SPAN));
    let call = call.arg(protection).arg(flags).arg(fd(FD_BRIEF, "brief")).arg(num(0));
    asm.call(call.into(mapped).otherwise(refused));
    asm.progress(Cell::brief(PROGRESS, "progress"));
    let early = |offset, name| Cell { address: Address { place: Place::Image, offset }, name };
    asm.set(Cell::brief(ARGV, "argv"), &early(EARLY_ARGV, "argv").word(), &num(0));
    asm.set(Cell::brief(ENVP, "envp"), &early(EARLY_ENVP, "envp").word(), &num(0));
    let here = asm.here();
    asm.call(Call::new(libc::SYS_close, "close").arg(fd(FD_BRIEF, "brief")).fine(&[libc::EINTR]));
    here
}

pub(super) fn name(context: &mut Context<'_>) {
    let name = context.asm.string(b"ringfence");
    let option = sym(u64_of(libc::PR_SET_NAME), "PR_SET_NAME");
    context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(name));
    if !context.has(Features::CLOSE_RANGE) {
        context.asm.step(Step::Descriptors, "the caller's");
        init::close_from(&mut context.asm, &Cell::brief(FREE_FD, "free_fd").word());
    }
}

/// Waits until the caller has written the maps, or anything else that is its part before the set-up.
fn caller_part(context: &mut Context<'_>, ids: &IdPlan) {
    let attaches = joins_late(context);
    if ids.needs_caller() || attaches {
        let what = match (ids.needs_caller(), attaches) {
            (true, true) => "id maps and groups",
            (true, false) => "id maps",
            (false, _) => "groups",
        };
        context.asm.step(Step::Gate, what);
        gate::wait_for(&mut context.asm, Message::Go);
    }
}

fn joins_late(context: &Context<'_>) -> bool {
    context.group.as_ref().is_some_and(|group| group.join.attaches())
}

/// The root of a cgroup namespace is the group in which it is made (cgroup_namespaces(7)): so it is made only now, where the
/// child has just been put into its groups.
fn own_cgroup(context: &mut Context<'_>) {
    if joins_late(context) && context.in_set(Namespaces::CGROUP) {
        context.asm.step(Step::Clone, "cgroup namespace");
        let flag = sym(u64::from(Namespaces::CGROUP.bits()), "CLONE_NEWCGROUP");
        context.asm.call(Call::new(libc::SYS_unshare, "unshare").arg(flag));
    }
}

/// What the program shares with the caller is said.
pub(super) fn shared(context: &mut Context<'_>) {
    let what = [
        (Namespaces::MOUNT, "the program sees the host's files: there is no mount namespace"),
        (
            Namespaces::PID,
            "the program sees the host's processes, and may signal those of its uid: there is no pid namespace",
        ),
        (
            Namespaces::NET,
            "the program has the host's network, abstract sockets included: there is no network namespace",
        ),
        (
            Namespaces::IPC,
            "the program sees the host's System V and message queues: there is no ipc namespace",
        ),
        (Namespaces::UTS, "the program sees the host's name: there is no UTS namespace"),
        (Namespaces::CGROUP, "the program sees the host's cgroup paths: there is no cgroup namespace"),
    ];
    for (namespace, note) in what {
        if !context.in_set(namespace) {
            context.notes.push(note.into());
        }
    }
}

/// The mount tree.
fn tree(context: &mut Context<'_>) -> Result<()> {
    // Recursively, before any mount.
    root::private_propagation(context);
    root::mount_root(context)?;
    if needs_blank(context.policy) {
        root::blank(context);
    }
    // In the user's order; each built detached, restricted, then attached.
    mount::mounts(context)?;
    root::unmount_blank(context);
    Ok(())
}

fn needs_blank(policy: &Policy) -> bool {
    policy.mounts().iter().any(|mount| matches!(mount.kind(), MountKind::Proc(_) | MountKind::Mask))
}

/// Tells the caller, waits for its word, and goes on with what belongs to the command.
pub(super) fn ready(context: &mut Context<'_>) {
    context.asm.step(Step::Descriptors, "of a child that waits");
    gate::close_before_waiting(&mut context.asm);
    context.asm.step(Step::Gate, "ready");
    gate::tell(&mut context.asm, Message::Ready);
    gate::wait_for_command_or(&mut context.asm, Message::Go);
    if !context.forks() {
        gate::check_caller(&mut context.asm);
    }
    context.asm.jump_to(&Cell::brief(TAIL_ENTRY, "tail").word());
}

pub(super) fn finish(
    context: &mut Context<'_>,
    ids: IdPlan,
    copy_entry: usize,
    filter: Option<Attach>,
) -> Plan {
    let placeholder = Context::new(context.policy, context.host, context.set);
    let done = mem::replace(context, placeholder);
    let (carried, bounds) = (capability::carried(&done), capability::can_bound(&done));
    let init = if done.forks() { Init::Reaper } else { Init::Program };
    Plan {
        set: done.set,
        init,
        entry: done.entry,
        ids,
        sources: done.sources,
        items: done.items,
        notes: done.notes,
        late_limits: done.late_limits,
        filter,
        acts: done.acts,
        landlock: done.landlock,
        group: done.group,
        copy_entry,
        tail_at: done.brief_next.next_multiple_of(64),
        carried,
        bounds,
        passed_at: FD_FIRST_FREE + done.trees,
        code: done.asm.finish(),
    }
}
