//! Policies and hosts made of bytes, compiled, run against an imagined kernel, and looked at: what a required item asked for
//! has to be there wherever a run reaches its end. Shared by a test and by the fuzz targets; it knows nothing of the compiler.
#![expect(clippy::wildcard_enum_match_arm, reason = "what is not looked for is nothing to this")]

#[path = "oracle/dice.rs"]
pub(crate) mod dice;
#[path = "oracle/kernel.rs"]
mod kernel;
#[path = "oracle/mistakes.rs"]
mod mistakes;
#[path = "oracle/process.rs"]
mod process;
#[path = "oracle/rules.rs"]
mod rules;
#[path = "oracle/spec.rs"]
pub(crate) mod spec;
#[path = "oracle/tree.rs"]
mod tree;

use ringfence::internals::{End, Found, Linked, Model, Optional};
use ringfence::{Namespaces, Plan, Policy, Sandbox};

use dice::Dice;
use kernel::{IDENTITY, Kernel};
use spec::{About, Spec};
use tree::{Ground, Tree};

const STEPS: usize = 20_000;

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Policies with a mistake.
    pub(crate) mistaken: usize,
    /// Policies that the host cannot have.
    pub(crate) refused: usize,
    pub(crate) plans: usize,
    /// Runs that reached their end, without and with a failure.
    pub(crate) ended: usize,
    pub(crate) ended_all_the_same: usize,
}

/// The names on a path, as the kernel walks them.
pub(crate) fn names(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}

/// Makes a policy and a host of `bytes` and looks at every plan.
///
/// # Panics
/// Where anything that has to hold does not.
pub(crate) fn examine(bytes: &[u8], about: About) -> Seen {
    let mut dice = Dice::new(bytes);
    let spec = Spec::read(&mut dice, about);
    let mut seen = Seen::default();
    let policy = match spec.builder.policy() {
        Ok(policy) => policy,
        Err(error) => {
            mistakes::are_real(&spec, &error, about);
            seen.mistaken += 1;
            return seen;
        }
    };
    mistakes::are_none(&spec, &policy);
    let text = |sandbox: &Sandbox| sandbox.plans().map(ToString::to_string).collect::<Vec<_>>();
    let make = || Sandbox::new(policy.clone(), spec.host.clone());
    match (make(), make()) {
        (Ok(one), Ok(other)) => {
            assert!(one.plans().eq(other.plans()), "equal input gives an equal plan");
            assert_eq!(text(&one), text(&other));
            for plan in one.plans() {
                seen.plans += 1;
                look(&spec, &policy, plan, &mut seen);
            }
        }
        (Err(one), Err(other)) => {
            assert_eq!(format!("{one:#}"), format!("{other:#}"));
            seen.refused += 1;
        }
        _ => panic!("once a plan, once an error: {spec:?}"),
    }
    seen
}

fn look(spec: &Spec, policy: &Policy, plan: &Plan, seen: &mut Seen) {
    let mut linked = Linked::new(plan);
    let found = sources(spec, policy, plan, &mut linked);
    let tell = |broken: &[String], faults: &[(usize, i32)]| {
        assert!(broken.is_empty(), "{broken:#?}\nfaults {faults:?}\n{:#?}\n{plan}", spec.items);
    };
    let (kernel, end) = run(spec, &linked, &[]);
    let done = rules::Done { spec, policy, plan, linked: &linked, kernel: &kernel, found: &found };
    match end {
        End::Returned(Linked::TAIL) => {
            seen.ended += 1;
            tell(&done.broken(), &[]);
        }
        End::GaveUp => tell(&done.not_refused(), &[]),
        other => tell(&[format!("the run ends in {other:?}")], &[]),
    }
    let made = kernel.events.len().max(1);
    let faults: Vec<_> = spec.faults.iter().map(|(at, errno)| (usize::from(*at) % made, *errno)).collect();
    // Each alone, then all of them in one run.
    for faults in faults.chunks(1).chain((faults.len() > 1).then_some(&faults[..])) {
        let (kernel, end) = run(spec, &linked, faults);
        let done = rules::Done { kernel: &kernel, ..done };
        match end {
            End::Returned(Linked::TAIL) => {
                seen.ended_all_the_same += usize::from(kernel.hit > 0);
                tell(&done.broken(), faults);
            }
            End::GaveUp => tell(&kernel.wrong, faults),
            other => tell(&[format!("the run ends in {other:?}")], faults),
        }
    }
}

fn run(spec: &Spec, linked: &Linked, faults: &[(usize, i32)]) -> (Kernel, End) {
    let mode = if spec.found.first().is_some_and(|byte| byte & 1 == 1) { 0o100_644 } else { 0o040_755 };
    let ground = if spec.empty_root { Ground::Empty } else { Ground::Host };
    let mut kernel = Kernel::new(linked, Tree::new(ground), mode);
    kernel.faults = faults.iter().copied().collect();
    let end = Model::new(&mut kernel, linked.entry, linked.progress).run(STEPS);
    (kernel, end)
}

/// Decides what the caller found, and says for each item of the tree what was found at its source.
fn sources(spec: &Spec, policy: &Policy, plan: &Plan, linked: &mut Linked) -> Vec<Option<Found>> {
    if !plan.namespaces().contains(Namespaces::MOUNT) {
        return Vec::new();
    }
    let owners = rules::owners(spec, policy);
    assert_eq!(owners.len(), linked.sources.len(), "every source has its item, and every item its sources");
    let mut found = vec![None; policy.mounts().len()];
    for (index, owner) in owners.iter().enumerate() {
        let byte = spec.found.get(index % spec.found.len().max(1)).copied().unwrap_or(0);
        let may_link = owner.is_some_and(|item| rules::own_ground(spec, policy, item));
        let what = match (linked.sources[index].optional, byte % 5) {
            (Optional::Absent | Optional::AbsentOrSymlink, 3) => Found::Absent,
            (Optional::AbsentOrSymlink, 4) if may_link => Found::Symlink,
            (_, 0 | 2) => Found::Directory,
            _ => Found::File,
        };
        linked.find(index, what, IDENTITY);
        if let Some(item) = owner {
            found[*item] = Some(what);
        }
    }
    found
}
