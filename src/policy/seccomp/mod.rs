//! System-call filters as data: calls, conditions, actions, presets. It must not know how a filter is compiled.

mod action;
mod call;
mod condition;
mod filter;
mod groups;
mod preset;
mod table;
#[cfg(test)]
mod tests;
mod told;

pub use action::Action;
pub use call::Architecture;
pub(crate) use call::X32_BIT;
pub(crate) use condition::Test;
pub use condition::{Argument, Condition, Width};
pub(crate) use filter::LaunchCalls;
pub use filter::{Filter, Rule};
