//! A manual page, and what all pages have in common.

/// Date of the pages: that of the commit.
pub const DATE: &str = env!("BREAKER_DATE");
/// Footer of the pages.
pub const SOURCE: &str = concat!("breaker ", env!("CARGO_PKG_VERSION"));
/// Header of the pages.
pub const MANUAL: &str = "breaker manual";

/// A manual page.
#[derive(Debug)]
pub struct Page {
    /// Name of the file, with the section: `breaker-load.1`.
    pub file: String,
    /// The page in the man macros of roff.
    pub roff: Vec<u8>,
}
