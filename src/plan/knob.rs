//! Kernel knobs and names of the sandbox's own namespaces. Never written where the namespace is the host's.

use super::asm::{Call, Cell, num, sym};
use super::context::{Context, u64_of};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::policy::{Namespaces, Need, Wanted};

/// `struct ifreq`: a name of 16 bytes, then the flags.
const IFREQ_SIZE: usize = 40;
const IFF_UP: u8 = 1;

/// `user.max_user_namespaces=0`: only a process with CAP_SYS_RESOURCE in this very namespace could raise it again, and the
/// program gets none (user_namespaces(7), namespaces(7)).
pub(super) fn user_namespaces(context: &mut Context<'_>) {
    let Some(wanted) = context.policy.hardening.deny_user_namespaces else { return };
    if !context.in_set(Namespaces::USER) {
        context
            .notes
            .push("user namespaces inside are open: without a user namespace the knob is the host's".into());
        return;
    }
    context.item(Step::Knob, "user.max_user_namespaces=0", wanted.need, |context| {
        context.write_file("/proc/sys/user/max_user_namespaces", "0");
    });
}

/// `vm.memfd_noexec=2` belongs to the pid namespace (since Linux 6.3), but the file is the host root's, also in a user
/// namespace. So it is for policies without a filter: a filter says the same.
pub(super) fn memfd_exec(context: &mut Context<'_>) -> Result<()> {
    let Some(wanted) = context.policy.hardening.deny_memfd_exec else { return Ok(()) };
    if context.policy.seccomp.is_some() {
        return Ok(());
    }
    if !context.in_set(Namespaces::PID) {
        let what = (Step::Knob, "vm.memfd_noexec".to_owned());
        return needs(context, wanted.need, what, "without a pid namespace the knob is the host's");
    }
    context.item(Step::Knob, "vm.memfd_noexec=2", wanted.need, |context| {
        context.write_file("/proc/sys/vm/memfd_noexec", "2");
    });
    Ok(())
}

/// Name inside where the policy says none: the host's own tells about the host.
const HOSTNAME: &str = "sandbox";

pub(super) fn names(context: &mut Context<'_>) -> Result<()> {
    let (hostname, domain) = (context.policy.hostname.clone(), context.policy.domain_name.clone());
    if !context.in_set(Namespaces::UTS) {
        for wanted in [hostname, domain].into_iter().flatten() {
            let object = format!("{:?}", wanted.value);
            needs(context, wanted.need, (Step::Hostname, object), "a name inside needs a UTS namespace")?;
        }
        return Ok(());
    }
    let hostname = hostname.unwrap_or_else(|| HOSTNAME.into());
    for (wanted, number, call) in [
        (Some(hostname), libc::SYS_sethostname, "sethostname"),
        (domain, libc::SYS_setdomainname, "setdomainname"),
    ] {
        let Some(Wanted { value, need }) = wanted else { continue };
        context.item(Step::Hostname, format!("{value:?}"), need, |context| {
            let name = context.asm.string(value.as_bytes());
            let length = num(i64::try_from(value.len()).unwrap_or(0));
            context.asm.call(Call::new(number, call).arg(name).arg(length));
        });
    }
    Ok(())
}

/// An item that this namespace set cannot have: an error if it is required, else said in the report.
fn needs(context: &mut Context<'_>, need: Need, (step, object): (Step, String), why: &str) -> Result<()> {
    if need == Need::Required {
        return Err(Error::new(ErrorKind::Unsupported, step, object).detail(why));
    }
    context.notes.push(format!("{step} {object}: {why}"));
    Ok(())
}

/// A new network namespace has a loopback interface that is down (network_namespaces(7)); its addresses come with being up.
pub(super) fn loopback(context: &mut Context<'_>) {
    let Some(wanted) = context.policy.loopback else { return };
    if !context.in_set(Namespaces::NET) {
        return;
    }
    context.item(Step::Loopback, "lo", wanted.need, |context| {
        let socket: Cell = context.fs;
        let asm = &mut context.asm;
        let family = sym(u64_of(libc::AF_INET), "AF_INET");
        let kind = sym(u64_of(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC), "SOCK_DGRAM|SOCK_CLOEXEC");
        asm.call(Call::new(libc::SYS_socket, "socket").arg(family).arg(kind).arg(num(0)).into(socket));
        let mut request = [0; IFREQ_SIZE];
        request[..2].copy_from_slice(b"lo");
        request[16] = IFF_UP;
        let request = asm.bytes(&request, "{\"lo\", IFF_UP}");
        let command = sym(0x8914, "SIOCSIFFLAGS");
        asm.call(Call::new(libc::SYS_ioctl, "ioctl").arg(socket.word()).arg(command).arg(request));
        context.close(socket);
    });
}
