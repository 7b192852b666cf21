//! A launch: the sets in order, each an attempt; and the child that came of it.

mod join;
mod load;
mod release;

use crate::machine::isa::INSN_SIZE;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process;
use std::result::Result as StdResult;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub(crate) use self::join::{explain_joining, join};
use self::load::ROOM;
use super::act::carry_out;
use super::brief::Brief;
use super::cgroup::{self, Group};
use super::enforcement::{Enforcement, LaunchMethod};
use super::explain::{Death, Region, causes, explain, shows_namespaces};
use super::parent::{Heard, Parent};
use super::request::{Request, When};
use super::site::Site;
use super::source::{self, Found};
use super::supervise::{SharedSupervisor, Supervision};
use super::{map, verify};
use crate::error::{Attempt, Error, ErrorKind, Object, Refusal, Result, Step, errno_text};
use crate::host::{Features, Host};
use crate::machine::image;
use crate::machine::segment::Bases;
use crate::machine::wire::Message;
use crate::plan::{
    Arrival, Attach, Cell, CloseRange, Code, Entry, Plan, TailInput, Then, WindowInput, tail, window,
};
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
            (_, image) => Ok(Self { plan, image, joining: OnceLock::new() }),
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
}

/// Where the segments of one launch lie, and their code.
#[derive(Debug)]
struct Linked {
    bases: Bases,
    image_rows: u64,
    tail: Code,
    tail_cells: Vec<u32>,
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
pub(crate) fn launch(fence: &Arc<Fence>, mut request: Request) -> Result<Running> {
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

type Tried = StdResult<Running, Box<(Error, Request)>>;

/// By the image; and by a copy, if the host turns out not to execute it and the policy leaves the choice.
fn by_any_method(fence: &Arc<Fence>, index: usize, compiled: &Compiled, request: Request) -> Tried {
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
    Image { fd: RawFd },
    Copy { why: String },
}

fn attempt(
    fence: &Arc<Fence>,
    index: usize,
    (compiled, method): (&Compiled, &Method),
    request: Request,
) -> Tried {
    let deadline = super::parent::deadline_after(fence.policy.setup_timeout);
    let made = prepare(fence, (compiled, method), &request, deadline);
    let (parent, linked, sources) = match made {
        Ok(made) => made,
        Err(error) => return Err(Box::new((error, request))),
    };
    match confine(fence, compiled, &parent, &linked, (&sources, deadline, request.site.as_deref())) {
        // The child has copies of all that the request held; the program's ends of pipes must not stay open here.
        Ok((mut report, program)) => {
            let (supervisor, when, site) = (request.supervisor.clone(), request.when, request.site.clone());
            drop(request);
            report.method = match method {
                Method::Image { .. } => LaunchMethod::Image,
                Method::Copy { why } => LaunchMethod::Copy { why: why.clone() },
            };
            let init = compiled.plan.init;
            let fence = Arc::clone(fence);
            let (supervision, cargo, told) = (None, Vec::new(), 0);
            if site.is_some() {
                parent.attend(program);
            }
            let running = Running {
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
            };
            if when == When::Later {
                running.hold_mounts();
            }
            Ok(running)
        }
        // Dropping the parent kills and reaps the child.
        Err(error) => Err(Box::new((error, request))),
    }
}

/// The plans and the tails of one command, as text.
pub(crate) fn explain_command(fence: &Fence, request: &Request) -> String {
    let mut text = String::new();
    for (set, compiled) in &fence.plans {
        match compiled {
            Ok(compiled) => {
                let (tail, _) = command_tail(fence, &compiled.plan, request, Arrival::Window);
                text.push_str(&format!("{}# the command\n{tail}", compiled.plan));
            }
            Err(error) => text.push_str(&format!("# namespaces {set}\n# {error}\n")),
        }
    }
    text
}

fn command_tail(fence: &Fence, plan: &Plan, request: &Request, arrival: Arrival) -> (Code, Vec<Cell>) {
    let targets: Vec<i32> = request.passed.iter().map(|(_, target)| *target).collect();
    tail(&TailInput {
        program: &request.program,
        name: request.name.clone(),
        cwd: &request.cwd,
        targets: &targets,
        passed_at: plan.passed_at,
        close_range: close_range(fence),
        limits: &plan.late_limits,
        filter: plan.filter.as_ref(),
        terminal: request.terminal,
        arrival,
    })
}

fn close_range(fence: &Fence) -> CloseRange {
    if fence.host.features().contains(Features::CLOSE_RANGE) { CloseRange::Here } else { CloseRange::Later }
}

/// Opens the sources, fills the brief, links the tables, clones.
fn prepare(
    fence: &Fence,
    (compiled, method): (&Compiled, &Method),
    request: &Request,
    deadline: Instant,
) -> Result<(Parent, Linked, Vec<Found>)> {
    let plan = &compiled.plan;
    let sources = plan.sources.iter().map(source::find).collect::<Result<Vec<_>>>()?;
    let close_range = close_range(fence);
    let (tail, cells) = command_tail(fence, plan, request, Arrival::Window);
    let tail_at = usize::try_from(plan.tail_at).unwrap_or(0);
    let room = if request.when == When::Later { ROOM } else { 0 };
    let brief = Brief::new(tail_at + tail.segment.len().max(room))?;
    super::parent::fill(&brief, plan, &sources, request);
    if plan.filter.as_ref().and_then(Attach::secret).is_some() {
        super::parent::draw_secret(&brief)?;
    }
    let (bases, copy) = bases(compiled, method, &brief);
    let mut bytes = Vec::new();
    tail.segment.link(&bases, &mut bytes);
    brief.map().set_bytes(plan.tail_at, &bytes);
    let tail_rows = bases.tail + tail.segment.rows_at() as u64;
    super::parent::enter_tail(&brief, tail_rows);
    let image_rows = bases.image + plan.code.segment.rows_at() as u64;
    let entry = image_rows + (plan.copy_entry * INSN_SIZE) as u64;
    let then = match method {
        Method::Image { fd } => {
            let (argv, envp) = (request.argv.address(), request.envp.address());
            Then::Image { fd: *fd, carried: plan.carried, argv, envp }
        }
        Method::Copy { .. } => Then::Copy { entry },
    };
    let tail_cells = cells.iter().map(|cell| cell.address.offset).collect();
    let linked = Linked { bases, image_rows, tail, tail_cells, window: Code::empty(), window_rows: 0 };
    let (parent, window, window_rows) =
        start(fence, compiled, brief, request, (&sources, close_range, then, deadline))?;
    // A child that is a copy has its own by now.
    drop(copy);
    Ok((parent, Linked { window, window_rows, ..linked }, sources))
}

/// Where the segments lie for the child. A copy runs the plan's table from this process's memory.
fn bases(compiled: &Compiled, method: &Method, brief: &Brief) -> (Bases, Option<sys::Buffer>) {
    let plan = &compiled.plan;
    if matches!(method, Method::Image { .. }) {
        let machine = sys::MACHINE.unwrap_or(0);
        return (image::bases(machine, sys::machine_text(), plan.tail_at), None);
    }
    let mut buffer = sys::Buffer::new(plan.code.segment.len());
    let at = brief.map().address();
    let bases = Bases { image: buffer.address(), brief: at, tail: at + u64::from(plan.tail_at), window: 0 };
    let mut bytes = Vec::new();
    plan.code.segment.link(&bases, &mut bytes);
    buffer.fill(&bytes);
    (bases, Some(buffer))
}

type Extra<'a> = (&'a [Found], CloseRange, Then, Instant);

/// The window and the clone.
fn start(
    fence: &Fence,
    compiled: &Compiled,
    brief: Brief,
    request: &Request,
    (sources, close_range, then, deadline): Extra<'_>,
) -> Result<(Parent, Code, u64)> {
    let plan = &compiled.plan;
    let sockets = super::parent::sockets()?;
    let caller = sys::open_pidfd(process::id().cast_signed())
        .map_err(|errno| Error::new(ErrorKind::Setup, Step::Tether, "caller").call("pidfd_open", errno))?;
    let mut place = super::parent::descriptors(plan, request, sources, (&sockets.1, &brief, &caller));
    let joined = match (&request.site, &plan.entry) {
        (Some(site), Entry::Living(join)) => Some((site.door()?, site.namespaces(join)?)),
        _ => None,
    };
    if let Some((door, namespaces)) = &joined {
        super::parent::place_joined(&mut place, door, namespaces);
    }
    let free = place.iter().map(|(_, to)| to + 1).max().unwrap_or(0).max(plan.passed_at);
    super::parent::note_descriptors(&brief, free);
    let window = window(&WindowInput { place: &place, free, close_range, then });
    let mut memory = sys::Buffer::new(window.segment.len());
    let at = brief.map().address();
    let bases = Bases { image: 0, brief: at, tail: 0, window: memory.address() };
    let mut bytes = Vec::new();
    window.segment.link(&bases, &mut bytes);
    memory.fill(&bytes);
    let rows = memory.address() + window.segment.rows_at() as u64;
    let shared = match then {
        Then::Image { .. } => libc::CLONE_VM | libc::CLONE_VFORK,
        Then::Copy { .. } => 0,
    };
    let namespaces = plan.cloned().bits();
    let flags = u64::from(namespaces) | u64::from(shared.cast_unsigned());
    let group = plan.group.as_ref().map(Group::make).transpose()?;
    let how = cgroup::clone_how(&fence.host, plan, group.as_ref());
    let cloned = super::parent::clone(plan.init, (how, flags), (rows, at), deadline).map_err(|errno| {
        let call = if how == CloneHow::Clone { "clone" } else { "clone3" };
        let error = Error::new(ErrorKind::Setup, Step::Clone, format!("namespaces {}", plan.set));
        error.call(call, errno).causes_found(causes(Step::Clone, errno, &fence.host, plan.set))
    })?;
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
    let plan = &compiled.plan;
    if let Some(site) = site {
        site.admit(plan, parent)?;
    } else if plan.ids.needs_caller() {
        map::write(&plan.ids, parent.pid(), parent.brief().map(), &fence.host).map_err(|error| {
            let causes = causes(Step::IdMap, error.raw_os_error().unwrap_or(0), &fence.host, plan.set);
            error.causes_found(causes)
        })?;
    }
    if let (Some(group), Some(plan)) = (parent.group(), &plan.group) {
        group.join(plan.join, parent.pid())?;
    }
    if plan.waits() {
        parent.tell(Message::Go)?;
    }
    match parent.hear(deadline)? {
        Heard::Message(Message::Ready, program) => {
            let refused = carry_out(&plan.acts, program)?;
            let pids = (site.map_or(parent.pid(), Site::first), program);
            let read = verify::read_back(plan, &fence.policy, pids, parent.brief(), sources);
            let mut report = match read {
                // What cannot be read back of a child that has ended is its end.
                Err(_) if parent.ended(0)? => {
                    return Err(linked.explain(fence, compiled, parent, parent.death()));
                }
                read => read?,
            };
            report.missing.extend(refused);
            if let Some(site) = site {
                site.confirm((plan, parent.brief()), (parent.pid(), program), &mut report)?;
            }
            if let Some(group) = parent.group() {
                report.limits = group.confirm(parent.pid(), program)?;
                report.notes.extend(group.note(compiled.plan.group.as_ref()));
            }
            Ok((report, program))
        }
        Heard::Message(..) => {
            Err(Error::new(ErrorKind::Setup, Step::Gate, "socket").detail("the child said something else"))
        }
        Heard::End => {
            let death = parent.death();
            // The watchdog ends a child that is stopped in the window, and then the clone returns late.
            let late = Instant::now() >= deadline && death == Death::Signaled(libc::SIGKILL);
            let death = if late { Death::TimedOut } else { death };
            Err(linked.explain(fence, compiled, parent, death))
        }
        Heard::Nothing => {
            parent.end();
            Err(linked.explain(fence, compiled, parent, Death::TimedOut))
        }
    }
}

impl Linked {
    /// How the program is named: the object of the tail's last step.
    fn program(&self) -> Object {
        let last = self.tail.ops.last().and_then(|op| self.tail.objects.get(op.object));
        last.cloned().unwrap_or_default()
    }

