//! Everything that touches bpf(2): the object, its pins and links, its maps with their types.
//!
//! Nothing above this module sees a map's bytes, and nothing in it decides on order flow.

pub mod attachment;
mod batch;
pub mod bpffs;
pub mod breaker;
mod bypass;
pub mod clock;
mod clsact;
mod detach_link;
pub mod disconnect;
pub mod hook;
pub mod links;
pub mod load;
pub mod maps;
pub mod memory;
mod meta;
pub mod netns;
mod pages;
pub mod pins;
mod programs;
pub mod reattach;
pub mod reload;
pub mod routes;
pub mod sockets;
pub mod switchboard;
pub mod tables;
mod tcx;
pub mod tunnels;
mod xdp;

pub use breaker::Breaker;
pub use pins::PinRoot;
pub use switchboard::{Reset, Switchboard};
