//! breaker: an order-flow circuit breaker in the Linux kernel. This library contains the code of the binary,
//! the tests and the drill.
//!
//! Imports point one way: `control` on top, then `command`, `agent` and `top`, then `reload` and `rates`,
//! then `view`, `enforced`, `state`, `journal`, then `load_log`, then `kernel`, `journald` and `audit`, then
//! `display` and `config`. `fleet` needs `config` alone.

pub mod agent;
pub mod audit;
mod background;
pub mod cli;
pub mod cli_error;
pub mod command;
pub mod config;
pub mod control;
pub mod display;
pub mod drill;
pub mod enforced;
mod file;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod journal;
pub mod journald;
pub mod kernel;
mod load_log;
mod manual;
mod netlink;
pub mod people;
pub mod rates;
pub mod reload;
pub mod replay;
mod reset;
mod resident;
mod rules;
mod seqpacket;
pub mod state;
pub mod testbed;
pub mod top;
pub mod view;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Git commit of this program.
pub const GIT: &str = env!("BREAKER_GIT");
