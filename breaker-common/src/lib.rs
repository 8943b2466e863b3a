//! All that breaker's kernel program and its user space must agree on, and all logic that needs neither of them.
//!
//! The same code runs in the kernel (built for `bpfel-unknown-none`), in the loader, and under `cargo test` without root.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod blind;
pub mod class;
pub mod counts;
pub mod decide;
pub mod fields;
pub mod fix;
pub mod framing;
pub mod inbound;
pub mod limits;
pub mod message;
pub mod payload;
pub mod sequence;
pub mod walk;
pub mod window;
