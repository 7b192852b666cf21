//! A launch: the sets in order, each an attempt; and the child that came of it.

mod fork;
mod join;
mod kept;
mod load;
mod memory;
mod release;
mod said;

pub(crate) use fork::{Body, FilterBy, check as check_closure, filter_words};

use crate::machine::isa::INSN_SIZE;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process;
use std::result::Result as StdResult;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub(crate) use self::join::{explain_joining, join};
use self::kept::{KeptTail, Tail};
use self::memory::{close_range, command_tail, linked, place, tail_and_brief};
pub(crate) use self::said::explain_command;
use super::act::carry_out;
use super::brief::Brief;
use super::cgroup::{self, Group};
use super::clone::NotCloned;
use super::enforcement::{Enforcement, LaunchMethod};
use super::explain::{Death, causes, map_causes, shows_namespaces};
use super::parent::{Heard, Parent};
use super::request::{Request, When};
use super::site::Site;
use super::source::{self, Found};
use super::supervise::{SharedSupervisor, Supervision};
use super::{map, verify};
use crate::error::{Attempt, Error, ErrorKind, Refusal, Result, Step, errno_text};
use crate::host::Host;
use crate::machine::image;
use crate::machine::segment::Bases;
use crate::machine::wire::Message;
use crate::plan::{Attach, CloseRange, Code, Entry, ForkInput, Listing, Plan, Then, WindowInput, window};
use crate::policy::{Init, Launch, Namespaces, Policy};
use crate::sys::{self, CloneHow};

/// A policy compiled for this host: one plan a namespace set, and the images.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) policy: Policy,
    pub(crate) host: Host,
    /// Sets that could not even be compiled stand there with their error.
    pub(crate) plans: Vec<(Namespaces, Result<Compiled>)>,
}

/// One plan and how it is started.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    /// The image, or why there is none.
    pub(crate) image: StdResult<OwnedFd, String>,
    /// The one for commands that join a sandbox of this plan.
    pub(super) joining: OnceLock<Result<Box<Self>>>,
    /// Of the last command that a waiting child was told.
    kept: KeptTail,
}

impl Compiled {
    /// Makes the image where one can be had.
    pub(crate) fn new(plan: Plan, launch: Launch) -> Result<Self> {
        let image = match launch {
            Launch::Copy => Err("asked for".to_owned()),
            Launch::Auto | Launch::Image => {
                make_image(&plan).map_err(|(call, errno)| format!("{call}: {}", errno_text(errno)))
            }
        };
        match (launch, image) {
            (Launch::Image, Err(why)) => {
                Err(Error::new(ErrorKind::Unsupported, Step::Image, "image").detail(why))
            }
            (_, image) => Ok(Self { plan, image, joining: OnceLock::new(), kept: KeptTail::default() }),
        }
    }
}

fn make_image(plan: &Plan) -> StdResult<OwnedFd, (&'static str, i32)> {
    let machine = sys::MACHINE.ok_or(("image", libc::ENOEXEC))?;
    let bytes = image::build(machine, sys::machine_text(), &plan.code.segment);
    sys::executable_memfd(&bytes)
}

/// A child that is set up and confined, and waits; or runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) parent: Parent,
    pub(crate) report: Enforcement,
    pub(crate) init: Init,
    /// The program as this process sees it.
    pub(crate) program: i32,
    pub(crate) fence: Arc<Fence>,
    index: usize,
    /// The living sandbox that it joined.
    pub(crate) site: Option<Arc<Site>>,
    linked: Linked,
    supervisor: Option<SharedSupervisor>,
    /// Its thread, from the exec on where the filter needs one.
    supervision: Option<Supervision>,
    /// Descriptors that go with the release, for a child that was told its command late.
    cargo: Vec<OwnedFd>,
    /// Bytes of the brief that such a child was told it in.
    told: usize,
    what: What,
}

/// What is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Program,
    Closure(FilterBy),
}

/// Where the segments of one launch lie, and their code.
#[derive(Debug, Default)]
struct Linked {
    bases: Bases,
    image_rows: u64,
    tail: Arc<Tail>,
    window: Code,
    window_rows: u64,
}

impl Running {
    /// The plan that it was made by.
    pub(super) fn compiled(&self) -> Option<&Compiled> {
        match &self.site {
            Some(site) => site.compiled().ok(),
            None => self.fence.plans.get(self.index).and_then(|(_, compiled)| compiled.as_ref().ok()),
        }
    }

