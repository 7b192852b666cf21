//! Who the program is, inside and outside. It must not look at the caller's own ids: that is the host's part.

/// One line of an id map (user_namespaces(7)): `count` ids from `inside` are the host's ids from `outside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside, as the caller sees ids.
    pub outside: u32,
    /// How many; at least one.
    pub count: u32,
}

/// Which host ids stand behind the ids inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// A caller that is not root: its own ids, in a map that the child writes itself. A caller that is root: an
    /// unprivileged host id of the sandbox's own, `0x7000_0000 +` the child's pid, so that two living sandboxes never
    /// share one. The default.
    #[default]
    Own,
    /// These unprivileged host ids; needs a caller with `CAP_SETUID` and `CAP_SETGID`.
    Host {
        /// Host uid, never 0.
        uid: u32,
        /// Host gid, never 0.
        gid: u32,
    },
    /// Ranges of ids, written by the caller where it has the capabilities, else by `newuidmap` and `newgidmap` within
    /// the ranges of `/etc/subuid` and `/etc/subgid`.
    Ranges {
        /// The uid map; at most 340 lines (user_namespaces(7)).
        uids: Vec<IdRange>,
        /// The gid map.
        gids: Vec<IdRange>,
    },
    /// A weakening: the program runs with the caller's own host ids although the caller is root. Kernel files such as
    /// `/proc/sys` ask for host uid 0 and not for a capability.
    KeepHostRoot,
}

/// Ids of the program, as it sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its uid inside. Default 1000.
    pub uid: u32,
    /// Its gid inside. Default 1000.
    pub gid: u32,
    /// Its supplementary groups inside. Default none. An unprivileged caller cannot drop groups that it has: the kernel
    /// keeps them as unmapped ids (user_namespaces(7), "setgroups"), and the report says so.
    pub groups: Vec<u32>,
    /// What stands behind these ids.
    pub mapping: Mapping,
}

impl Default for Identity {
    fn default() -> Self {
        Self { uid: 1000, gid: 1000, groups: Vec::new(), mapping: Mapping::Own }
    }
}
