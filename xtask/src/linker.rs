//! Finds bpf-linker on PATH, or builds one on the LLVM of the distribution.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{packages, process, workspace};

const VERSION: &str = "0.13.0";
/// The LLVM version that the linker of this repository is built on.
const LLVM: u32 = 22;

/// Returns the newest LLVM version with bitcode that the linker can read.
///
/// The version is unknown (`None`) for a linker on PATH.
pub fn newest_llvm() -> Option<u32> {
    on_path().is_none().then_some(LLVM)
}

/// Returns the path of the linker, and builds the linker first if there is none.
pub fn find_or_build() -> Result<PathBuf> {
    if let Some(linker) = on_path() {
        return Ok(linker);
    }
    let linker = workspace::tools().join("bin/bpf-linker");
    if !is_current(&linker) {
        build().context("building bpf-linker failed, and PATH has no bpf-linker that runs")?;
    }
    Ok(linker)
}

fn on_path() -> Option<PathBuf> {
    packages::find_program("bpf-linker")
        .filter(|linker| process::stdout_of(Command::new(linker).arg("--version")).is_some())
}

/// Returns true if the linker runs and has the wanted version.
///
/// A linker without its LLVM library does not run.
fn is_current(linker: &Path) -> bool {
    process::stdout_of(Command::new(linker).arg("--version")).is_some_and(|output| output.ends_with(VERSION))
}

fn build() -> Result<()> {
    packages::ensure(packages::LINKER)?;
    eprintln!("building bpf-linker {VERSION}: about a minute, once");
    let mut install = process::cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--quiet"])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}")])
        .arg("--root")
        .arg(workspace::tools())
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
        // Without this variable `cargo install` builds in a temporary directory and removes the directory.
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut install)
}
