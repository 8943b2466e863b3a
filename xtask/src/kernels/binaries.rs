//! `breaker` and the tests as static programs: a machine that has nothing else can run them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::plan::Suite;
use crate::{object, process};

/// A target must be named for its flags to stay away from build scripts and macros, which cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The profile for development, which compiles fastest, without what is not used there. What reads the object is optimized:
/// emulated, it would else take longer than the kernel's verifier.
const PROFILE: [&str; 6] = [
    "profile.dev.debug=0",
    "profile.dev.incremental=false",
    "profile.dev.strip='symbols'",
    "profile.dev.package.aya.opt-level=2",
    "profile.dev.package.aya-obj.opt-level=2",
    "profile.dev.package.object.opt-level=2",
];

/// Where the programs for the kernel go that only tests use.
pub const OBJECTS: &str = "objects";
/// Those of them that are used there: see `breaker_tests::empty`.
const USED: [&str; 1] = ["empty"];

/// Builds them with these test programs; the content of each by its name.
pub fn build(cache: &Path, suites: &[Suite]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec!["breaker", "guest"];
    let mut cargo = process::cargo();
    cargo.args(["build", "--locked", "--target", TARGET, "--message-format=json-render-diagnostics"]).args([
        "--package",
        "breaker-user",
        "--package",
        "breaker-tests",
        "--bin",
        "breaker",
        "--bin",
        "guest",
    ]);
    for suite in suites {
        cargo.args(["--test", suite.program]);
        names.push(suite.program);
    }
    cargo
        .arg("--target-dir")
        .arg(cache.join("build"))
        .args(PROFILE.iter().flat_map(|setting| ["--config", setting]))
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("starting {}", process::describe(&cargo)))?;
    let mut paths = BTreeMap::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            paths.extend(executable(&line?));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("building static programs failed: {status}");
    }
    let read = |name: String, path: &Path| -> Result<(String, Vec<u8>)> {
        Ok((name, fs::read(path).with_context(|| format!("reading {}", path.display()))?))
    };
    let programs = names.into_iter().map(|name| {
        let path =
            paths.get(name).with_context(|| format!("building static programs: cargo names no {name}"))?;
        read(name.to_owned(), path)
    });
    let objects = USED.iter().map(|name| read(format!("{OBJECTS}/{name}"), &object::built(name)));
    programs.chain(objects).collect()
}

/// Name and place of a program in cargo's message that it is there.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_name_and_path_of_programs_alone() {
        let test = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"program"},"executable":"/x/program-1f"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"program"},"executable":null}"#;
        assert_eq!(executable(test), Some(("program".to_owned(), "/x/program-1f".into())));
        assert_eq!(executable(library), None);
    }
}
