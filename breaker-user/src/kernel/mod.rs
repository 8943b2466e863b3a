//! Everything that calls bpf(2): the object, its programs, pins and links, and its maps with their types.
//!
//! No module outside of this one sees the bytes of a map. No module inside decides about order flow.

mod address;
pub mod attach;
pub mod attach_plan;
pub mod attach_point;
pub mod attachment;
mod batch;
pub mod bpffs;
pub mod breaker;
mod btf;
mod bypass;
pub mod clock;
mod clsact;
pub mod connections;
mod counters;
pub mod detach_link;
mod direction;
pub mod disconnect;
pub mod durable;
mod endpoint_lookup;
mod fill;
pub mod frozen;
pub mod limit_use;
pub mod links;
pub mod load;
pub mod loaded_programs;
pub mod maps;
pub mod memory;
mod meta;
pub mod netns;
pub mod object;
pub mod pins;
mod programs;
mod raw_map;
pub mod reattach;
pub mod recorded;
pub mod reload;
pub mod rights;
pub mod routes;
mod sessions;
pub mod sockets;
mod strided;
mod swap;
pub mod switchboard;
pub mod tables;
mod tcx;
pub mod text;
pub mod tunnels;
pub mod upgrade;
mod xdp;

pub use address::ip_address;
pub use breaker::Breaker;
pub use pins::PinRoot;
pub use switchboard::{Reset, Switchboard};
