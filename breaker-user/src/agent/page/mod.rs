//! The web page: its files, and the state of the load once a second for all viewers.

mod assets;
mod live;
mod state;

pub use assets::{Asset, asset};
pub use live::{Encoding, Live, Viewer};
