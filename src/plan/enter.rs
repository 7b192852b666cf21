//! THE ORDER of a command that joins a living sandbox, beside that of `compile.rs`. Whatever runs inside already may be
//! hostile: it must find nothing of the host in this process, nor a moment in which it can look for it.

use super::compile::{finish, name, ready, shared, start};
use super::context::Context;
use super::join::{self, Entry, JoinPlan};
use super::{Plan, capability, gate, identity, init, landlock, process, seccomp};
use crate::error::{Result, Step};
use crate::host::Host;
use crate::machine::wire::Message;
use crate::policy::{Namespaces, Policy};

/// The plan of another command in a sandbox that `policy` made on `host` with this namespace set.
pub(crate) fn enter(policy: &Policy, host: &Host, set: Namespaces) -> Result<Plan> {
    let ids = identity::plan(policy, host, set)?;
    let mut context = Context::new(policy, host, set);
    let context = &mut context;
    context.entry = Entry::Living(JoinPlan::default());
    let copy_entry = start(context);
    name(context);
    // In the host's /proc, while it is there and the file is this process's own.
    process::oom_score(context);
    // Before it is in a group or a namespace of the sandbox.
    join::untraceable(context);
    // Alone in memory of its own, so that a frozen group holds nobody else; the caller waits with a deadline.
    context.asm.step(Step::Gate, "groups");
    gate::wait_for(&mut context.asm, Message::Go);
    // All at once, and what was needed for it is closed: this process is not in the pid namespace, so nobody inside sees it.
    let mut plan = join::namespaces(context);
    // The ids of the sandbox, with every capability over it; without a user namespace the limits still need the old ones.
    if set.contains(Namespaces::USER) {
        identity::take(context, &ids);
    }
    process::tether(context);
    process::session(context);
    shared(context);
    // From here on as in `compile.rs`, and for the same reasons.
    process::limits(context);
    capability::bounding(context);
    if !set.contains(Namespaces::USER) {
        identity::take(context, &ids);
    }
    capability::rest(context);
    process::no_new_privs(context);
    // The paths are those inside, and the program may have moved them: each rule is for what the first one was made for.
    plan.rules = landlock::domain(context)?;
    process::tether(context);
    process::signals(context);
    // Only what is forked is inside, confined as the program will be. Who waits for it stays outside and is out of reach.
    init::split(context)?;
    let filter = seccomp::lower(context)?;
    seccomp::attach_to_waiting(context, filter.as_ref());
    ready(context);
    context.entry = Entry::Living(plan);
    Ok(finish(context, ids, copy_entry, filter))
}
