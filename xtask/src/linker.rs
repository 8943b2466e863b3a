//! bpf-linker: one on PATH is used as it is; else one is built here, once, on the distribution's LLVM.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{packages, process, workspace};

const VERSION: &str = "0.13.0";
/// The LLVM that ours is built on.
const LLVM: u32 = 22;

/// The newest LLVM whose bitcode the linker will read, where we know: one on PATH does not say.
pub fn newest_llvm() -> Option<u32> {
    on_path().is_none().then_some(LLVM)
}

/// The linker to use, built first where there is none.
pub fn find_or_build() -> Result<PathBuf> {
    if let Some(linker) = on_path() {
        return Ok(linker);
    }
    let linker = workspace::tools().join("bin/bpf-linker");
    if !is_ours(&linker) {
        build().context(
            "bpf-linker: none that runs is on PATH, where one would be used as it is, and building it failed",
        )?;
    }
    Ok(linker)
}

fn on_path() -> Option<PathBuf> {
    packages::program("bpf-linker")
        .filter(|linker| process::answer(Command::new(linker).arg("--version")).is_some())
}

/// Also false where it is there but its LLVM is gone: it must run to say its version.
fn is_ours(linker: &Path) -> bool {
    process::answer(Command::new(linker).arg("--version")).is_some_and(|said| said.ends_with(VERSION))
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
        // Its intermediate files belong into a temporary directory that cargo removes, not into ours.
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut install)
}
