//! A copy of the checkout in another directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Copies every file of the checkout that git tracks or would add. Replaces an older copy.
pub fn checkout(to: &Path) -> Result<()> {
    let root = workspace::root();
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("removing {}", to.display()))?;
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(&root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = process::stdout_of(&mut git)
        .context("listing the files of the checkout: git failed: run this in a checkout")?;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), to.join(file));
        // A file that is removed but not yet committed is still listed.
        if !from.is_file() {
            continue;
        }
        to.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("copying {file} to {}", to.display()))?;
    }
    Ok(())
}
