//! Required or preferred: the one word that every item of a policy carries. It must not decide what happens on failure.

/// Whether a sandbox without this item may run at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Need {
    /// Without it nothing runs: the spawn fails. The default.
    #[default]
    Required,
    /// Without it the program runs, and the report names the item, the call that refused it and the errno.
    Preferred,
}

/// A value with its [`Need`]. Setters take `impl Into<Wanted<T>>`, so a bare value is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted<T> {
    /// What is wanted.
    pub value: T,
    /// How much.
    pub need: Need,
}

/// Marks a value as [`Need::Preferred`]: a weakening, found by searching for this word.
///
/// ```
/// # use ringfence::{Sandbox, prefer};
/// let builder = Sandbox::builder().hostname(prefer("box"));
/// ```
pub fn prefer<T>(value: T) -> Wanted<T> {
    Wanted { value, need: Need::Preferred }
}

impl<T> From<T> for Wanted<T> {
    fn from(value: T) -> Self {
        Self { value, need: Need::Required }
    }
}

impl From<&str> for Wanted<String> {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

impl From<Wanted<&str>> for Wanted<String> {
    fn from(wanted: Wanted<&str>) -> Self {
        Self { value: wanted.value.to_owned(), need: wanted.need }
    }
}
