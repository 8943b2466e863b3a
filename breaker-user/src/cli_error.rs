//! Errors with an exit code of their own, for scripts.

use std::process::ExitCode;
use std::{fmt, io};

use rustix::io::Errno;

/// Exit codes of `breaker`: a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Unexpected error.
    Unexpected = 1,
    /// Wrong usage, or an error in the configuration.
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
    /// An interface is missing; or the change is made, but the breaker is not in force.
    Interface = 8,
    /// `replay` or `learn`: a capture breaks off.
    Capture = 9,
    /// `status`: a scope is tripped.
    Tripped = 10,
    /// `status`: the breaker is not in force, or a scope is disarmed.
    Unprotected = 11,
    /// `fleet`: a host differs, refused or did not answer.
    Differs = 12,
    /// `fleet`: etcd cannot be reached, or refuses.
    Etcd = 13,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error with an exit code. Its text says what failed, what was found and what to do.
#[derive(Debug)]
pub struct CliError {
    code: Code,
    text: String,
}

impl CliError {
    /// Makes an error with this exit code.
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

/// The exit code of an error: that of the first [`CliError`] in its chain, else [`Code::Permission`] if the
/// kernel denied a permission.
pub fn code_of(error: &anyhow::Error) -> Code {
    match error.chain().find_map(|cause| cause.downcast_ref::<CliError>()) {
        Some(error) => error.code,
        None if is_denied(error) => Code::Permission,
        None => Code::Unexpected,
    }
}

/// The text of an error. Adds the cure if a permission is missing and no [`CliError`] explains it.
pub fn text_of(error: &anyhow::Error) -> String {
    let explained = error.chain().any(|cause| cause.is::<CliError>());
    let cure = if !explained && is_denied(error) { PERMISSION_CURE } else { "" };
    format!("{error:#}{cure}")
}

/// Cure of a missing permission.
const PERMISSION_CURE: &str =
    ": run as root, or as the user who loaded the breaker, with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// Returns true if the kernel denied a permission: EACCES or EPERM.
pub fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        let errno = cause.downcast_ref::<Errno>().map(|errno| io::Error::from(*errno).kind());
        errno.or_else(|| cause.downcast_ref::<io::Error>().map(io::Error::kind))
            == Some(io::ErrorKind::PermissionDenied)
    };
    error.chain().any(denied)
}
