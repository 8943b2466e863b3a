//! The software bill of materials: every dependency of the binary and of the kernel program, as CycloneDX.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::copy;
use crate::{process, tools, workspace};

/// The crates of a package, and the files in `sbom/`.
const CRATES: [(&str, &str); 2] =
    [("breaker-user", "breaker.cdx.json"), ("breaker-ebpf", "kernel-program.cdx.json")];

/// Writes the lists to a directory.
pub fn write(directory: &Path, to: &Path) -> Result<()> {
    // cargo-cyclonedx writes beside each Cargo.toml of the workspace.
    let copy = directory.join("described");
    copy::checkout(&copy)?;
    let mut cargo = tools::cargo(&tools::CYCLONEDX)?;
    cargo
        .current_dir(&copy)
        .args(["--quiet", "--format", "json", "--spec-version", "1.5", "--override-filename", "sbom.cdx"])
        // With a time the list has no random number either.
        .env("SOURCE_DATE_EPOCH", time_of_commit());
    process::run(&mut cargo)?;
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for (name, file) in CRATES {
        let from = copy.join(name).join("sbom.cdx.json");
        let list = fs::read_to_string(&from).with_context(|| format!("reading {}", from.display()))?;
        let list = list.replace(&format!("path+file://{}", copy.display()), "path+file:///breaker");
        let to = to.join(file);
        fs::write(&to, list).with_context(|| format!("writing {}", to.display()))?;
    }
    fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))
}

/// Returns the time of the commit in seconds since 1970; 0 outside a checkout.
fn time_of_commit() -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace::root()).args(["log", "-1", "--format=%ct"]);
    process::stdout_of(&mut git).unwrap_or_else(|| "0".to_owned())
}
