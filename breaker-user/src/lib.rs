//! breaker: an order-flow circuit breaker in the Linux kernel. This library is what its binary, its tests and its drill are made of.

pub mod agent;
pub mod audit;
pub mod cli;
pub mod cli_error;
pub mod command;
pub mod config;
pub mod drill;
pub mod enforced;
mod file;
pub mod journal;
pub mod kernel;
mod netlink;
pub mod testbed;
pub mod view;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit of this program.
pub const GIT: &str = env!("BREAKER_GIT");
