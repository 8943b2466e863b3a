//! Many hosts under one command.

#[cfg(feature = "fleet")]
pub mod engine;
