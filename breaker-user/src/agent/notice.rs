//! Messages of the agent on standard error.

use std::io::Write;

/// Prints a line on standard error. Ignores a closed output.
pub(super) fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "breaker agent: {text}");
}
