//! Tells a person what this machine can do, and why not. It must not know a cause that a run-time error would not name:
//! both ask `diagnose`.

use std::fmt::Display;
use std::fmt::Formatter;
use std::fmt::Result as FmtResult;

use nix::errno::Errno;

use crate::sys::try_clone_namespaces;

use super::Host;
use super::answer::Answer;
use super::cause::diagnose;
use super::cause::of_step;
use super::cause::without_features;
use super::features::Features;
use super::features::NAMES;
use super::mountinfo::MountFlags;
use super::namespace;
use super::proc_view::ProcView;
use super::refusal::Refusal;
use super::refusal::RefusedStep;
use super::refusal::Within;
use super::status::SeccompMode;
use crate::error::Cause;

/// CAP_SYS_ADMIN.
const SYS_ADMIN: u32 = 21;

/// One thing that a sandbox may want, and whether this machine lets the caller have it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// Whether it can be had.
    pub available: Answer,
    /// What goes with the answer, such as the errno.
    pub detail: Option<String>,
    /// Why not, the most likely first.
    pub causes: Vec<Cause>,
}

/// What [`doctor`] found. Its `Display` is the report for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    host: Host,
    findings: Vec<Finding>,
}

/// Looks at this machine and tries to make each kind of namespace, with and without a user namespace, in children that
/// end at once.
#[must_use]
pub fn doctor() -> Diagnosis {
    Diagnosis::of(Host::probe(), try_clone_namespaces)
}

impl Diagnosis {
    /// Examines a host, one made by hand too. `attempt` makes a short-lived child in new namespaces of the kinds given
    /// as CLONE_NEW* bits and returns the errno if the kernel refuses.
    #[must_use]
    pub fn of(host: Host, attempt: impl FnMut(u64) -> Result<(), i32>) -> Self {
        let mut findings = namespaces(&host, attempt);
        // What is done in a user namespace needs one.
        if findings.first().is_some_and(|user| user.available == Answer::Yes) {
            findings.extend([rights(&host), id_range(&host), fresh_proc(&host)]);
        }
        findings.push(image(&host));
        findings.push(landlock(&host));
        findings.extend(NAMES.iter().map(|(feature, name, _)| call(&host, *feature, name)));
        Self { host, findings }
    }

    /// The host that was examined.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What was found, one item for each thing.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl Finding {
    fn new(subject: impl Into<String>, available: Answer) -> Self {
        Self { subject: subject.into(), available, detail: None, causes: Vec::new() }
    }

    fn because(mut self, causes: Vec<Cause>) -> Self {
        self.causes = causes;
        self
    }

    fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

fn namespaces(host: &Host, mut attempt: impl FnMut(u64) -> Result<(), i32>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut try_one = |subject: String, flags: u64| {
        let outcome = attempt(flags);
        findings.push(tried(host, subject, flags, outcome));
        outcome.is_ok()
    };
    // Where the user namespace is refused the others fail with it, for the same cause.
    if try_one("user namespace".to_owned(), namespace::NEWUSER) {
        for kind in namespace::KINDS.iter().filter(|kind| kind.flag != namespace::NEWUSER) {
            try_one(format!("user and {} namespace", kind.name), namespace::NEWUSER | kind.flag);
        }
    }
    if holds_sys_admin(host) {
        let others = host.namespace_flags() & !namespace::NEWUSER;
        try_one("all other namespaces without a user namespace".to_owned(), others);
    }
    findings
}

fn tried(host: &Host, subject: String, flags: u64, outcome: Result<(), i32>) -> Finding {
    let Err(errno) = outcome else { return Finding::new(subject, Answer::Yes) };
    let fresh = flags & namespace::NEWUSER != 0;
    let within = if fresh { Within::FreshUserNamespace } else { Within::CallersUserNamespace };
    let refusal = Refusal { step: RefusedStep::Clone { namespaces: flags }, errno, within };
    Finding::new(subject, Answer::No).with_detail(described(errno)).because(diagnose(host, &refusal))
}

/// What would be refused with this errno in a user namespace of its own, by the facts alone.
fn expected(host: &Host, step: RefusedStep, errno: i32) -> Vec<Cause> {
    of_step(host, &Refusal { step, errno, within: Within::FreshUserNamespace })
}

/// On Ubuntu the user namespace is made and then useless; whether the caller's profile lifts that is known only by
/// trying, unless it has none.
fn rights(host: &Host) -> Finding {
    let of_errno = |errno| expected(host, RefusedStep::IdMap, errno);
    let causes = [of_errno(libc::EPERM), of_errno(libc::EROFS)].concat();
    let label = host.security().apparmor_label.as_deref();
    let unprofiled =
        label.is_none_or(|label| ["unconfined", "unprivileged_userns"].iter().any(|l| label.starts_with(l)));
    let available = match causes.first() {
        None => Answer::Yes,
        Some(Cause::AppArmorRestriction { .. }) if !unprofiled => Answer::Unknown,
        Some(_) => Answer::No,
    };
    Finding::new("id maps and mounts in a user namespace", available).because(causes)
}

fn id_range(host: &Host) -> Finding {
    let subject = "a range of ids in a user namespace";
    let causes = expected(host, RefusedStep::IdRange, libc::EPERM);
    match (causes.is_empty(), &host.subordinate().service) {
        (false, _) => Finding::new(subject, Answer::No).because(causes),
        (true, None) => Finding::new(subject, Answer::Yes),
        (true, Some(service)) => {
            Finding::new(subject, Answer::Unknown).with_detail(format!("the ranges are kept by {service}"))
        }
    }
}

fn fresh_proc(host: &Host) -> Finding {
    let subject = "a fresh /proc in a user and pid namespace";
    match host.proc_view() {
        ProcView::Full(flags) if flags.contains(MountFlags::READ_ONLY) => {
            Finding::new(subject, Answer::Yes).with_detail("only read-only, as the one that is there")
        }
        ProcView::Full(_) => Finding::new(subject, Answer::Yes),
        ProcView::Unknown | ProcView::Absent | ProcView::Masked(_) => {
            Finding::new(subject, Answer::No).because(expected(host, RefusedStep::ProcMount, libc::EPERM))
        }
    }
}

fn image(host: &Host) -> Finding {
    let subject = "set-up from a memfd, outside the caller's memory";
    if host.features().contains(Features::EXECUTABLE_MEMFD | Features::EXECVEAT) {
        return Finding::new(subject, Answer::Yes);
    }
    let absent = (Features::EXECUTABLE_MEMFD | Features::EXECVEAT).difference(host.features());
    let causes = without_features(host, absent);
    Finding::new(subject, Answer::No).with_detail("it runs in a copy of the caller instead").because(causes)
}

fn landlock(host: &Host) -> Finding {
    match host.landlock_abi() {
        Some(abi) => Finding::new("Landlock", Answer::Yes).with_detail(format!("ABI {abi}")),
        None => {
            let (what, since, running) = ("Landlock", "5.13", host.kernel().to_string());
            Finding::new(what, Answer::No).because(vec![Cause::KernelLacks { what, since, running }])
        }
    }
}

fn call(host: &Host, feature: Features, name: &str) -> Finding {
    if host.features().contains(feature) {
        return Finding::new(name, Answer::Yes);
    }
    Finding::new(name, Answer::No).because(without_features(host, feature))
}

fn described(errno: i32) -> String {
    let errno = Errno::from_raw(errno);
    format!("{errno:?}, {}", errno.desc())
}

fn holds_sys_admin(host: &Host) -> bool {
    host.capabilities().is_some_and(|sets| sets.has_effective(SYS_ADMIN))
}

impl Display for Diagnosis {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        let ids = self.host.identity();
        let privilege =
            if holds_sys_admin(&self.host) { "with CAP_SYS_ADMIN" } else { "without CAP_SYS_ADMIN" };
        writeln!(f, "Linux {}", self.host.kernel())?;
        writeln!(f, "caller: uid {}, gid {}, {privilege}", ids.uid.effective, ids.gid.effective)?;
        for (subject, answer) in surroundings(&self.host) {
            writeln!(f, "{subject}: {answer}")?;
        }
        // One cause stands behind many findings; its remedy is told once.
        let mut told = Vec::new();
        self.findings.iter().try_for_each(|finding| finding.write(f, &mut told))
    }
}

/// What is around the caller.
fn surroundings(host: &Host) -> Vec<(&'static str, String)> {
    let filter = match (host.seccomp_mode(), host.seccomp_filters()) {
        (None, _) => Answer::Unknown.to_string(),
        (Some(SeccompMode::Disabled), _) => Answer::No.to_string(),
        (Some(SeccompMode::Strict), _) => "strict".to_owned(),
        (Some(SeccompMode::Filter), Some(count)) => format!("yes, {count}"),
        (Some(SeccompMode::Filter), None) => Answer::Yes.to_string(),
    };
    let mut lines = vec![
        ("initial user namespace", host.in_initial_user_namespace().to_string()),
        ("system-call filter", filter),
        ("no_new_privs", host.no_new_privs().to_string()),
        ("chroot", host.chrooted().to_string()),
    ];
    if host.mounts().is_none() {
        lines.push(("/proc", "cannot be read".to_owned()));
    }
    let security = host.security();
    lines.extend(security.modules.as_ref().map(|modules| ("security modules", modules.join(", "))));
    lines.extend(security.apparmor_label.clone().map(|label| ("AppArmor label", label)));
    lines.extend(security.selinux_context.clone().map(|context| ("SELinux context", context)));
    lines.extend(host.container().map(|container| ("container", container.seen.clone())));
    lines
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        self.write(f, &mut Vec::new())
    }
}

impl Finding {
    /// Writes the finding with the remedies of those causes that are not among `told`.
    fn write<'told>(&'told self, f: &mut Formatter<'_>, told: &mut Vec<&'told Cause>) -> FmtResult {
        write!(f, "{:<8}{}", self.available.to_string(), self.subject)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        writeln!(f)?;
        for cause in &self.causes {
            writeln!(f, "{:<8}- {}", "", cause.evidence())?;
            if !told.contains(&cause) {
                writeln!(f, "{:<8}  remedy: {}", "", cause.remedy())?;
                told.push(cause);
            }
        }
        Ok(())
    }
}
