//! What can be wrong in a way that a script wants to tell apart, and the exit code for each.

use std::process::ExitCode;
use std::{fmt, io};

use rustix::io::Errno;

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
    /// An interface is missing; or what was done does not hold, for the breaker is not in force.
    Interface = 8,
    /// `status`: something is tripped.
    Tripped = 10,
    /// `status`: it is not in force, or something is disarmed.
    Unprotected = 11,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that has an exit code of its own. Its text says what failed, what was found and what to do.
#[derive(Debug)]
pub struct CliError {
    code: Code,
    text: String,
}

impl CliError {
    /// A fault of this kind.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}

/// The exit code for an error: that of the first fault in its chain; a right that the kernel found missing needs no fault for its own.
pub fn code_of(error: &anyhow::Error) -> Code {
    match error.chain().find_map(|cause| cause.downcast_ref::<CliError>()) {
        Some(fault) => fault.code,
        None if is_denied(error) => Code::Permission,
        None => Code::Unexpected,
    }
}

/// An error in words, with the cure where it is a missing right that no fault has explained.
pub fn text_of(error: &anyhow::Error) -> String {
    let explained = error.chain().any(|cause| cause.is::<CliError>());
    let cure = if !explained && is_denied(error) { RIGHTS } else { "" };
    format!("{error:#}{cure}")
}

const RIGHTS: &str =
    ": run as root, or as the user who loaded it, with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// True where the kernel refused for want of a right: EACCES or EPERM.
pub fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        let errno = cause.downcast_ref::<Errno>().map(|errno| io::Error::from(*errno).kind());
        errno.or_else(|| cause.downcast_ref::<io::Error>().map(io::Error::kind))
            == Some(io::ErrorKind::PermissionDenied)
    };
    error.chain().any(denied)
}
