//! Mistakes that were found in plans, each with the policy that showed it.

use std::path::Path;

use super::super::Plan;
use super::super::compile;
use crate::error::Result;
use crate::host::Host;
use crate::policy::Access;
use crate::policy::Builder;
use crate::policy::Mount;
use crate::policy::Namespaces;
use crate::policy::Tmpfs;

fn plan(builder: &Builder, host: &Host) -> Result<Plan> {
    compile(&builder.policy()?, host, Namespaces::STANDARD)
}

/// A path that a call takes from the new root, if it creates or opens something there and follows symlinks on the way.
fn path_from_root(line: &str) -> Option<&str> {
    let call = line.trim_start().split_once("  ")?.1;
    let follows = ["mkdirat($root, ", "mknodat($root, ", "openat($root, "];
    let rest = follows.iter().find_map(|start| call.strip_prefix(start));
    let link = || call.strip_prefix("symlinkat(")?.split_once(", $root, ").map(|(_, rest)| rest);
    rest.or_else(link)?.strip_prefix('"')?.split('"').next()
}

#[test]
fn nothing_is_made_by_a_path_through_a_tree_of_the_host() {
    let builder = Builder::default()
        .bind("/home/me/src", "/src", Access::ReadWrite)
        .tmpfs("/tmp", 1 << 20)
        .mount(Mount::tmpfs("/src/out", Tmpfs::default()))
        .file("/src/out/file", "text")
        .directory("/src/out/directory")
        .symlink("to", "/src/out/link")
        .mount(Mount::bind("/opt", "/src/out/opt"));
    for host in [Host::ideal(), Host::ideal().with_root()] {
        // To refuse the policy is an answer too.
        let Ok(plan) = plan(&builder, &host) else { continue };
        let text = plan.to_string();
        let through = |path: &&str| Path::new(path).starts_with("src") && *path != "src";
        let wrong: Vec<&str> = text.lines().filter_map(path_from_root).filter(through).collect();
        assert!(wrong.is_empty(), "a symlink planted in /home/me/src leads these outside: {wrong:?}");
    }
}

#[test]
fn a_covered_directory_is_made_again() {
    let builder = Builder::default()
        .file("/a/b/c", "first")
        .mount(Mount::tmpfs("/a", Tmpfs::default()).over())
        .file("/a/b/d", "second");
    let plan = plan(&builder, &Host::ideal()).expect("a plan");
    let made = plan.code.ops.iter().filter(|op| op.name == "mkdirat" && op.text.contains("\"a/b\"")).count();
    assert_eq!(made, 2, "once below each of the two file systems");
}

#[test]
fn a_kernel_with_more_capabilities_than_a_mask_has_bits_is_no_reason_to_panic() {
    for last in [40, 62, 63, 64, 100] {
        let host = Host::ideal().with_last_capability(last).with_root();
        assert!(plan(&Builder::default(), &host).is_ok(), "{last}");
    }
}
