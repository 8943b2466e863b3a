//! `breaker man`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::output::print;
use crate::cli::ManArgs;
use crate::manual;

/// Writes the manual pages to a directory.
pub fn run(args: &ManArgs) -> Result<ExitCode> {
    let directory = &args.directory;
    let pages = manual::pages()?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    for page in &pages {
        let path = directory.join(&page.file);
        fs::write(&path, &page.roff).with_context(|| format!("writing {}", path.display()))?;
    }
    print(&format!("{} manual pages are in {}", pages.len(), directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
