//! What can be wrong in a way that a script wants to tell apart, and the exit code for each.

use std::fmt;
use std::process::ExitCode;

/// Exit codes of `breaker`: a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Unexpected.
    Unexpected = 1,
    /// Usage, or an error in the configuration.
    Usage = 2,
    /// Nothing is loaded.
    NotLoaded = 3,
    /// Refused; the state is unchanged.
    Refused = 4,
    /// Layout or version mismatch.
    Mismatch = 5,
    /// A permission or capability is missing.
    Permission = 6,
    /// The kernel lacks a feature.
    Kernel = 7,
    /// An interface is missing, or a link no longer leads anywhere.
    Interface = 8,
    /// `status`: something is tripped.
    Tripped = 10,
    /// `status`: something is disarmed, detached or displaced.
    Unprotected = 11,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that has an exit code of its own. Its text says what failed, what was found and what to do.
#[derive(Debug)]
pub struct Fault {
    code: Code,
    text: String,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

/// The exit code for an error: that of the first fault in its chain.
pub fn code_of(error: &anyhow::Error) -> Code {
    error.chain().find_map(|cause| cause.downcast_ref::<Fault>()).map_or(Code::Unexpected, |fault| fault.code)
}
