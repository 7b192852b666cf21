//! Capabilities, securebits, no_new_privs and nested user namespaces, as the program itself sees them.

#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ringfence::{Access, Capabilities, Capability, Init, Launch, Sandbox};

    use super::support::{build, field, is_root, python, run_python, run_sh, sandbox, sh, skip, Scratch};

    const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

    fn status(sandbox: &Sandbox) -> String {
        sh(sandbox, "cat /proc/self/status")
    }

    #[test]
    fn all_five_sets_are_empty_by_default() {
        for launch in [Launch::Auto, Launch::Copy] {
            for init in [Init::Reaper, Init::Program] {
                let status = status(&build(sandbox().launch(launch).init(init)));
                for set in SETS {
                    assert_eq!(field(&status, set), "0000000000000000", "{set} {launch:?} {init:?}");
                }
            }
        }
    }
}
