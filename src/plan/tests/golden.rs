//! Golden dry runs: what a plan, a tail and a window print, compared with files. `RINGFENCE_BLESS=1` writes the files anew.

use std::collections::BTreeSet;
use std::env;
use std::ffi::CString;
use std::fmt;
use std::fmt::Display;
use std::fmt::Formatter;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::super::Arrival;
use super::super::Attach;
use super::super::CloseRange;
use super::super::ClosureTail;
use super::super::Code;
use super::super::Controlling;
use super::super::ForkInput;
use super::super::LookedInto;
use super::super::Program;
use super::super::TailInput;
use super::super::Then;
use super::super::WindowInput;
use super::super::compile;
use super::super::tail;
use super::super::window;
use super::super::write_ops;
use super::cgroup;
use super::hosts;
use super::joining;
use super::policies;
use crate::host::Host;
use crate::plan::{Listing, Stream};
use crate::policy::Action;
use crate::policy::Builder;
use crate::policy::Filter;
use crate::policy::Namespaces;
use crate::sys::CloneHow;

/// Code that prints like a plan.
struct Shown<'a>(&'a Code);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_ops(f, self.0)
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The number of an open descriptor is not the same on every run.
fn without_descriptors(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split("descriptor ").enumerate() {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if index > 0 {
            out.push_str("descriptor ");
            out.push_str(if digits > 0 { "N" } else { "" });
        }
        out.push_str(if index > 0 { &part[digits..] } else { part });
    }
    out
}

/// Every golden file with what stands in it if nothing has changed.
fn all() -> Vec<(String, String)> {
    let mut list = Vec::new();
    for case in hosts::all() {
        for named in policies::ALL {
            let text = match named.with_set(case.set) {
                Ok(policy) => {
                    let set = policy.namespaces().sets[0];
                    compile(&policy, &case.host, set)
                        .map_or_else(|e| format!("{e:#}\n"), |plan| plan.to_string())
                }
                Err(error) => format!("{error:#}\n"),
            };
            list.push((format!("{}_runs_{}", case.name, named.name), without_descriptors(&text)));
        }
    }
    list.extend(commands());
    list.extend(cgroup::goldens());
    list.extend(joining::goldens().into_iter().map(|(name, text)| (name, without_descriptors(&text))));
    list
}

/// The tail of a command whose filter is this one, on a host that can supervise.
fn shown_filter(program: &Program, filter: Filter) -> String {
    let policy = Builder::default().seccomp(filter).policy().expect("a policy");
    let plan = compile(&policy, &Host::ideal(), Namespaces::STANDARD).expect("a plan");
    shown_with(program, &[], (CloseRange::Here, Arrival::Window), plan.filter.as_ref())
}

fn shown_tail(program: &Program, targets: &[i32], close_range: CloseRange) -> String {
    shown_with(program, targets, (close_range, Arrival::Window), None)
}

/// The tail of a command that a waiting child is told.
fn shown_late(program: &Program, targets: &[i32]) -> String {
    shown_with(program, targets, (CloseRange::Here, Arrival::Messages), None)
}

fn shown_with(
    program: &Program,
    targets: &[i32],
    (close_range, arrival): (CloseRange, Arrival),
    filter: Option<&Attach>,
) -> String {
    let cwd = CString::new("/work").expect("no NUL");
    let input = TailInput {
        program,
        name: "a program".into(),
        cwd: &cwd,
        targets,
        passed_at: 8,
        close_range,
        limits: &[],
        filter,
        terminal: Controlling::No,
        arrival,
        streams: [Stream::Given; 3],
        listing: Listing::Kept,
    };
    Shown(&tail(&input).0).to_string()
}

fn shown_window(close_range: CloseRange, then: Then) -> String {
    let place = [(10, 0), (11, 1), (12, 2), (20, 3), (21, 4), (22, 5)];
    Shown(&window(&WindowInput { place: &place, free: 8, close_range, then, listing: Listing::Kept }))
        .to_string()
}

fn closure(filter: Option<Vec<u64>>) -> Program {
    let looked_into = if filter.is_some() { LookedInto::AsUsual } else { LookedInto::Never };
    Program::Closure(ClosureTail { brief: (0x5000, 4096), filter, looked_into })
}

fn fork(how: CloneHow) -> Then {
    Then::Fork { entry: 0x4000, fork: ForkInput { how, flags: 0x7e02_0000, report: 12 } }
}

