//! The calling process lowers itself: filter, Landlock domain, capabilities and `no_new_privs`, for all of its threads or
//! not at all. It must not change anything before all has been looked at that can be looked at.

mod apply;
mod builder;
mod capability;
mod domain;
mod filter;
mod report;
mod threads;

pub use builder::{Lowering, LoweringBuilder};
pub use report::{FilterProof, Lowered, LoweredThread};
