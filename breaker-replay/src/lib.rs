//! breaker without a kernel: [`model`] has the maps in memory and calls the same `decide` as the kernel
//! program. The other modules read captures and run the model over their packets.
//!
//! The modules point one way: [`model`] and [`capture`] depend on no other module, and [`engine`] is on top.

pub mod capture;
pub mod engine;
pub mod headers;
mod link;
pub mod model;
mod order;
