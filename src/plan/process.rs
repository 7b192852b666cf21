//! Attributes of the process: session, keyring, time, limits, signals. One call or two each.

use super::asm::{Call, null, num, sym};
use super::context::{Act, ActKind, Context, u64_of};
use super::facts;
use super::tail::LateLimit;
use super::text::Text;
use crate::error::Step;
use crate::host::Features;
use crate::policy::{Capability, Namespaces, Need, NewPrivileges, Resource, Session, Wanted};

const KEYCTL_JOIN_SESSION_KEYRING: u64 = 1;
const PR_SET_MDWE: u64 = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;
const ADDR_NO_RANDOMIZE: u64 = 0x004_0000;
/// Signals are 1 to 64; the kernel's own limit, not libc's.
const SIGNALS: i32 = 64;

/// The program dies with the caller's process. With an init, init sees to it; without one the kernel does, for the thread
/// that cloned: so that thread has to live as long as the process.
pub(super) fn tether(context: &mut Context<'_>) {
    context.asm.step(Step::Tether, "");
    if !context.forks() {
        let option = sym(u64_of(libc::PR_SET_PDEATHSIG), "PR_SET_PDEATHSIG");
        let kill = sym(u64_of(libc::SIGKILL), "SIGKILL");
        context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(kill));
    }
    super::gate::check_caller(&mut context.asm);
}

pub(super) fn session(context: &mut Context<'_>) {
    if context.policy.hardening.session == Session::New {
        context.asm.step(Step::Session, "");
        context.asm.call(Call::new(libc::SYS_setsid, "setsid"));
        forget_signals(context);
    }
    let Some(Wanted { need, .. }) = context.policy.hardening.own_keyring else { return };
    if !context.has(Features::KEYCTL) {
        context.notes.push("no session keyring of its own: keyctl is absent, or refused to the caller and so to the program too".into());
        return;
    }
    context.item(Step::Keyring, "session keyring", need, |context| {
        let join = sym(KEYCTL_JOIN_SESSION_KEYRING, "KEYCTL_JOIN_SESSION_KEYRING");
        context.asm.call(Call::new(libc::SYS_keyctl, "keyctl").arg(join).arg(null()));
    });
}

/// Until here a signal to the caller's process group came to this process too, and waits to be unblocked: it is the caller's.
fn forget_signals(context: &mut Context<'_>) {
    let asm = &mut context.asm;
    let (every, now) = (asm.words(&[u64::MAX], "~[]"), asm.words(&[0, 0], "{0}"));
    let (taken, again, none) = (asm.cell("taken"), asm.label(), asm.label());
    asm.bind(again);
    let call = Call::new(libc::SYS_rt_sigtimedwait, "rt_sigtimedwait").arg(every).arg(null()).arg(now);
    asm.call(call.arg(num(8)).into(taken).fine(&[libc::EAGAIN]));
    asm.if_less(&taken.word(), num(1), none);
    asm.goto(again);
    asm.bind(none);
}

/// The offsets can be set only before the first process enters the namespace, so it is made here and entered by the
/// program: at init's fork, or at exec (time_namespaces(7)).
pub(super) fn time(context: &mut Context<'_>) {
    let Some(offsets) = context.policy.time_offsets else { return };
    if !context.in_set(Namespaces::TIME) {
        return;
    }
    context.asm.step(Step::Time, "");
    let flag = sym(u64::from(Namespaces::TIME.bits()), "CLONE_NEWTIME");
    context.asm.call(Call::new(libc::SYS_unshare, "unshare").arg(flag));
    context.asm.step(Step::Time, "/proc/self/timens_offsets");
    let text = format!("monotonic {} 0\nboottime {} 0\n", offsets.monotonic, offsets.boottime);
    context.write_file("/proc/self/timens_offsets", &text);
}

/// `/proc/self/oom_score_adj` of the host's `/proc`: before the old root goes.
pub(super) fn oom_score(context: &mut Context<'_>) {
    let Some(Wanted { value, need }) = context.policy.hardening.oom_score_adj else { return };
    let object = format!("oom_score_adj={value}");
    if by_caller(context, Capability::SysResource) {
        let what = ActKind::OomScore(value);
        return context.acts.push(Act { what, need, object: object.into() });
    }
    context.item(Step::Limits, object, need, |context| {
        context.write_file("/proc/self/oom_score_adj", &value.to_string());
    });
}

fn prctl(context: &mut Context<'_>, option: (u64, &'static str), value: (u64, impl Into<Text>)) {
    let call = Call::new(libc::SYS_prctl, "prctl").arg(sym(option.0, option.1));
    context.asm.call(call.arg(sym(value.0, value.1)).arg(num(0)).arg(num(0)).arg(num(0)));
}

