//! Checks the licences, the sources and the versions of all dependencies.

use anyhow::Result;

use crate::{process, tools};

/// Runs cargo-deny with deny.toml. The database of advisories is only fetched for `advisories`.
pub fn run(advisories: bool) -> Result<()> {
    tools::ensure(&[tools::DENY])?;
    let mut deny = tools::cargo(&tools::DENY)?;
    deny.args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    if advisories {
        deny.arg("advisories");
    }
    process::run(&mut deny)
}
