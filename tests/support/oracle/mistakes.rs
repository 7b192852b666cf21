//! When a mount tree is mistaken, said once more: a policy is refused exactly where that is so, and each mistake is about
//! something that was asked for.

use std::path::Path;

use ringfence::{Error, ErrorKind, Mistake, MountKind, Policy};

use super::names;
use super::spec::{About, Item, Spec};

fn is_directory(item: &Item) -> bool {
    matches!(item.mount.kind(), MountKind::Directory(_))
}

/// Why a path cannot be a target.
fn bad_target(text: &str) -> bool {
    let list: Vec<&str> = text.split('/').collect();
    !text.starts_with('/')
        || text.contains('\0')
        || list.contains(&"..")
        || list.iter().any(|name| name.len() > 255)
        || names(text).is_empty()
}

fn bad_source(text: &str) -> bool {
    !text.starts_with('/') || text.contains('\0') || text.split('/').any(|name| name.len() > 255)
}

fn mistaken_alone(item: &Item) -> bool {
    bad_target(&item.target)
        || match item.mount.kind() {
            MountKind::Bind(bind) => bad_source(&super::spec::source_name(&bind.source)),
            MountKind::Symlink(to) => to.as_os_str().is_empty() || to.to_string_lossy().contains('\0'),
            MountKind::Proc(proc) => proc.ladder.is_empty(),
            _ => false,
        }
}

/// Whether a later item replaces or buries an earlier one without saying so.
fn mistaken_beside(item: &Item, earlier: &Item) -> bool {
    if item.over {
        return false;
    }
    let (own, other) = (names(&item.target), names(&earlier.target));
    if own == other {
        return !is_directory(item) && !is_directory(earlier);
    }
    other.starts_with(&own) && !is_directory(item)
}

fn mistaken(items: &[Item]) -> bool {
    items.iter().enumerate().any(|(index, item)| {
        mistaken_alone(item)
            || !bad_target(&item.target)
                && items[..index].iter().any(|earlier| mistaken_beside(item, earlier))
    })
}

/// The policy was refused: for one of its items, if it has nothing else.
pub(super) fn are_real(spec: &Spec, error: &Error, about: About) {
    assert_eq!(error.kind(), ErrorKind::InvalidPolicy);
    assert!(!error.mistakes().is_empty() && !format!("{error:#}").is_empty());
    if about == About::Mounts {
        assert!(mistaken(&spec.items), "refused without a mistake: {error:#}\n{:#?}", spec.items);
    }
    let asked = |path: &Path| {
        spec.items.iter().any(|item| {
            let source = match item.mount.kind() {
                MountKind::Bind(bind) => super::spec::source_name(&bind.source),
                MountKind::Symlink(to) => to.display().to_string(),
                _ => String::new(),
            };
            path == item.mount.target() || path.display().to_string() == source
        })
    };
    for mistake in error.mistakes() {
        if let Mistake::BadPath { path, .. } | Mistake::EmptyProcLadder { target: path } = mistake {
            assert!(asked(path), "{mistake} is about nothing that was asked for");
        }
    }
}

/// The policy was accepted: no item is mistaken, and each stands in its place.
pub(super) fn are_none(spec: &Spec, policy: &Policy) {
    assert!(!mistaken(&spec.items), "accepted with a mistake: {:#?}", spec.items);
    let own = &policy.mounts()[policy.mounts().len() - spec.items.len()..];
    assert!(own.iter().eq(spec.items.iter().map(|item| &item.mount)), "the user's order");
}
