//! Lines on standard output and standard error, and the exit code of a verb that relies on enforcement.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;

use crate::cli_error::{self, Code};
use crate::enforced::Enforced;

/// Prints a line on standard error. Ignores a closed output.
pub(super) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ends a verb: prints its error on standard error, and returns the exit code.
pub fn report(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if is_output_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&format!("breaker: {}", cli_error::text_of(&error)));
            cli_error::code_of(&error).into()
        }
    }
}

/// A warning that the state file does not contain an action.
pub(super) fn not_saved(done: &str, error: &anyhow::Error) -> String {
    format!(
        "breaker: {done}, but the state file does not contain it: {error:#}: a reboot would lose it: free \
         space, or correct [agent].state"
    )
}

/// The exit code of a verb that relies on enforcement. Prints the open problems on standard error.
pub(super) fn enforcement_code(enforced: &Enforced) -> ExitCode {
    let lines = enforced.open_lines();
    if lines.is_empty() {
        return ExitCode::SUCCESS;
    }
    warn("breaker: the change is made, but IT IS NOT ENFORCED: the breaker is not in force:");
    lines.iter().for_each(|line| warn(&format!("  {line}")));
    Code::Interface.into()
}

/// Prints a line on standard output. [`is_output_closed`] recognizes the error of a closed output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        let closed = error.kind() == ErrorKind::BrokenPipe;
        let error = anyhow::Error::from(error).context("writing to standard output");
        if closed { error.context(OutputClosed) } else { error }
    })
}

/// Returns true if the reader of the output has closed it, as in `breaker status | head -1`. The verb is done
/// by then.
pub fn is_output_closed(error: &anyhow::Error) -> bool {
    error.is::<OutputClosed>()
}

/// The error of a closed standard output.
#[derive(Clone, Copy, Debug)]
struct OutputClosed;

impl fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the output was closed")
    }
}