/// Limits of the process. The number of open files waits for the last descriptor, that of processes for init's fork.
pub(super) fn limits(context: &mut Context<'_>) {
    for mut limit in context.policy.limits.clone() {
        // One of the tree that may come down to the same call is set before: what follows must not ask for more.
        if let Some(most) =
            context.policy.cgroup.processes().filter(|_| limit.resource == Resource::Processes)
        {
            (limit.soft, limit.hard) = (limit.soft.min(most), limit.hard.min(most));
        }
        let (number, name) = limit.resource.number();
        if matches!(limit.resource, Resource::OpenFiles | Resource::Processes) {
            let outcome = (limit.need == Need::Preferred).then(|| context.outcome(Step::Limits, name.into()));
            context.late_limits.push(LateLimit { limit, outcome });
            continue;
        }
        if by_caller(context, Capability::SysResource) {
            let what = ActKind::Limit { resource: number, soft: limit.soft, hard: limit.hard };
            context.acts.push(Act { what, need: limit.need, object: name.into() });
            continue;
        }
        context.item(Step::Limits, name, limit.need, |context| {
            let value =
                context.asm.words(&[limit.soft, limit.hard], format!("{{{}, {}}}", limit.soft, limit.hard));
            let call =
                Call::new(libc::SYS_prlimit64, "prlimit64").arg(num(0)).arg(sym(u64::from(number), name));
            context.asm.call(call.arg(value).arg(null()));
        });
    }
    let hardening = context.policy.hardening.clone();
    if let Some(Wanted { value, need }) = hardening.nice {
        nice(context, value, need);
    }
    if let Some(Wanted { value, need }) = hardening.timer_slack {
        let nanoseconds = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        context.item(Step::Limits, "timer slack", need, |context| {
            let text = nanoseconds.to_string();
            prctl(context, (u64_of(libc::PR_SET_TIMERSLACK), "PR_SET_TIMERSLACK"), (nanoseconds, text));
        });
    }
    if let Some(wanted) = hardening.disable_aslr {
        context.item(Step::Limits, "ADDR_NO_RANDOMIZE", wanted.need, |context| {
            let flag = sym(ADDR_NO_RANDOMIZE, "ADDR_NO_RANDOMIZE");
            context.asm.call(Call::new(libc::SYS_personality, "personality").arg(flag));
        });
    }
    if let Some(wanted) = hardening.deny_write_execute {
        context.item(Step::Limits, "PR_SET_MDWE", wanted.need, |context| {
            prctl(
                context,
                (PR_SET_MDWE, "PR_SET_MDWE"),
                (PR_MDWE_REFUSE_EXEC_GAIN, "PR_MDWE_REFUSE_EXEC_GAIN"),
            );
        });
    }
    context.asm.step(Step::Limits, "umask");
    let mask = sym(u64::from(hardening.umask), format!("{:04o}", hardening.umask));
    context.asm.call(Call::new(libc::SYS_umask, "umask").arg(mask));
}

fn nice(context: &mut Context<'_>, value: i32, need: Need) {
    let object = format!("nice={value}");
    if by_caller(context, Capability::SysNice) {
        return context.acts.push(Act { what: ActKind::Nice(value), need, object: object.into() });
    }
    context.item(Step::Limits, object, need, |context| {
        let call = Call::new(libc::SYS_setpriority, "setpriority").arg(sym(0, "PRIO_PROCESS")).arg(num(0));
        context.asm.call(call.arg(num(i64::from(value))));
    });
}

/// Whether the caller has a right over the machine that the child, in a user namespace of its own, has not.
fn by_caller(context: &Context<'_>, capability: Capability) -> bool {
    context.in_set(Namespaces::USER) && facts::has_capability(context.host, capability as u32)
}

pub(super) fn no_new_privs(context: &mut Context<'_>) {
    match context.policy.hardening.no_new_privs {
        NewPrivileges::Never => {
            context.asm.step(Step::NoNewPrivs, "");
            prctl(context, (u64_of(libc::PR_SET_NO_NEW_PRIVS), "PR_SET_NO_NEW_PRIVS"), (1, "1"));
        }
        NewPrivileges::Allowed => context.notes.push("an exec inside may gain privileges, as asked".into()),
    }
}

/// An ignored signal stays ignored over exec, so the dispositions of the caller would be the program's.
pub(super) fn signals(context: &mut Context<'_>) {
    context.asm.step(Step::Signals, "");
    let default = context.asm.words(&[0; 4], "{SIG_DFL}");
    for signal in (1..=SIGNALS).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let call = Call::new(libc::SYS_rt_sigaction, "rt_sigaction").arg(num(i64::from(signal)));
        context.asm.call(call.arg(default.clone()).arg(null()).arg(num(8)));
    }
}
