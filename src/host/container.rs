//! Looks for signs that the caller runs in a container. It must not be used to decide what to do, only to word advice:
//! every sign can be forged, and an image may be booted as a machine of its own.

use crate::error::Runtime;

/// The sign of a container that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Container {
    /// What probably made the container.
    pub runtime: Runtime,
    /// Where that was seen.
    pub seen: String,
}

impl Container {
    /// Makes one by hand.
    #[must_use]
    pub fn new(runtime: Runtime, seen: impl Into<String>) -> Self {
        Self { runtime, seen: seen.into() }
    }
}

/// Files that a runtime puts into its containers, the more telling ones first.
const FILES: [(&str, Runtime); 6] = [
    ("/var/run/secrets/kubernetes.io", Runtime::Kubernetes),
    ("/run/.containerenv", Runtime::Podman),
    ("/.flatpak-info", Runtime::Flatpak),
    ("/.dockerenv", Runtime::Docker),
    ("/dev/lxd", Runtime::Lxc),
    ("/dev/incus", Runtime::Lxc),
];

/// Words in the path of a control group. With a cgroup namespace of its own a container sees only "/".
const WORDS: [(&str, Runtime); 7] = [
    ("kubepods", Runtime::Kubernetes),
    ("libpod", Runtime::Podman),
    ("docker", Runtime::Docker),
    ("containerd", Runtime::Other),
    ("crio-", Runtime::Kubernetes),
    ("lxc", Runtime::Lxc),
    ("machine.slice/systemd-nspawn", Runtime::Nspawn),
];

/// Judges the signs: `is_there` tells whether a file exists, `manager` is the text of /run/host/container-manager
/// (systemd.io/CONTAINER_INTERFACE), `cgroup` that of /proc/self/cgroup.
pub(super) fn judge(
    is_there: impl Fn(&str) -> bool,
    manager: Option<&str>,
    cgroup: Option<&str>,
) -> Option<Container> {
    if let Some((path, runtime)) = FILES.into_iter().find(|(path, _)| is_there(path)) {
        return Some(Container::new(runtime, path));
    }
    if let Some(name) = manager.map(str::trim).filter(|name| !name.is_empty()) {
        return Some(Container::new(by_name(name), format!("/run/host/container-manager says {name}")));
    }
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    cgroup?.lines().filter_map(path).find_map(|path| {
        let (_, runtime) = WORDS.into_iter().find(|(word, _)| path.contains(word))?;
        Some(Container::new(runtime, format!("/proc/self/cgroup names {path}")))
    })
}

fn by_name(manager: &str) -> Runtime {
    match manager {
        "systemd-nspawn" => Runtime::Nspawn,
        "podman" => Runtime::Podman,
        "docker" => Runtime::Docker,
        "lxc" | "lxc-libvirt" => Runtime::Lxc,
        _ => Runtime::Other,
    }
}
