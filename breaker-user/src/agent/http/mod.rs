//! The HTTP server: metrics, history, health and the web page. It is read-only, and no peer can block the
//! agent.

mod response;
mod routes;
mod server;

pub use server::Server;
