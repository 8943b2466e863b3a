//! How the cost of an order grows with the number of sessions, connections, cores, bytes and messages.
//!
//! Each curve is measured in rounds over all its points. Every figure is above the time of an empty program
//! in the same round.

mod cores;
mod curve;
mod sessions;
mod wire;

use super::report::Table;
use super::scale::Scale;

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let [sessions, connections] = sessions::tables(scale);
    let [length, messages] = wire::tables(scale);
    vec![sessions, connections, cores::table(scale), length, messages]
}
