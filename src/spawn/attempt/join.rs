//! A launch into a living sandbox: one attempt, by an image only, as a copy would bring the caller's memory along.

use std::os::fd::AsRawFd;

use super::super::request::Request;
use super::super::site::Site;
use super::{Method, Running, attempt, command_tail};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::{Arrival, Listing};

/// Another command in a living sandbox.
pub(crate) fn join(site: &Site, request: Request<'_>) -> Result<Running> {
    site.check()?;
    let compiled = site.compiled()?;
    let fd = match &compiled.image {
        Ok(fd) => fd.as_raw_fd(),
        Err(why) => {
            return Err(Error::new(ErrorKind::Unsupported, Step::Image, "image").detail(why.clone()));
        }
    };
    let tried = attempt(&site.fence, site.index, (compiled, &Method::Image { fd }), request);
    tried.map_err(|failed| site.refine(failed.0))
}

/// The plan of such a launch and the tail of the command, as text.
pub(crate) fn explain_joining(site: &Site, request: &Request<'_>) -> Result<String> {
    let plan = &site.compiled()?.plan;
    let (tail, _) =
        command_tail(&site.fence, plan, request, (&request.program, Arrival::Window, Listing::Kept));
    Ok(format!("{plan}# the command\n{tail}"))
}
