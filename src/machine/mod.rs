//! The machine: its instruction set, its meaning, the image it runs from, the words on the wire. It must not know what a
//! sandbox is; of the crate it may use `sys` only.

pub(crate) mod image;
pub(crate) mod isa;
pub(crate) mod layout;
pub(crate) mod model;
pub(crate) mod segment;
#[cfg(test)]
mod tests;
pub(crate) mod wire;