fn notifying() -> Filter {
    Filter::baseline().forget(["getpgid"]).deny(["getpgid"], Action::Notify)
}

fn commands() -> Vec<(String, String)> {
    let paths = ["/usr/bin/true", "/bin/true"].map(|path| CString::new(path).expect("no NUL"));
    let (paths, here, later) = (Program::Paths(paths.to_vec()), CloseRange::Here, CloseRange::Later);
    let image = Then::Image { fd: 30, carried: 0b101, argv: 0x1000, envp: 0x2000 };
    let list = [
        ("a_command_is_looked_up_in_two_places", shown_tail(&paths, &[], here)),
        ("a_command_gets_descriptors_3_and_9", shown_tail(&paths, &[9, 3], here)),
        ("a_command_is_an_open_file", shown_tail(&Program::Fd, &[4], here)),
        ("a_waiting_child_is_told_a_command", shown_late(&paths, &[])),
        ("a_waiting_child_is_told_an_open_file_and_descriptors", shown_late(&Program::Fd, &[9, 3])),
        ("a_command_runs_without_close_range", shown_tail(&paths, &[9], later)),
        ("a_command_has_a_filter", shown_filter(&paths, Filter::baseline())),
        ("a_command_has_a_filter_whose_kills_are_told", shown_filter(&paths, Filter::strict())),
        ("a_command_has_a_filter_that_notifies", shown_filter(&Program::Fd, notifying())),
        ("a_window_executes_an_image", shown_window(here, image)),
        ("a_window_executes_an_image_without_close_range", shown_window(later, image)),
        ("a_closure_has_a_filter_and_a_descriptor", shown_tail(&closure(Some(vec![6])), &[3], here)),
        ("a_closure_has_no_filter", shown_tail(&closure(None), &[], later)),
        ("a_window_goes_on_in_a_child_of_a_copy", shown_window(here, fork(CloneHow::Clone3Into(9)))),
        ("a_window_goes_on_in_a_child_of_a_copy_by_clone", shown_window(here, fork(CloneHow::Clone))),
        ("a_window_goes_on_in_a_copy", shown_window(here, Then::Copy { entry: 0x4000 })),
    ];
    list.map(|(name, text)| (name.to_owned(), text)).to_vec()
}

/// The first line that differs.
fn difference(name: &str, wanted: &str, seen: &str) -> String {
    let line = wanted.lines().zip(seen.lines()).take_while(|(a, b)| a == b).count();
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    format!("{name}, line {}:\n  golden {}\n  now    {}", line + 1, at(wanted), at(seen))
}

#[test]
fn dry_runs_are_as_they_were() {
    let bless = env::var_os("RINGFENCE_BLESS").is_some();
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for (name, seen) in all() {
        let file = directory().join(format!("{name}.txt"));
        names.insert(file.clone());
        if bless {
            fs::write(&file, &seen).expect("the golden can be written");
        }
        match fs::read_to_string(&file) {
            Ok(wanted) if wanted == seen => {}
            Ok(wanted) => faults.push(difference(&name, &wanted, &seen)),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    for entry in fs::read_dir(directory()).expect("the goldens are there") {
        let path = entry.expect("an entry can be read").path();
        if !names.contains(&path) {
            faults.push(format!("{}: no test makes it", path.display()));
        }
    }
    let help = "RINGFENCE_BLESS=1 cargo test --lib dry_runs writes them anew; read the difference first";
    assert!(faults.is_empty(), "{}\n{help}", faults.join("\n"));
}

#[test]
fn equal_input_gives_an_equal_plan() {
    for case in hosts::all() {
        for named in policies::ALL {
            let Ok(policy) = named.with_set(case.set) else { continue };
            let set = policy.namespaces().sets[0];
            let (one, other) =
                (compile(&policy, &case.host, set), compile(&policy.clone(), &case.host.clone(), set));
            match (one, other) {
                (Ok(one), Ok(other)) => assert_eq!(one, other, "{} {}", case.name, named.name),
                (Err(one), Err(other)) => assert_eq!(format!("{one:#}"), format!("{other:#}")),
                _ => panic!("{} {}: once a plan, once an error", case.name, named.name),
            }
        }
    }
}

#[test]
fn most_goldens_are_plans_and_not_errors() {
    let plans = all().iter().filter(|(_, text)| text.starts_with("# namespaces")).count();
    assert!(plans >= 65, "{plans}");
}
