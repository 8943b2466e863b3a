//! `breaker.toml(5)`, from docs/configuration.md.

use anyhow::Result;
use clap_mangen::roff::{Roff, bold, roman};

use super::markdown;
use super::page::{DATE, MANUAL, Page, SOURCE};
use crate::config::DEFAULT_PATH;

const TEXT: &str = include_str!("../../../docs/configuration.md");

/// Returns the page of the configuration.
pub fn page() -> Result<Page> {
    let mut page = Roff::new();
    page.control("TH", ["breaker.toml", "5", DATE, SOURCE, MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("breaker.toml - configuration of breaker")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold(DEFAULT_PATH)]);
    page.control("SH", ["DESCRIPTION"]);
    markdown::render(TEXT, &mut page);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("breaker"), roman("(1), "), bold("breaker-check"), roman("(1)")]);
    let mut roff = Vec::new();
    page.to_writer(&mut roff)?;
    Ok(Page { file: "breaker.toml.5".to_owned(), roff })
}