    /// The namespace set of the policy that was had.
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

/// Tries the sets in order.
pub(crate) fn launch(fence: &Arc<Fence>, mut request: Request<'_>) -> Result<Running> {
    let sets = &fence.policy.namespaces;
    let mut attempts = Vec::new();
    for (index, (set, compiled)) in fence.plans.iter().enumerate() {
        let last = index + 1 == fence.plans.len();
        let tried = match compiled {
            Ok(compiled) => by_any_method(fence, index, compiled, request),
            Err(error) => Err(Box::new((error.again(), request))),
        };
        match tried {
            Ok(mut running) => {
                attempts.push(Attempt { set: set.to_string(), refused: None });
                running.report.attempts = attempts;
                return Ok(running);
            }
            Err(failed) => {
                let (error, back) = *failed;
                let through = error.raw_os_error().is_some_and(|errno| sets.fall_through.contains(&errno));
                let refused = Refusal {
                    step: error.step(),
                    call: error.failed_call().unwrap_or("compile"),
                    errno: error.raw_os_error().unwrap_or(0),
                    text: error.to_string(),
                    causes: error.causes().to_vec(),
                };
                let compiles = compiled.is_err();
                if last || !(compiles || through && shows_namespaces(error.step())) {
                    return Err(error.attempted(attempts));
                }
                attempts.push(Attempt { set: set.to_string(), refused: Some(refused) });
                request = back;
            }
        }
    }
    Err(Error::new(ErrorKind::Unsupported, Step::Clone, "namespaces").attempted(attempts))
}

type Tried<'a> = StdResult<Running, Box<(Error, Request<'a>)>>;

/// By the image; and by a copy, if the host turns out not to execute it and the policy leaves the choice.
fn by_any_method<'a>(
    fence: &Arc<Fence>,
    index: usize,
    compiled: &Compiled,
    request: Request<'a>,
) -> Tried<'a> {
    if request.body.is_some() {
        return attempt(fence, index, (compiled, &Method::Fork), request);
    }
    let fd = match &compiled.image {
        Ok(fd) => fd,
        Err(why) => return attempt(fence, index, (compiled, &Method::Copy { why: why.clone() }), request),
    };
    let failed = match attempt(fence, index, (compiled, &Method::Image { fd: fd.as_raw_fd() }), request) {
        Ok(running) => return Ok(running),
        Err(failed) => failed,
    };
    let refused = failed.0.step() == Step::Start && failed.0.failed_call() == Some("execveat");
    let refusals = [libc::EACCES, libc::EPERM, libc::ENOSYS, libc::ENOEXEC];
    match failed.0.raw_os_error() {
        Some(errno) if refused && refusals.contains(&errno) && fence.policy.launch == Launch::Auto => {
            let why = format!("execveat of the image: {}", errno_text(errno));
            attempt(fence, index, (compiled, &Method::Copy { why }), failed.1)
        }
        _ => Err(failed),
    }
}

/// How one attempt gets its child an address space of its own.
#[derive(Debug)]
enum Method {
    Image {
        fd: RawFd,
    },
    Copy {
        why: String,
    },
    /// A copy that goes on in Rust.
    Fork,
}

fn attempt<'a>(
    fence: &Arc<Fence>,
    index: usize,
    (compiled, method): (&Compiled, &Method),
    mut request: Request<'a>,
) -> Tried<'a> {
    let deadline = super::clone::deadline_after(fence.policy.setup_timeout);
    let made = prepare(fence, (compiled, method), &mut request, deadline);
    let (parent, linked, sources) = match made {
        Ok(made) => made,
        Err(error) => return Err(Box::new((error, request))),
    };
    match confine(fence, compiled, &parent, &linked, (&sources, deadline, request.site.as_deref())) {
        // The child has copies of all that the request held; the program's ends of pipes must not stay open here.
        Ok((mut report, program)) => {
            let what = request.body.as_ref().map_or(What::Program, |body| What::Closure(body.filter));
            let (supervisor, when, site) = (request.supervisor.clone(), request.when, request.site.clone());
            drop(request);
            report.method = match method {
                Method::Image { .. } => LaunchMethod::Image,
                Method::Copy { why } => LaunchMethod::Copy { why: why.clone() },
                Method::Fork => {
                    LaunchMethod::Copy { why: "a function of the caller runs in a copy of it".to_owned() }
                }
            };
            let init = compiled.plan.init;
            let fence = Arc::clone(fence);
            let (supervision, cargo, told) = (None, Vec::new(), 0);
            if site.is_some() {
                parent.attend(program);
            }
            let mut running = Running {
                parent,
                report,
                init,
                program,
                fence,
                index,
                site,
                linked,
                supervisor,
                supervision,
                cargo,
                told,
                what,
            };
            if when == When::Later {
                running.hold_mounts();
                // Nothing is left to explain of what is done: to let go of it is not to cost the command's time.
                (running.linked.tail, running.linked.window) = (Arc::default(), Code::empty());
            }
            Ok(running)
        }
        // Dropping the parent kills and reaps the child.
        Err(error) => Err(Box::new((error, request))),
    }
}

