//! Runs every test, shows their output as it comes and ends with one line that says how many passed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::leftovers::Machine;
use crate::process;
use crate::tally::Tally;

/// Runs `cargo test` with `args` added. A test program that died without a result, and each thing left behind on the
/// machine, counts as one failure.
pub fn run(args: &[OsString]) -> Result<ExitCode> {
    let before = Machine::now();
    let mut cargo = process::cargo();
    cargo
        // Without --no-fail-fast the count would end at the first program with a failure.
        .args(["test", "--workspace", "--exclude", "breaker-ebpf", "--exclude", "breaker-tests-ebpf"])
        .args(["--locked", "--no-fail-fast"])
        .args(args)
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("starting {}", process::describe(&cargo)))?;
    let mut tally = match child.stdout.take() {
        Some(stdout) => follow(stdout, std::io::stdout())?,
        None => Tally::default(),
    };
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        eprintln!(
            "xtask: cargo test failed though no test did: {status}: something did not compile, or a test program died"
        );
        tally.failed = 1;
    }
    for change in Machine::now().changes_since(&before) {
        eprintln!("xtask: after the tests: {change}");
        tally.failed += 1;
    }
    println!("{tally}");
    Ok(if tally.is_good() && status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Passes everything on, line by line, and counts.
fn follow(from: impl Read, mut to: impl Write) -> Result<Tally> {
    let mut from = BufReader::new(from);
    let mut tally = Tally::default();
    let mut line = Vec::new();
    // Bytes, not text: a test may print anything.
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        tally.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_passed_on_whole_and_counted() {
        let said =
            b"\xff\xfe\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\nno end of line";
        let mut shown = Vec::new();
        let tally = follow(&said[..], &mut shown).expect("reading from memory");
        assert_eq!(shown, said);
        assert_eq!(tally, Tally { passed: 2, failed: 0, skipped: 1 });
    }
}
