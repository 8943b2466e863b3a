//! The static checks: formatting, clippy, the documentation, rings of imports, and the length of lines and
//! files.

mod modules;
mod parser;
mod rings;
mod shape;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{object, packages, process, workspace};
use modules::Modules;

/// The directories with Rust sources.
const SOURCES: [&str; 10] = [
    "breaker-common/src",
    "breaker-common/tests",
    "breaker-ebpf/src",
    "breaker-replay/src",
    "breaker-user/src",
    "breaker-user/tests",
    "tests/ebpf/src",
    "tests/src",
    "tests/tests",
    "xtask/src",
];

/// The crates that only compile for the BPF target.
const BPF_CRATES: [&str; 2] = ["breaker-ebpf", "breaker-tests-ebpf"];

/// Checks the shape and formatting of every crate, runs clippy over the default members and builds the
/// documentation.
pub fn run() -> Result<()> {
    check_shape()?;
    process::run(process::cargo().args(["fmt", "--all", "--", "--check"]))?;
    process::run(process::cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--", "--check"]))?;
    // breaker-user does not compile without these.
    packages::ensure(packages::USER_SPACE)?;
    object::build()?;
    process::run(process::cargo().args(["clippy", "--locked", "--all-targets", "--", "--deny", "warnings"]))?;
    let mut doc = process::cargo();
    doc.args(["doc", "--locked", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
        .args(BPF_CRATES.iter().flat_map(|name| ["--exclude", name]))
        .env("RUSTDOCFLAGS", "--deny warnings");
    process::run(&mut doc)
}

/// Checks imports, lines and files, and lists every problem.
pub fn check_shape() -> Result<()> {
    // The paths in messages are relative to the root.
    std::env::set_current_dir(workspace::root())?;
    let mut problems = Vec::new();
    for name in SOURCES {
        for root in crate_roots(Path::new(name)) {
            problems.extend(rings::rings(&Modules::read(&root)?.imports()));
        }
        problems.extend(shape::too_long(Path::new(name))?);
    }
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    if !problems.is_empty() {
        bail!("{} problems of shape: see above", problems.len());
    }
    Ok(())
}

/// Returns the crate roots in a directory: of a library and a binary, or of each test program.
fn crate_roots(directory: &Path) -> Vec<PathBuf> {
    let sources: Vec<_> = ["lib.rs", "main.rs"].map(|root| directory.join(root)).into_iter().collect();
    if sources.iter().any(|root| root.is_file()) {
        return sources.into_iter().filter(|root| root.is_file()).collect();
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let programs =
        entries.map(|entry| entry.path()).map(|path| if path.is_dir() { path.join("main.rs") } else { path });
    let is_rust =
        |root: &PathBuf| root.is_file() && root.extension().is_some_and(|extension| extension == "rs");
    let mut roots: Vec<_> = programs.filter(is_rust).collect();
    roots.sort();
    roots
}
