//! Capabilities: first the bounding set, while CAP_SETPCAP is there, then the other four, and the securebits locked.

use super::asm::{Call, num, sym};
use super::context::{Context, u64_of};
use super::facts;
use crate::error::Step;
use crate::policy::{Capability, Namespaces};

/// NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set, KEEP_CAPS not, all four locked (capabilities(7), securebits.h).
pub(crate) const SECUREBITS_LOCKED: u64 = 0b1110_1111;
const LINUX_CAPABILITY_VERSION_3: u64 = 0x2008_0522;

pub(crate) fn name(number: u32) -> String {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    Capability::ALL.get(index).map_or_else(|| format!("capability {number}"), |known| known.name().to_owned())
}

/// Whether the child can change its bounding set: in a user namespace of its own always, else as the caller can.
pub(super) fn can_bound(context: &Context<'_>) -> bool {
    context.in_set(Namespaces::USER) || facts::has_capability(context.host, Capability::Setpcap as u32)
}

/// Drops every capability that is not kept from the bounding set, those that this crate has no name for too.
pub(super) fn bounding(context: &mut Context<'_>) {
    if !can_bound(context) {
        let note = "the bounding set and the securebits are the caller's: changing them needs CAP_SETPCAP";
        context.notes.push(note.into());
        return;
    }
    let keep = context.policy.capabilities.bits();
    for number in 0..=context.host.last_capability().min(63) {
        if keep >> number & 1 == 1 {
            continue;
        }
        context.asm.step(Step::Bounding, name(number));
        let option = sym(u64_of(libc::PR_CAPBSET_DROP), "PR_CAPBSET_DROP");
        let call = Call::new(libc::SYS_prctl, "prctl").arg(option).arg(sym(u64::from(number), name(number)));
        context.asm.call(call.arg(num(0)).arg(num(0)).arg(num(0)));
    }
}

fn capset(context: &mut Context<'_>, [effective, permitted, inheritable]: [u64; 3]) {
    let header = context.asm.words(&[LINUX_CAPABILITY_VERSION_3], "{_LINUX_CAPABILITY_VERSION_3, 0}");
    let half = |set: u64, high: u32| set >> (32 * high) & 0xffff_ffff;
    let words =
        [0, 1].map(|high| [half(effective, high) | half(permitted, high) << 32, half(inheritable, high)]);
    // struct __user_cap_data_struct twice: effective, permitted, inheritable of 32 bits each, low halves first.
    let [[low, low_inheritable], [high, high_inheritable]] = words;
    let data = [low, low_inheritable | (high & 0xffff_ffff) << 32, high >> 32 | high_inheritable << 32];
    let text =
        format!("{{effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}}}");
    let data = context.asm.words(&data, text);
    context.asm.call(Call::new(libc::SYS_capset, "capset").arg(header).arg(data));
}

fn ambient(context: &mut Context<'_>, what: (i32, &'static str), number: u64) {
    let option = sym(u64_of(libc::PR_CAP_AMBIENT), "PR_CAP_AMBIENT");
    let call = Call::new(libc::SYS_prctl, "prctl").arg(option).arg(sym(u64_of(what.0), what.1));
    context.asm.call(call.arg(sym(number, number.to_string())).arg(num(0)).arg(num(0)));
}

/// The other four sets hold what is kept, and nothing more.
pub(super) fn rest(context: &mut Context<'_>) {
    let keep = context.policy.capabilities.bits();
    context.asm.step(Step::Capabilities, "ambient set");
    ambient(context, (libc::PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL"), 0);
    if keep != 0 {
        context.asm.step(Step::Capabilities, context.policy.capabilities.to_string());
        // Still with everything permitted, so that CAP_SETPCAP is there for the securebits below.
        let all = all(context);
        capset(context, [all, all, keep]);
        for number in (0..64).filter(|number| keep >> number & 1 == 1) {
            ambient(context, (libc::PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"), number);
        }
    }
    if can_bound(context) {
        context.asm.step(Step::Bounding, "securebits");
        let option = sym(u64_of(libc::PR_SET_SECUREBITS), "PR_SET_SECUREBITS");
        let bits = sym(SECUREBITS_LOCKED, "NOROOT|NO_SETUID_FIXUP|NO_CAP_AMBIENT_RAISE, locked");
        context.asm.call(Call::new(libc::SYS_prctl, "prctl").arg(option).arg(bits));
    }
    context.asm.step(Step::Capabilities, context.policy.capabilities.to_string());
    capset(context, [keep, keep, keep]);
}

/// What the child carries over into the image. One that joins a living sandbox has what the caller has until it is there.
pub(super) fn carried(context: &Context<'_>) -> u64 {
    if context.joins() { facts::permitted(context.host) } else { all(context) }
}

/// What the set-up itself holds: everything in a user namespace of its own, else what the caller holds.
pub(super) fn all(context: &Context<'_>) -> u64 {
    if context.in_set(Namespaces::USER) {
        u64::MAX >> (63 - context.host.last_capability().min(63))
    } else {
        facts::permitted(context.host)
    }
}

/// Init keeps none of what the program keeps.
pub(super) fn none(context: &mut Context<'_>) {
    context.asm.step(Step::Init, "capabilities");
    if !context.policy.capabilities.is_empty() {
        ambient(context, (libc::PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL"), 0);
        capset(context, [0, 0, 0]);
    }
}
