//! Tests of the host module. They must not depend on the machine that they run on, but for those in `machine`.

mod cgroup;
mod diagnosis;
mod facts;
mod features;
mod machine;
mod mounts;
mod texts;
