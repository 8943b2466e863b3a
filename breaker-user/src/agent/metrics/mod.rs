//! The metrics: figures read from the maps at each scrape.

mod families;
mod figures;
mod source;
mod text;

#[cfg(test)]
mod tests;

pub use families::FAMILIES;
pub use figures::Figures;
pub use source::Source;
pub use text::{Format, text};
