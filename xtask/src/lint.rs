//! The static checks: formatting and clippy.

use anyhow::Result;

use crate::{object, process};

/// Checks the formatting of every crate and of the fuzz targets, and runs clippy over the default members.
pub fn run() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--", "--check"]))?;
    process::run(process::cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--", "--check"]))?;
    // breaker-user does not compile without the kernel object.
    object::build()?;
    process::run(process::cargo().args(["clippy", "--locked", "--all-targets", "--", "--deny", "warnings"]))
}
