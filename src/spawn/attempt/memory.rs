//! The tables of one launch and where they lie: tail, brief, the memory of a copy. It must not start anything.

use super::super::brief::Brief;
use super::super::explain::causes;
use super::super::request::{Request, When};
use super::load::ROOM;
use super::{Compiled, Fence, Method, fork};
use crate::error::{Result, Step};
use crate::host::Features;
use crate::machine::image;
use crate::machine::segment::Bases;
use crate::plan::{Arrival, Cell, CloseRange, Code, Listing, Plan, Program, TailInput, tail};
use crate::sys;

pub(super) fn command_tail(
    fence: &Fence,
    plan: &Plan,
    request: &Request<'_>,
    (program, arrival, listing): (&Program, Arrival, Listing),
) -> (Code, Vec<Cell>) {
    let targets: Vec<i32> = request.passed.iter().map(|(_, target)| *target).collect();
    tail(&TailInput {
        program,
        name: request.name.clone(),
        cwd: &request.cwd,
        streams: request.given(),
        targets: &targets,
        passed_at: plan.passed_at,
        close_range: close_range(fence),
        limits: &plan.late_limits,
        filter: plan.filter.as_ref(),
        terminal: request.terminal,
        arrival,
        listing,
    })
}

pub(super) fn close_range(fence: &Fence) -> CloseRange {
    if fence.host.features().contains(Features::CLOSE_RANGE) { CloseRange::Here } else { CloseRange::Later }
}

/// A command's tail lies in the brief. A closure's does not, as it gives the brief up.
pub(super) fn tail_and_brief(
    fence: &Fence,
    plan: &Plan,
    request: &Request<'_>,
) -> Result<(Code, Vec<Cell>, Brief)> {
    let tail_at = usize::try_from(plan.tail_at).unwrap_or(0);
    let brief_of = |size| {
        Brief::new(size).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(0);
            error.causes_found(causes(Step::Image, errno, &fence.host, plan.set))
        })
    };
    if let Some(body) = &request.body {
        let brief = brief_of(tail_at)?;
        let program = Program::Closure(fork::closure_tail(fence, body, &brief)?);
        let (tail, cells) = command_tail(fence, plan, request, (&program, Arrival::Window, Listing::Omitted));
        return Ok((tail, cells, brief));
    }
    let how = (&request.program, Arrival::Window, Listing::Omitted);
    let (tail, cells) = command_tail(fence, plan, request, how);
    let room = if request.when == When::Later { ROOM } else { 0 };
    let brief = brief_of(tail_at + tail.segment.len().max(room))?;
    Ok((tail, cells, brief))
}

/// Where the segments lie for the child. A copy runs the plan's table from this process's memory.
pub(super) fn place(
    compiled: &Compiled,
    method: &Method,
    brief: &Brief,
    tail: &Code,
) -> (Bases, Vec<sys::Buffer>) {
    let plan = &compiled.plan;
    let at = brief.map().address();
    let own_tail = match method {
        Method::Fork => Some(sys::Buffer::new(tail.segment.len())),
        Method::Image { .. } | Method::Copy { .. } => None,
    };
    let mut memory = Vec::new();
    let bases = if matches!(method, Method::Image { .. }) {
        image::bases(sys::MACHINE.unwrap_or(0), sys::machine_text(), plan.tail_at)
    } else {
        let mut buffer = sys::Buffer::new(plan.code.segment.len());
        let tail = own_tail.as_ref().map_or(at + u64::from(plan.tail_at), sys::Buffer::address);
        let bases = Bases { image: buffer.address(), brief: at, tail, window: 0 };
        buffer.fill(&linked(&plan.code, &bases));
        memory.push(buffer);
        bases
    };
    match own_tail {
        Some(mut buffer) => {
            buffer.fill(&linked(tail, &bases));
            memory.push(buffer);
        }
        None => brief.map().set_bytes(plan.tail_at, &linked(tail, &bases)),
    }
    (bases, memory)
}

pub(super) fn linked(code: &Code, bases: &Bases) -> Vec<u8> {
    let mut bytes = Vec::new();
    code.segment.link(bases, &mut bytes);
    bytes
}
