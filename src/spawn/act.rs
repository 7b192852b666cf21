//! The caller's part on a confined program: attributes that need rights over the machine.

use std::fs;
use std::result::Result as StdResult;

use super::enforcement::Missing;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::plan::{Act, ActKind};
use crate::policy::Need;
use crate::sys;

/// Carries out every act on the process `pid`, which is ours and waits; what is preferred and refused is returned.
pub(super) fn carry_out(acts: &[Act], pid: i32) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    for act in acts {
        let Err((call, errno)) = one(act.what, pid) else { continue };
        match act.need {
            Need::Required => {
                return Err(Error::new(ErrorKind::Setup, Step::Limits, act.object.clone()).call(call, errno));
            }
            Need::Preferred => {
                missing.push(Missing { step: Step::Limits, object: act.object.clone(), errno });
            }
        }
    }
    Ok(missing)
}

fn one(what: ActKind, pid: i32) -> StdResult<(), (&'static str, i32)> {
    match what {
        ActKind::Nice(value) => sys::set_priority(pid, value).map_err(|errno| ("setpriority", errno)),
        ActKind::OomScore(value) => fs::write(format!("/proc/{pid}/oom_score_adj"), value.to_string())
            .map_err(|error| ("write", error.raw_os_error().unwrap_or(libc::EIO))),
        ActKind::Limit { resource, soft, hard } => {
            sys::set_limit(pid, resource, [soft, hard]).map_err(|errno| ("prlimit64", errno))
        }
    }
}
