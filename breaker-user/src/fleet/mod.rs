//! Many hosts under one command.

pub mod engine;