    fn explain(&self, fence: &Fence, compiled: &Compiled, parent: &Parent, death: Death) -> Error {
        let regions = [
            Region { code: &compiled.plan.code, rows_at: self.image_rows },
            Region { code: &self.tail, rows_at: self.bases.tail + self.tail.segment.rows_at() as u64 },
            Region { code: &self.window, rows_at: self.window_rows },
        ];
        let error = explain(&regions, parent.brief(), death, &fence.host, compiled.plan.set);
        let killed = death == Death::Signaled(libc::SIGKILL);
        match (error.step(), error.raw_os_error()) {
            _ if killed && parent.group().is_some_and(Group::ran_out_of_memory) => error.detail(
                "the kernel killed the child for want of memory: the limit of the tree is too small for it",
            ),
            // The program's own argument list goes through the image's exec first.
            (Step::Start | Step::Exec, Some(libc::E2BIG)) => {
                Error::new(ErrorKind::Exec, Step::Exec, self.program()).call("execve", libc::E2BIG).detail(
                    "arguments and environment are larger than the kernel takes (execve(2), \"Limits\")",
                )
            }
            (Step::Window | Step::Descriptors, Some(libc::EINVAL | libc::EBADF | libc::EMFILE)) => error
                .detail(
                    "RLIMIT_NOFILE of the caller may be too low for the descriptors that the set-up holds",
                ),
            _ => error,
        }
    }
}
