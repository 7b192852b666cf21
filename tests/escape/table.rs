//! The tricks, each with what keeps it from working and what its control leaves out. What a trick does stands in the file of
//! its name in `tricks/`.

use super::fence::{Fence, Off};
use Off::{
    Bound, BoundShm, Cores, Everything, Filter, Groups, HostRoot, HostRootGroups, HostRootName, Ipc, Keyring,
    Landlock, MemoryFiles, Naive, Nesting, Network, OwnRoot, Passed, Session, SessionFilter, Variable,
    Writable, WriteExecute,
};

/// Who can make the control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    Everyone,
    /// Root only, as the kernel itself refuses others.
    Root(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Trick {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    /// What each keeps it from working.
    pub(crate) defence: &'static str,
    pub(crate) off: Off,
    pub(crate) callers: Callers,
}

impl Trick {
    /// Behind what it has to fail.
    pub(crate) fn fence(&self) -> Fence {
        if self.off == MemoryFiles {
            Fence::NoMemoryFiles
        } else if self.off == WriteExecute {
            Fence::NoWriteExecute
        } else if self.off == Landlock {
            Fence::Landlocked
        } else {
            Fence::Default
        }
    }

    /// Whether the filter is all that keeps it from working.
    pub(crate) fn by_filter_alone(&self) -> bool {
        self.off == Filter || FILTER_ALONE.contains(&self.name)
    }
}

/// Those whose control needs more than the lack of a filter for other reasons.
const FILTER_ALONE: &[&str] = &["kernel_log"];

/// Name, defence, control, and why only root can make the control.
type Row = (&'static str, &'static str, Off, Callers);

const fn root(why: &'static str) -> Callers {
    Callers::Root(why)
}
const ANY: Callers = Callers::Everyone;

#[rustfmt::skip]
const ROWS: &[(&str, &[Row])] = &[
    ("Files and descriptors", &[
        ("host_file", "a mount tree with nothing that the policy does not name", Bound, ANY),
        ("leaked_directory", "every descriptor that was not passed is closed", Passed, ANY),
        ("leaked_file", "every descriptor that was not passed is closed", Passed, ANY),
        ("inherited_directory", "`pivot_root`, and `chdir` into the new root", Naive("chroot-without-chdir"), ANY),
        ("reopen_for_writing", "the bind is read-only, whatever the mode of the file", Writable, ANY),
        ("reopen_path", "the bind is read-only, whatever the mode of the file", Writable, ANY),
        ("exe_of_runtime", "PID 1 is no file of the host, and cannot be looked into", Naive("runtime"), ANY),
        ("environment", "the environment starts empty", Variable, ANY),
        ("make_hidden_file", "a read-only bind covers the mounts below it", Naive("remount"), ANY),
        ("write_read_only", "a read-only bind", Writable, ANY),
        ("change_mode_read_only", "a read-only bind", Everything, ANY),
        ("core_file", "`RLIMIT_CORE` is 0, soft and hard", Cores, ANY),
    ]),
    ("Mounts and roots", &[
        ("remount_writable", "no capability; the filter", OwnRoot, ANY),
        ("setattr_writable", "no capability; the filter", OwnRoot, ANY),
        ("unmount_mask", "no capability; the filter", OwnRoot, ANY),
        ("move_mask", "no capability; the filter", OwnRoot, ANY),
        ("unmount_proc_mask", "no capability; the filter; not host uid 0", HostRoot, root("files of /proc are the host root's")),
        ("fresh_proc", "no capability; the filter; not host uid 0", HostRoot, root("files of /proc are the host root's")),
        ("fresh_sysfs", "no capability; the filter; not host uid 0", HostRoot, root("files of /sys are the host root's")),
        ("fresh_debugfs", "no capability; the filter; the user namespace", HostRoot, root("the kernel mounts it for the host's root only")),
        ("fresh_devpts", "no capability; the filter", OwnRoot, ANY),
        ("release_agent", "no cgroup file system; no capability; the filter", HostRootGroups, root("the kernel lets the host's root only")),
        ("foreign_cgroup", "no capability; the filter; a cgroup namespace", HostRootGroups, root("its files are the host root's")),
        ("leave_group", "no cgroup file system; a cgroup namespace", Groups, root("unprivileged callers own no groups here")),
        ("new_mount_api", "no capability; the filter", OwnRoot, ANY),
        ("chroot_twice", "no capability; the filter; nothing above the root", Naive("chroot"), ANY),
        ("chroot_open_directory", "no capability; the filter; nothing above the root", Naive("chroot"), ANY),
        ("enter_own_mounts", "no capability; the filter; the namespace's root is the new root", Naive("chroot"), ANY),
        ("old_root", "the old root is unmounted", Naive("pivot-without-umount"), ANY),
        ("uncover_old_root", "no capability; the filter; nothing below the root", Naive("move"), ANY),
        ("by_handle", "no capability; the filter", HostRoot, root("the kernel lets the host's root only")),
        ("device_node", "no capability; `nodev` on every mount", Everything, root("only the host's root makes nodes")),
    ]),
    ("The machine", &[
        ("kernel_log_device", "a `/dev` of seven harmless nodes", Everything, root("the node is root's")),
        ("physical_memory", "a `/dev` of seven harmless nodes; `/proc/kcore` is masked", Everything, root("the node is root's")),
        ("core_pattern", "`/proc/sys` is read-only; not host uid 0", Everything, root("the file is root's")),
        ("sysrq", "`/proc/sysrq-trigger` is read-only; not host uid 0", Everything, root("the file is root's")),
        ("modprobe_path", "`/proc/sys` is read-only; not host uid 0", Everything, root("the file is root's")),
        ("vm_settings", "`/proc/sys` is read-only; not host uid 0", Everything, root("the file is root's")),
        ("irq_affinity", "`/proc/irq` is read-only; not host uid 0", Everything, root("the file is root's")),
        ("host_name", "a UTS namespace; no capability; the filter", HostRootName, root("only root changes the name")),
        ("shift_clock", "no capability", HostRoot, root("only the host's root sets the clock")),
        ("set_clock", "no capability; the filter", HostRoot, root("only the host's root sets the clock")),
        ("accounting", "no capability; the filter", HostRoot, root("only the host's root has it")),
        ("kernel_log", "the filter", HostRoot, root("a setting may leave the log to root")),
        ("io_ports", "no capability; the filter", HostRoot, root("only the host's root has them")),
        ("real_time", "no capability", HostRoot, root("only the host's root may")),
    ]),
    ("Other processes", &[
        ("proc_root", "a pid namespace and its own `/proc`", Everything, ANY),
        ("proc_fd", "a pid namespace and its own `/proc`", Everything, ANY),
        ("proc_environment", "a pid namespace and its own `/proc`", Everything, ANY),
        ("proc_memory", "a pid namespace and its own `/proc`", Everything, ANY),
        ("read_memory", "a pid namespace; the filter", Everything, ANY),
        ("write_memory", "a pid namespace; the filter", Everything, ANY),
        ("trace", "a pid namespace; the filter", Everything, ANY),
        ("take_descriptor", "a pid namespace; the filter", Everything, ANY),
        ("compare_processes", "a pid namespace; the filter", Everything, ANY),
        ("move_memory", "a pid namespace; the filter", Everything, ANY),
        ("signal_process", "a pid namespace", Everything, ANY),
        ("signal_pidfd", "a pid namespace", Everything, ANY),
        ("signal_everyone", "a pid namespace", Everything, ANY),
        ("limit_process", "a pid namespace", Everything, ANY),
        ("slow_process", "a pid namespace", Everything, ANY),
        ("slow_user", "a pid namespace", Everything, ANY),
        ("pin_process", "a pid namespace", Everything, ANY),
        ("enter_namespaces", "a pid namespace; no capability; the filter", Everything, root("only root enters namespaces that it does not own")),
        ("init_memory", "no capability; init is not dumpable; the filter", OwnRoot, ANY),
        ("kill_init", "a pid namespace, whose PID 1 the kernel protects", Naive("supervisor"), ANY),
    ]),
    ("Ids and capabilities", &[
        ("set_user_id", "no capability; one id is mapped", OwnRoot, ANY),
        ("drop_groups", "no capability", HostRoot, root("an unprivileged caller's namespace has setgroups(2) closed for good")),
        ("setuid_program", "`nosuid`; `no_new_privs`; its owner is not mapped", Naive("other-user"), root("only root has a program of another user")),
        ("capable_program", "`nosuid`; `no_new_privs`; the bounding set is empty", Naive("other-user"), root("only root gives file capabilities")),
        ("ambient_capabilities", "the ambient set is emptied", Everything, root("only root has any")),
        ("root_by_exec", "the bounding set is empty; securebits are locked", Naive("capset-only"), ANY),
        ("raise_capabilities", "no capability in the permitted set", OwnRoot, ANY),
        ("give_capability", "no capability", HostRoot, root("only the host's root may give any that count there")),
        ("nested_namespace", "the filter; `max_user_namespaces` is 0", Nesting, ANY),
        ("nested_clone", "the filter; `max_user_namespaces` is 0", Nesting, ANY),
        ("nested_clone3", "the filter; `max_user_namespaces` is 0", Nesting, ANY),
        ("nested_network", "the filter; `max_user_namespaces` is 0", Nesting, ANY),
        ("more_user_namespaces", "`/proc/sys` is read-only; no capability", OwnRoot, ANY),
        ("forge_sender", "no capability", HostRoot, root("only root may say so")),
    ]),
    ("Terminals", &[
        ("type_into_terminal", "a session of its own; the filter", SessionFilter, ANY),
        ("type_into_terminal_high", "a session of its own; the filter, which compares 32 bits", SessionFilter, ANY),
        ("paste_into_console", "a `/dev` without consoles; the filter", Everything, root("consoles are root's")),
        ("open_terminal", "a session of its own", Session, ANY),
        ("find_terminal", "a `devpts` of its own", Everything, ANY),
    ]),
    ("Sockets, keys and shared memory", &[
        ("abstract_socket", "a network namespace", Network, ANY),
        ("path_socket", "the mount tree", Bound, ANY),
        ("host_loopback", "a network namespace", Network, ANY),
        ("virtual_machine_socket", "the filter", Filter, ANY),
        ("cipher_socket", "the filter", Filter, ANY),
        ("packet_socket", "no capability; the filter", OwnRoot, ANY),
        ("audit_socket", "the filter", Filter, ANY),
        ("session_key", "a session keyring of its own; the filter", Keyring, ANY),
        ("user_key", "the user namespace, which has keyrings of its own; the filter", Everything, ANY),
        ("key_by_number", "the filter", Filter, ANY),
        ("add_key", "the filter", Filter, ANY),
        ("shared_segment", "an IPC namespace", Ipc, ANY),
        ("message_queue", "an IPC namespace", Ipc, ANY),
        ("posix_queue", "an IPC namespace", Ipc, ANY),
        ("shared_memory_file", "a `/dev/shm` of its own", BoundShm, ANY),
    ]),
    ("Parts of the kernel", &[
        ("io_uring", "the filter", Filter, ANY),
        ("bpf_map", "the filter; no capability, where the kernel asks for it", HostRoot, root("a setting may leave it to root")),
        ("user_faults", "the filter", Filter, ANY),
        ("performance_events", "the filter", Filter, ANY),
        ("watch_files", "no capability; the filter", HostRoot, root("the kernel lets the host's root only")),
        ("int_80", "the filter, which kills for a foreign architecture", Filter, ANY),
        ("x32", "the filter", Filter, ANY),
        ("local_descriptors", "the filter", Filter, ANY),
        ("no_randomisation", "the filter", Filter, ANY),
    ]),
    ("Hardening on request", &[
        ("execute_memory_file", "`deny_memfd_exec`", MemoryFiles, ANY),
        ("write_and_execute", "`deny_write_execute`", WriteExecute, ANY),
        ("landlock_directory", "Landlock", Landlock, ANY),
        ("landlock_reopen", "Landlock", Landlock, ANY),
        ("landlock_enter", "Landlock", Landlock, ANY),
        ("landlock_link", "Landlock", Landlock, ANY),
        ("landlock_rename", "Landlock", Landlock, ANY),
        ("landlock_bind", "Landlock", Landlock, ANY),
    ]),
];

/// All of them, in the catalogue's order.
pub(crate) fn tricks() -> Vec<Trick> {
    let group = |(group, rows): &(&'static str, &'static [Row])| {
        let group = *group;
        rows.iter().map(move |&(name, defence, off, callers)| Trick { name, group, defence, off, callers })
    };
    ROWS.iter().flat_map(group).collect()
}
