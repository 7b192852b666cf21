//! The security modules around the caller. It must not change a label.

use super::answer::Answer;
use super::read;

/// What is known of the Linux security modules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Security {
    /// The active modules in their order, from /sys/kernel/security/lsm (Linux 4.11); `None` where securityfs is not
    /// mounted, as in most containers.
    pub modules: Option<Vec<String>>,
    /// The caller's AppArmor label, such as `unconfined` or `docker-default (enforce)`; `None` without AppArmor.
    pub apparmor_label: Option<String>,
    /// The caller's SELinux context; `None` without SELinux.
    pub selinux_context: Option<String>,
    /// Whether SELinux refuses what it does not allow, rather than only recording it.
    pub selinux_enforcing: Answer,
}

impl Security {
    /// Whether a profile other than `unconfined` confines the caller and refuses what it does not allow.
    #[must_use]
    pub fn is_apparmor_confined(&self) -> bool {
        self.apparmor_label.as_deref().is_some_and(|label| label.ends_with(" (enforce)"))
    }
}

/// The files that tell, as text.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// /sys/kernel/security/lsm
    pub(super) modules: Option<String>,
    /// /proc/thread-self/attr/current, which belongs to the first module that wants it.
    pub(super) current: Option<String>,
    /// /proc/thread-self/attr/apparmor/current, Linux 5.8.
    pub(super) apparmor: Option<String>,
    /// /sys/module/apparmor/parameters/enabled
    pub(super) apparmor_enabled: Option<String>,
    /// /sys/fs/selinux/enforce
    pub(super) selinux_enforce: Option<String>,
}

impl Sources {
    pub(super) fn read() -> Self {
        Self {
            modules: read::text("/sys/kernel/security/lsm"),
            current: read::text("/proc/thread-self/attr/current"),
            apparmor: read::text("/proc/thread-self/attr/apparmor/current"),
            apparmor_enabled: read::text("/sys/module/apparmor/parameters/enabled"),
            selinux_enforce: read::text("/sys/fs/selinux/enforce"),
        }
    }

    pub(super) fn judge(&self) -> Security {
        let modules: Option<Vec<String>> = self
            .modules
            .as_deref()
            .map(|text| text.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect());
        let listed = |name: &str| modules.iter().flatten().any(|module| module == name);
        let enforce = trimmed(self.selinux_enforce.as_deref());
        let selinux = listed("selinux") || enforce.is_some();
        let apparmor = listed("apparmor") || trimmed(self.apparmor_enabled.as_deref()) == Some("Y");
        let current = trimmed(self.current.as_deref());
        // An SELinux context has at least two colons; of an AppArmor label that is not so. It matters where both
        // modules are active or neither can be asked.
        let is_context = |label: &&str| label.matches(':').count() >= 2 && !label.starts_with(':');
        let own = trimmed(self.apparmor.as_deref());
        let shared = current.filter(|label| apparmor && !is_context(label));
        Security {
            apparmor_label: own.or(shared).map(str::to_owned),
            selinux_context: current.filter(|label| selinux && is_context(label)).map(str::to_owned),
            selinux_enforcing: match enforce {
                Some("1") => Answer::Yes,
                Some("0") => Answer::No,
                _ if modules.is_some() && !selinux => Answer::No,
                _ => Answer::Unknown,
            },
            modules,
        }
    }
}

/// Labels end in a newline, a zero byte or both.
fn trimmed(text: Option<&str>) -> Option<&str> {
    text.map(|text| text.trim_matches(|c: char| c == '\0' || c.is_whitespace()))
        .filter(|text| !text.is_empty())
}
