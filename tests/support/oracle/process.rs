//! What has to hold of the process where a run has reached its end, whatever its mount tree is.

use ringfence::Namespaces;
use ringfence::host::Features;

use super::kernel::Event;
use super::rules::Done;

/// Numbers of linux/prctl.h and securebits.h.
const PR_SET_PDEATHSIG: u64 = 1;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_SECUREBITS: u64 = 28;
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const PR_CAP_AMBIENT: u64 = 47;
const SIOCSIFFLAGS: u64 = 0x8914;
const CAP_SETPCAP: u32 = 8;
/// NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, and KEEP_CAPS off, each locked.
const LOCKED: u64 = 0b1110_1111;

pub(super) fn look(done: &Done<'_>, broken: &mut Vec<String>) {
    let mut need = |what: &str, found: Option<usize>| {
        if found.is_none() {
            broken.push(format!("{what} is missing"));
        }
    };
    let set = done.plan.namespaces();
    let prctl = |option: u64, value: u64| {
        done.last(libc::SYS_prctl, |event| event.args[0] == option && event.args[1] == value)
    };
    need("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1));
    need("the word to the caller", done.last(libc::SYS_sendto, |event| event.args[0] == 3));
    need("the filter", done.linked.filtered.then_some(0));
    let died = prctl(PR_SET_PDEATHSIG, 9);
    need("PDEATHSIG", died.filter(|at| Some(*at) > done.last(libc::SYS_setresuid, |_| true)));
    let mask = u64::from(done.spec.umask.unwrap_or(0o022));
    need(
        "the umask",
        done.last(libc::SYS_umask, |_| true).filter(|at| done.kernel.events[*at].args[0] == mask),
    );
    let forked = done.last(libc::SYS_clone, |_| true);
    need("init", forked.or((!done.spec.init).then_some(0)));
    need("a session", done.last(libc::SYS_setsid, |_| true).or(done.spec.shares_session.then_some(0)));
    let signals = (1..=64).filter(|signal| ![9, 19].contains(signal));
    for signal in signals {
        need("a signal's default", done.last(libc::SYS_rt_sigaction, |event| event.args[0] == signal));
    }
    if done.spec.host.features().contains(Features::KEYCTL) {
        need("a keyring", done.last(libc::SYS_keyctl, |event| event.args[0] == 1));
    }
    if set.contains(Namespaces::NET) {
        need("the loopback", done.last(libc::SYS_ioctl, |event| event.args[1] == SIOCSIFFLAGS));
    }
    if set.contains(Namespaces::USER) {
        need("the end of user namespaces", wrote(done, "/proc/sys/user/max_user_namespaces=0"));
    }
    if set.contains(Namespaces::UTS) {
        let name = done.spec.hostname.as_deref().unwrap_or("sandbox");
        need("the host name", done.last(libc::SYS_sethostname, |event| event.text == name));
    } else if done.spec.hostname.is_some() {
        broken.push("a host name without a namespace".to_owned());
    }
    limits(done, broken);
    capabilities(done, broken);
}

fn wrote(done: &Done<'_>, text: &str) -> Option<usize> {
    done.last(libc::SYS_write, |event| event.text == text)
}

fn limits(done: &Done<'_>, broken: &mut Vec<String>) {
    for (number, value) in &done.spec.limits {
        let words = |event: &Event| [0, 8].map(|at| done.kernel.word_at(event.args[2] + at));
        let is = |event: &Event| event.args[1] == u64::from(*number) && words(event) == [*value; 2];
        let set = done.last(libc::SYS_prlimit64, is).is_some();
        if !set && !done.linked.limits.contains(number) {
            broken.push(format!("limit {number} is not set to {value}"));
        }
    }
    if let Some(nice) = done.spec.nice {
        let value = i64::from(nice).cast_unsigned();
        let set = done.last(libc::SYS_setpriority, |event| event.args[2] == value).is_some();
        if !set && done.linked.nice != Some(nice) {
            broken.push(format!("nice {nice} is not set"));
        }
    }
    let Some(offsets) = done.spec.offsets else { return };
    if done.plan.namespaces().contains(Namespaces::TIME) {
        let text = format!(
            "/proc/self/timens_offsets=monotonic {} 0\nboottime {} 0\n",
            offsets.monotonic, offsets.boottime
        );
        let made = done.last(libc::SYS_unshare, |event| event.args[0] == 0x80);
        if made.is_none() || wrote(done, &text) < made {
            broken.push("the clocks' offsets are not set".to_owned());
        }
    } else {
        broken.push("offsets without a time namespace".to_owned());
    }
}

fn capabilities(done: &Done<'_>, broken: &mut Vec<String>) {
    let keep = done.spec.keep;
    let low = |word: u64| word & 0xffff_ffff;
    let sets = |event: &Event| {
        let [a, b, c] = [0, 8, 16].map(|at| done.kernel.word_at(event.args[1] + at));
        [low(a) | b >> 32 << 32, a >> 32 | low(c) << 32, low(b) | c >> 32 << 32]
    };
    // Behind the last one comes init's own half only, which this run does not take.
    let last = done.last(libc::SYS_capset, |_| true).map(|at| &done.kernel.events[at]);
    if last.map(sets) != Some([keep; 3]) {
        broken.push(format!("the last capset is {:x?}, wanted {keep:#x}", last.map(sets)));
    }
    let raised = |number: &u64| {
        let one = [PR_CAP_AMBIENT, 2, *number];
        done.last(libc::SYS_prctl, |event| event.args[..3] == one).is_some()
    };
    if (0..64).any(|number| raised(&number) != (keep >> number & 1 == 1)) {
        broken.push("the ambient set is not what is kept".to_owned());
    }
    let bounds = done.plan.namespaces().contains(Namespaces::USER)
        || done.spec.host.capabilities().is_some_and(|sets| sets.has_effective(CAP_SETPCAP));
    if !bounds {
        return;
    }
    let prctl = |option: u64, value: u64| {
        done.last(libc::SYS_prctl, |event| event.args[0] == option && event.args[1] == value).is_some()
    };
    if !prctl(PR_SET_SECUREBITS, LOCKED) {
        broken.push("the securebits are not locked".to_owned());
    }
    let known = u64::from(done.spec.host.last_capability().min(63));
    let wrong = (0..=known).find(|number| prctl(PR_CAPBSET_DROP, *number) == (keep >> number & 1 == 1));
    broken.extend(wrong.map(|number| format!("capability {number} of the bounding set")));
}
