//! Finds the kernel object that the library includes, and the commit that it is built from.
//!
//! The object is in `<workspace>/target/bpf`, whatever target directory cargo uses for the rest.
//! `BREAKER_OBJECT` names another object, which is used as it is. A relative path starts at the workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

#[path = "../xtask/src/sources.rs"]
mod sources;

fn main() -> ExitCode {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = manifest.parent().unwrap_or(&manifest);
    println!("cargo::rustc-env=BREAKER_GIT={}", commit(root).unwrap_or_else(|| "unknown".to_owned()));
    // An empty argument of a roff macro is a pair of quotation marks.
    let date = git(root, &["log", "-1", "--format=%cs"]).unwrap_or_else(|| "\"\"".to_owned());
    println!("cargo::rustc-env=BREAKER_DATE={date}");
    match object(root) {
        Ok(object) => {
            println!("cargo::rustc-env=BREAKER_OBJECT={}", object.display());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

/// Path of the object to include; the error says why there is none.
fn object(root: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=BREAKER_OBJECT");
    let chosen = env::var_os("BREAKER_OBJECT").filter(|path| !path.is_empty());
    let object = chosen.as_ref().map_or_else(|| sources::object(root), |path| root.join(path));
    watch(&object);
    if !object.is_file() {
        let cure = if chosen.is_some() { "correct BREAKER_OBJECT" } else { "run `cargo xtask build`" };
        return Err(format!("including the kernel program: {} does not exist: {cure}", object.display()));
    }
    if chosen.is_none() {
        check_age(root, &object)?;
    }
    Ok(object)
}

/// Compares the object with the sources: tests of an outdated object would test another program.
fn check_age(root: &Path, object: &Path) -> Result<(), String> {
    sources::WATCHED.iter().for_each(|path| watch(&root.join(path)));
    watch(&sources::stamp(root));
    let digest =
        sources::digest(root).map_err(|error| format!("reading the kernel program's sources: {error}"))?;
    if fs::read_to_string(sources::stamp(root)).is_ok_and(|stamp| stamp == digest) {
        return Ok(());
    }
    let object = object.display();
    Err(format!("including the kernel program: {object} is older than its sources: run `cargo xtask build`"))
}

/// Short hash of the checked-out commit; `None` outside a checkout.
fn commit(root: &Path) -> Option<String> {
    // A commit or a checkout changes one of these. Cargo considers an absent path changed at each build.
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        let path = root.join(git(root, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            watch(&path);
        }
    }
    git(root, &["rev-parse", "--short=12", "--verify", "HEAD"])
}

/// Output of git in the checkout; `None` if git fails.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
