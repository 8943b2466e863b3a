//! Builds the binary `breaker` with the kernel object inside, and runs the bench.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{packages, process, tools, workspace};

/// Builds the release binary and returns its path: target/release/breaker, unless another target directory is
/// set.
pub fn build() -> Result<PathBuf> {
    build_with(process::cargo(), "release")
}

/// Builds the binary with its dependencies recorded inside, for a package. Returns its path.
pub fn build_auditable(profile: &str) -> Result<PathBuf> {
    build_with(tools::cargo(&tools::AUDITABLE)?, profile)
}

fn build_with(mut cargo: Command, profile: &str) -> Result<PathBuf> {
    packages::ensure(packages::USER_SPACE)?;
    cargo
        .args(["rustc", "--profile", profile, "--locked", "--package", "breaker-user", "--bin", "breaker"])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    if has_static_libc() {
        // Without dynamic linking at the start, `breaker trip` sets the switch in two thirds of the time.
        cargo.args(["--", "-C", "target-feature=+crt-static"]);
    }
    let mut child = cargo.spawn().with_context(|| format!("starting {}", process::describe(&cargo)))?;
    let mut breaker = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            breaker = binary_path(&line?).or(breaker);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("building breaker failed: {status}");
    }
    breaker.context(
        "building breaker: cargo reported no executable `breaker`: check [[bin]] in breaker-user/Cargo.toml",
    )
}

/// Returns true if the C library is installed as an archive. Some distributions have a separate package for
/// the archive.
fn has_static_libc() -> bool {
    let found = process::stdout_of(Command::new("cc").arg("-print-file-name=libc.a"));
    found.is_some_and(|path| Path::new(&path).is_file())
}

/// Returns the path of the binary from a JSON message of cargo.
fn binary_path(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_breaker = message["target"]["name"] == "breaker";
    is_breaker.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

/// Runs the bench in a release build. Without `smoke`, the bench writes bench/results.json and the documents.
pub fn bench(smoke: bool, sections: &[String]) -> Result<()> {
    let mut cargo = bench_command();
    match smoke {
        true => cargo.arg("--smoke"),
        false => cargo.arg("--into").arg(workspace::root()),
    };
    process::run(cargo.args(sections))
}

/// Writes the tables and pictures in the documents from bench/results.json.
pub fn draw() -> Result<()> {
    process::run(bench_command().arg("--draw").arg(workspace::root()))
}

fn bench_command() -> Command {
    let mut cargo = process::cargo();
    cargo.args(["run", "--release", "--locked", "--package", "breaker-tests", "--bin", "bench", "--"]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_of_the_binary_has_a_path() {
        let binary = r#"{"target":{"kind":["bin"],"name":"breaker"},"executable":"/x/breaker"}"#;
        let library = r#"{"target":{"kind":["lib"],"name":"breaker_user"},"executable":null}"#;
        assert_eq!(binary_path(binary), Some(PathBuf::from("/x/breaker")));
        assert_eq!(binary_path(library), None);
        assert_eq!(binary_path(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(binary_path("not JSON"), None);
    }
}
