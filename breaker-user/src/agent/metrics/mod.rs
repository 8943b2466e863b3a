//! The metrics over HTTP: figures read from the maps at each scrape.

mod families;
mod figures;
mod server;
mod source;
mod text;

#[cfg(test)]
mod tests;

pub use families::FAMILIES;
pub use server::Server;
pub use source::Source;
