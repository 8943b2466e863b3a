//! The control socket: verbs for users who may not open the pins. The command line falls back to the socket.
//!
//! One process serves one request. systemd starts a service that waits for requests, so that the button works
//! while the agent is dead; without systemd the agent waits.

mod answer;
mod client;
mod entry;
mod request;
mod serve;

pub use entry::run;