/// Opens the sources, fills the brief, links the tables, clones.
fn prepare(
    fence: &Fence,
    (compiled, method): (&Compiled, &Method),
    request: &mut Request<'_>,
    deadline: Instant,
) -> Result<(Parent, Linked, Vec<Found>)> {
    let plan = &compiled.plan;
    let sources = plan.sources.iter().map(source::find).collect::<Result<Vec<_>>>()?;
    let close_range = close_range(fence);
    let (tail, cells, brief) = tail_and_brief(fence, plan, request)?;
    super::fill::fill(&brief, plan, &sources, request);
    if request.body.is_none() && plan.filter.as_ref().and_then(Attach::secret).is_some() {
        super::fill::draw_secret(&brief)?;
    }
    let (bases, copy) = place(compiled, method, &brief, &tail);
    let tail_rows = bases.tail + tail.segment.rows_at() as u64;
    // One that waits has none until it is told its command.
    super::fill::enter_tail(&brief, if request.when == When::Later { 0 } else { tail_rows });
    let image_rows = bases.image + plan.code.segment.rows_at() as u64;
    let entry = image_rows + (plan.copy_entry * INSN_SIZE) as u64;
    let then = match method {
        Method::Image { fd } => {
            let (argv, envp) = (request.argv.address(), request.envp.address());
            Then::Image { fd: *fd, carried: plan.carried, argv, envp }
        }
        Method::Copy { .. } | Method::Fork => Then::Copy { entry },
    };
    let tail = Arc::new(Tail::new(tail, &cells));
    let linked = Linked { bases, image_rows, tail, window: Code::empty(), window_rows: 0 };
    let (parent, window, window_rows) =
        start(fence, compiled, brief, request, (&sources, close_range, then, deadline))?;
    // A child that is a copy has its own by now.
    drop(copy);
    Ok((parent, Linked { window, window_rows, ..linked }, sources))
}

type Extra<'a> = (&'a [Found], CloseRange, Then, Instant);

/// The window and the clone.
fn start(
    fence: &Fence,
    compiled: &Compiled,
    brief: Brief,
    request: &mut Request<'_>,
    (sources, close_range, then, deadline): Extra<'_>,
) -> Result<(Parent, Code, u64)> {
    let plan = &compiled.plan;
    let sockets = super::parent::sockets()?;
    let caller = sys::open_pidfd(process::id().cast_signed()).map_err(|errno| {
        let error = Error::new(ErrorKind::Setup, Step::Tether, "caller").call("pidfd_open", errno);
        error.causes_found(causes(Step::Tether, errno, &fence.host, plan.set))
    })?;
    let stdio = super::request::open_nulls(&mut request.stdio)?;
    let mut place = super::fill::descriptors(plan, request, sources, (stdio, &sockets.1, &brief, &caller));
    let joined = match (&request.site, &plan.entry) {
        (Some(site), Entry::Living(join)) => Some((site.door()?, site.namespaces(join)?)),
        _ => None,
    };
    if let Some((door, namespaces)) = &joined {
        super::fill::place_joined(&mut place, door, namespaces);
    }
    let free = place.iter().map(|(_, to)| to + 1).max().unwrap_or(0).max(plan.passed_at);
    super::fill::note_descriptors(&brief, free);
    let group = plan.group.as_ref().map(|plan| Group::make(plan, deadline)).transpose()?;
    let how = cgroup::clone_how(&fence.host, plan, group.as_ref());
    let namespaces = u64::from(plan.cloned().bits());
    let report = request.body.is_some().then(fork::report).transpose()?;
    let then = match (then, &report) {
        (Then::Copy { entry }, Some((_, theirs))) => {
            let fork = ForkInput { how, flags: namespaces, report: theirs.as_raw_fd() };
            Then::Fork { entry, fork }
        }
        (then, _) => then,
    };
    let window = window(&WindowInput { place: &place, free, close_range, then, listing: Listing::Omitted });
    let mut memory = sys::Buffer::new(window.segment.len());
    let at = brief.map().address();
    memory.fill(&linked(&window, &Bases { image: 0, brief: at, tail: 0, window: memory.address() }));
    let rows = memory.address() + window.segment.rows_at() as u64;
    let shared = match then {
        Then::Image { .. } => libc::CLONE_VM | libc::CLONE_VFORK,
        Then::Copy { .. } | Then::Fork { .. } => 0,
    };
    let flags = namespaces | u64::from(shared.cast_unsigned());
    let refused = |call, errno| {
        let error = Error::new(ErrorKind::Setup, Step::Clone, format!("namespaces {}", plan.set));
        error.call(call, errno).causes_found(causes(Step::Clone, errno, &fence.host, plan.set))
    };
    let cloned = match (&mut request.body, report) {
        (Some(body), Some(report)) => {
            fork::fork(body, rows, &brief, report, deadline).map_err(|(call, errno)| refused(call, errno))
        }
        _ => super::clone::clone(plan.init, (how, flags), (rows, at), deadline).map_err(|why| match why {
            NotCloned::Before(error) => error,
            NotCloned::Refused(errno) => {
                refused(if how == CloneHow::Clone { "clone" } else { "clone3" }, errno)
            }
        }),
    }?;
    // A copy has its own; a child that shared this memory has left it.
    drop((memory, joined));
    Ok((Parent::new(cloned, sockets.0, brief, group), window, rows))
}

