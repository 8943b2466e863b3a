//! `breaker verify`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::output::print;
use crate::cli::AttestArgs;
use crate::cli_error::{CliError, Code};
use crate::kernel::{Breaker, PinRoot};
use crate::view::{Attestation, expectation};

/// Prints the attestation. Ends with 11 if there is a gap or a difference.
pub fn run(root: &PinRoot, args: &AttestArgs) -> Result<ExitCode> {
    let expected = args.expect.as_deref().map(read).transpose()?;
    let mut attestation = Attestation::read(&Breaker::open(root)?)?;
    if let Some((path, expected)) = args.expect.as_deref().zip(expected) {
        let found = serde_json::to_value(&attestation)?;
        attestation
            .set_differences(expectation::compare(&expected, &found).map_err(|found| invalid(path, &found))?);
    }
    print(&if args.json { serde_json::to_string_pretty(&attestation)? } else { attestation.text() })?;
    Ok(if attestation.ok { ExitCode::SUCCESS } else { Code::Unprotected.into() })
}

/// Reads the JSON of an earlier attestation.
fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| invalid(path, &error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| invalid(path, &error.to_string()))
}

fn invalid(path: &Path, found: &str) -> anyhow::Error {
    let text = format!(
        "reading the expected attestation {}: {found}: name the output of `breaker verify --json`",
        path.display()
    );
    CliError::new(Code::Usage, text).into()
}
