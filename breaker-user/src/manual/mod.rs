//! The manual pages: `breaker(1)` and a page of each verb, from the command line, and `breaker.toml(5)`, from
//! docs/configuration.md.

mod configuration;
mod markdown;
mod verbs;

use anyhow::Result;

/// Date of the pages: that of the commit.
const DATE: &str = env!("BREAKER_DATE");
/// Footer of the pages.
const SOURCE: &str = concat!("breaker ", env!("CARGO_PKG_VERSION"));
/// Header of the pages.
const MANUAL: &str = "breaker manual";

/// A manual page.
#[derive(Debug)]
pub struct Page {
    /// Name of the file, with the section: `breaker-load.1`.
    pub file: String,
    /// The page in the man macros of roff.
    pub roff: Vec<u8>,
}

/// Returns all manual pages.
pub fn pages() -> Result<Vec<Page>> {
    let mut pages = verbs::pages()?;
    pages.push(configuration::page()?);
    Ok(pages)
}
