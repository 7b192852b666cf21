//! tmp
pub use crate::host::Cause;
