//! What is said of a launch: the plans of a command before it, and an error where it failed. It must not change anything.

use super::super::cgroup::Group;
use super::super::explain::{Death, Region, explain};
use super::super::parent::Parent;
use super::super::request::Request;
use super::memory::command_tail;
use super::{Compiled, Fence, Linked};
use crate::error::{Error, ErrorKind, Object, Step};
use crate::plan::{Arrival, Listing};

/// The plans and the tails of one command, as text.
pub(crate) fn explain_command(fence: &Fence, request: &Request<'_>) -> String {
    let mut text = String::new();
    for (set, compiled) in &fence.plans {
        match compiled {
            Ok(compiled) => {
                let how = (&request.program, Arrival::Window, Listing::Kept);
                let (tail, _) = command_tail(fence, &compiled.plan, request, how);
                text.push_str(&format!("{}# the command\n{tail}", compiled.plan));
            }
            Err(error) => text.push_str(&format!("# namespaces {set}\n# {error}\n")),
        }
    }
    text
}

impl Linked {
    /// How the program is named: the object of the tail's last step.
    fn program(&self) -> Object {
        let last = self.tail.code.ops.last().and_then(|op| self.tail.code.objects.get(op.object));
        last.cloned().unwrap_or_default()
    }

    pub(super) fn explain(&self, fence: &Fence, compiled: &Compiled, parent: &Parent, death: Death) -> Error {
        let tail = &self.tail.code;
        let regions = [
            Region { code: &compiled.plan.code, rows_at: self.image_rows },
            Region { code: tail, rows_at: self.bases.tail + tail.segment.rows_at() as u64 },
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
