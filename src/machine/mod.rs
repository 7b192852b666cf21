//! The machine: its instruction set, its meaning, the image it runs from, the words on the wire. It must not know what a
//! sandbox is; of the crate it may use `sys` only.

pub mod image;
pub mod isa;
pub mod layout;
pub mod model;
pub mod segment;
pub mod wire;
