//! What goes wrong in a laboratory.

use std::{error, fmt, io};

/// What failed, what was found, what to do: the three parts of its text.
#[derive(Debug)]
pub struct Error {
    what: String,
    /// What the kernel, or the other side, answered. Its kind tells a missing right (`PermissionDenied`) from the rest.
    pub found: io::Error,
    cure: &'static str,
}

/// A result of the laboratory.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error in its three parts.
    pub fn new(what: impl Into<String>, found: impl Into<io::Error>, cure: &'static str) -> Self {
        Self { what: what.into(), found: found.into(), cure }
    }

    /// An error whose cure is root's rights where those are missing, else `cure`.
    pub(super) fn of_kernel(
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
