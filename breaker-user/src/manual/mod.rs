//! The manual pages: `breaker(1)` and a page of each verb, from the command line, and `breaker.toml(5)`, from
//! docs/configuration.md.

mod configuration;
mod markdown;
mod page;
mod verbs;

use anyhow::Result;

pub use page::Page;

/// Returns all manual pages.
pub fn pages() -> Result<Vec<Page>> {
    let mut pages = verbs::pages()?;
    pages.push(configuration::page()?);
    Ok(pages)
}
