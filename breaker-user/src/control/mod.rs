//! The control socket: verbs for users who may not open the pins. The command line falls back to it by
//! itself.
//!
//! One process serves one connection, so that the button works while the agent is dead. systemd starts it for
//! each connection; without systemd the agent does.

mod answer;
mod client;
mod entry;
mod request;
mod serve;

pub use entry::run;