/// The caller's part, then the wait for a child that is confined, then what the kernel says of it.
fn confine(
    fence: &Fence,
    compiled: &Compiled,
    parent: &Parent,
    linked: &Linked,
    (sources, deadline, site): (&[Found], Instant, Option<&Site>),
) -> Result<(Enforcement, i32)> {
    // What fails for want of a living child is its end.
    let or_its_end = |error: Error| match parent.is_its_end(&error) {
        Ok(true) => linked.explain(fence, compiled, parent, death(parent, deadline)),
        Ok(false) | Err(_) => error,
    };
    callers_part(fence, compiled, parent, (site, deadline)).map_err(or_its_end)?;
    match parent.hear(deadline)? {
        Heard::Message(Message::Ready, program) => {
            let report = look(fence, compiled, parent, (program, sources, site)).map_err(or_its_end)?;
            Ok((report, program))
        }
        Heard::Message(..) => {
            Err(Error::new(ErrorKind::Setup, Step::Gate, "socket").detail("the child said something else"))
        }
        Heard::End => Err(linked.explain(fence, compiled, parent, death(parent, deadline))),
        Heard::Nothing => {
            parent.end();
            Err(linked.explain(fence, compiled, parent, Death::TimedOut))
        }
    }
}

/// How it ended. The watchdog ends a child that is stopped in the window, and then the clone returns late.
fn death(parent: &Parent, deadline: Instant) -> Death {
    let death = parent.death();
    let late = Instant::now() >= deadline && death == Death::Signaled(libc::SIGKILL);
    if late { Death::TimedOut } else { death }
}

/// The maps and the groups of a child that waits for them.
fn callers_part(
    fence: &Fence,
    compiled: &Compiled,
    parent: &Parent,
    (site, deadline): (Option<&Site>, Instant),
) -> Result<()> {
    let plan = &compiled.plan;
    if let Some(site) = site {
        site.admit(plan, parent, deadline)?;
    } else if plan.ids.needs_caller() {
        map::write(&plan.ids, parent.pid(), parent.brief().map(), (&fence.host, deadline)).map_err(
            |error| {
                let errno = error.raw_os_error().unwrap_or(0);
                let causes = map_causes(&plan.ids.writer, errno, &fence.host, plan.set);
                error.causes_found(causes)
            },
        )?;
    }
    if let (Some(group), Some(plan)) = (parent.group(), &plan.group) {
        group.join(plan.join, parent.pid(), deadline)?;
    }
    if plan.waits() {
        parent.tell(Message::Go)?;
    }
    Ok(())
}

/// Does the caller's part on the confined program, and reads back what holds.
fn look(
    fence: &Fence,
    compiled: &Compiled,
    parent: &Parent,
    (program, sources, site): (i32, &[Found], Option<&Site>),
) -> Result<Enforcement> {
    let plan = &compiled.plan;
    let refused = carry_out(&plan.acts, program)?;
    let pids = (site.map_or(parent.pid(), Site::first), program);
    let mut report = verify::read_back(plan, &fence.policy, pids, parent.brief(), sources)?;
    report.missing.extend(refused);
    if let Some(site) = site {
        site.confirm((plan, parent.brief()), (parent.pid(), program), &mut report)?;
    }
    if let Some(group) = parent.group() {
        report.limits = group.confirm(parent.pid(), program)?;
        report.notes.extend(group.note(plan.group.as_ref()));
    }
    Ok(report)
}
