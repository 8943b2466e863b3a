//! The control socket: verbs for users who may not open the pins. The command line falls back to the socket.
//!
//! One process serves one request. systemd starts a service that waits for requests, so that `breaker trip`
//! works while the agent is dead. Without systemd the agent waits for requests.

mod answer;
mod client;
mod entry;
mod request;
mod serve;

pub use entry::run;
