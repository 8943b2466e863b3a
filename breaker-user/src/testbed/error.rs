//! Errors of the testbed.

use std::{error, fmt, io};

/// An error whose text says what failed, what was found, and what to do.
#[derive(Debug)]
pub struct Error {
    what: String,
    /// The error of the kernel or of the peer. `PermissionDenied` means that a capability is missing.
    pub found: io::Error,
    cure: &'static str,
}

/// Result of a testbed operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error from the three parts of its text.
    pub fn new(what: impl Into<String>, found: impl Into<io::Error>, cure: &'static str) -> Self {
        Self { what: what.into(), found: found.into(), cure }
    }

    /// Makes an error that advises to run as root where a permission is missing, and otherwise `cure`.
    pub(super) fn from_kernel(
        what: impl Into<String>,
        found: impl Into<io::Error>,
        cure: &'static str,
    ) -> Self {
        let found = found.into();
        let forbidden = found.kind() == io::ErrorKind::PermissionDenied;
        Self::new(what, found, if forbidden { "run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)" } else { cure })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.what, self.found, self.cure)
    }
}

impl error::Error for Error {}
