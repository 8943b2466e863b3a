//! The binary `breaker`, with the kernel object inside.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, workspace};

/// Builds it for release and says where cargo put it: target/release/breaker, unless a target directory is configured.
pub fn build() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo
        .args(["rustc", "--release", "--locked", "--package", "breaker-user", "--bin", "breaker"])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    if has_static_libc() {
        // Nothing to find and to bind at each start: `breaker trip` throws its switch in two thirds of the time.
        cargo.args(["--", "-C", "target-feature=+crt-static"]);
    }
    let mut child = cargo.spawn().with_context(|| format!("starting {}", process::describe(&cargo)))?;
    let mut breaker = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            breaker = executable(&line?).or(breaker);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("building breaker failed: {status}");
    }
    breaker.context(
        "building breaker: cargo names no executable `breaker`: see [[bin]] in breaker-user/Cargo.toml",
    )
}

/// Whether the C library is there as an archive; some distributions have that in a package of its own.
fn has_static_libc() -> bool {
    let found = process::answer(Command::new("cc").arg("-print-file-name=libc.a"));
    found.is_some_and(|path| Path::new(&path).is_file())
}

/// The path in cargo's message that the binary is there.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_breaker = message["target"]["name"] == "breaker";
    is_breaker.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

/// Measures, with a release build, and keeps the figures in bench/results.json and in the documents, unless they are none.
pub fn bench(smoke: bool, sections: &[String]) -> Result<()> {
    let mut cargo = measuring();
    match smoke {
        true => cargo.arg("--smoke"),
        false => cargo.arg("--into").arg(workspace::root()),
    };
    process::run(cargo.args(sections))
}

/// Writes the documents and pictures anew from bench/results.json.
pub fn draw() -> Result<()> {
    process::run(measuring().arg("--draw").arg(workspace::root()))
}

fn measuring() -> Command {
    let mut cargo = process::cargo();
    cargo.args(["run", "--release", "--locked", "--package", "breaker-tests", "--bin", "bench", "--"]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_path_of_the_binary_alone() {
        let binary = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"breaker"},"executable":"/x/breaker"}"#;
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"breaker_user"},"executable":null}"#;
        assert_eq!(executable(binary), Some(PathBuf::from("/x/breaker")));
        assert_eq!(executable(library), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not JSON"), None);
    }
}
