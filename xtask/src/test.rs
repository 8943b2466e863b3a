//! Runs every test, forwards the output and prints one line with the counts at the end.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::leftovers::Snapshot;
use crate::process;
use crate::test_counts::TestCounts;

/// Runs `cargo test` with `args` added.
///
/// A test program that died without a result line counts as one failure. Each network namespace or pin that
/// the tests leave on the machine counts as one failure too.
pub fn run(args: &[OsString]) -> Result<ExitCode> {
    let before = Snapshot::take();
    let mut cargo = process::cargo();
    cargo
        // Without --no-fail-fast cargo stops at the first program with a failure, and the counts are
        // incomplete.
        .args(["test", "--workspace", "--exclude", "breaker-ebpf", "--exclude", "breaker-tests-ebpf"])
        .args(["--locked", "--no-fail-fast"])
        .args(args)
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("starting {}", process::describe(&cargo)))?;
    let mut counts = match child.stdout.take() {
        Some(stdout) => forward(stdout, std::io::stdout())?,
        None => TestCounts::default(),
    };
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        eprintln!(
            "xtask: cargo test failed without a failed test: {status}: \
             a crate did not compile, or a test program died"
        );
        counts.failed = 1;
    }
    for change in Snapshot::take().changes_since(&before) {
        eprintln!("xtask: after the tests: {change}");
        counts.failed += 1;
    }
    println!("{counts}");
    Ok(if counts.succeeded() && status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Forwards every line and adds up the result lines.
fn forward(from: impl Read, mut to: impl Write) -> Result<TestCounts> {
    let mut from = BufReader::new(from);
    let mut counts = TestCounts::default();
    let mut line = Vec::new();
    // Bytes, because the output of a test is not always UTF-8.
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        counts.add_line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_forwarded_unchanged_and_counted() {
        let output = b"\xff\xfe\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\nno end of line";
        let mut shown = Vec::new();
        let counts = forward(&output[..], &mut shown).expect("reading from memory");
        assert_eq!(shown, output);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (2, 0, 1));
    }
}
