//! Runs the fuzz targets on stable Rust.
//!
//! Coverage comes from an LLVM pass that every rustc has, and libFuzzer is compiled with the targets. With
//! cargo-fuzz and a nightly toolchain, `cargo fuzz run TARGET` works too.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{packages, process, workspace};

/// The flags of cargo-fuzz without a sanitizer, because sanitizers need a nightly toolchain.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// The longest time for one input, in seconds. A slower input is a failure.
const TIMEOUT: u32 = 10;

/// Runs every target for an equal part of `seconds`.
pub fn run(seconds: u64) -> Result<()> {
    packages::ensure(packages::FUZZ)?;
    let home = workspace::root().join("fuzz");
    let targets = targets(&home)?;
    let programs = build(&home)?;
    let each = (seconds / targets.len() as u64).max(1);
    for target in targets {
        let executions = fuzz(&home, &programs.join(&target), &target, each)?;
        println!("fuzz target {target}: {executions} executions in {each} s, no crash");
    }
    Ok(())
}

fn targets(home: &Path) -> Result<Vec<String>> {
    let directory = home.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    if names.is_empty() {
        bail!("no fuzz target is in {}", directory.display());
    }
    Ok(names)
}

fn build(home: &Path) -> Result<PathBuf> {
    let rustc =
        process::stdout_of(Command::new("rustc").arg("-vV")).context("asking rustc for its version")?;
    let host =
        rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let target_dir = home.join("target");
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        // With an explicit target, cargo does not apply the flags to build scripts, which libFuzzer is not
        // linked to.
        .args(["--target", host])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    process::run(&mut cargo)?;
    Ok(target_dir.join(host).join("release"))
}

/// Runs one target and returns the number of executed inputs.
fn fuzz(home: &Path, program: &Path, target: &str, seconds: u64) -> Result<u64> {
    let found = home.join("target/corpus").join(target);
    let seeds = home.join("corpus").join(target);
    let artifacts = home.join("artifacts").join(target);
    for directory in [&found, &seeds, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(artifacts.join(""));
    let mut command = Command::new(program);
    command
        .args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT}"),
            "-print_final_stats=1".to_owned(),
        ])
        .arg(prefix)
        // libFuzzer writes into the first directory and only reads the second one.
        .args([&found, &seeds])
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    let executions = child.stderr.take().map(forward).transpose()?.flatten();
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "fuzz target {target} failed: {status}: the input is in {}: run {} with this input",
            artifacts.display(),
            program.display()
        );
    }
    executions.with_context(|| format!("fuzz target {target} printed no number of executions"))
}

/// Forwards all lines but the progress and returns the number of executions.
fn forward(from: impl Read) -> Result<Option<u64>> {
    let mut from = BufReader::new(from);
    let mut executions = None;
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if !text.starts_with('#') {
            eprint!("{text}");
        }
        executions = parse_executions(&text).or(executions);
        line.clear();
    }
    Ok(executions)
}

fn parse_executions(line: &str) -> Option<u64> {
    line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_executions_is_read() {
        assert_eq!(parse_executions("stat::number_of_executed_units: 213456\n"), Some(213_456));
        assert_eq!(parse_executions("stat::average_exec_per_sec:     0\n"), None);
    }

    #[test]
    fn every_target_has_seeds() {
        let home = workspace::root().join("fuzz");
        for target in targets(&home).expect("fuzz targets") {
            let mut seeds = fs::read_dir(home.join("corpus").join(&target)).expect("a seed directory");
            assert!(seeds.next().is_some(), "{target} has no seeds");
        }
    }
}
