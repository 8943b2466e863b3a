//! Builds `breaker` and the tests as static programs, which run in a guest without any other file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::plan::Suite;
use crate::{object, packages, process, workspace};

/// The target is explicit, so that cargo does not apply the flags to build scripts and macros, which cannot
/// be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The settings of the dev profile, which compiles fastest, without debug info.
///
/// The crates that read the object are optimized. Otherwise reading the object takes longer than the kernel's
/// verifier, because the guest is emulated.
const PROFILE: [&str; 6] = [
    "profile.dev.debug=0",
    "profile.dev.incremental=false",
    "profile.dev.strip='symbols'",
    "profile.dev.package.aya.opt-level=2",
    "profile.dev.package.aya-obj.opt-level=2",
    "profile.dev.package.object.opt-level=2",
];

/// The directory of the guest with the BPF programs that only tests use.
pub const OBJECTS: &str = "objects";
/// The names of the BPF programs that only tests use, see `breaker_tests::empty`.
const TEST_OBJECTS: [&str; 1] = ["empty"];

/// Builds `breaker`, the guest's init and the test programs of the suites. Returns the contents by name.
pub fn build(cache: &Path, suites: &[Suite]) -> Result<BTreeMap<String, Vec<u8>>> {
    packages::ensure(packages::USER_SPACE)?;
    let mut names = vec!["breaker", "guest", "boot"];
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
        "--bin",
        "boot",
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
            paths.extend(name_and_path(&line?));
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
        let path = paths
            .get(name)
            .with_context(|| format!("building static programs: cargo reported no executable {name}"))?;
        read(name.to_owned(), path)
    });
    let objects = TEST_OBJECTS
        .iter()
        .map(|name| read(format!("{OBJECTS}/{name}"), &object::compiled(&workspace::root(), name)));
    programs.chain(objects).collect()
}

/// Returns the name and the path of a program from a JSON message of cargo.
fn name_and_path(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_of_a_program_has_a_name_and_a_path() {
        let test = r#"{"target":{"kind":["test"],"name":"program"},"executable":"/x/program-1f"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"program"},"executable":null}"#;
        assert_eq!(name_and_path(test), Some(("program".to_owned(), "/x/program-1f".into())));
        assert_eq!(name_and_path(library), None);
    }
}
