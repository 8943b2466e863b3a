//! The kinds of problems.

use serde::{Serialize, Serializer};

/// The kinds of problems that keep the breaker from being in force. The names are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The program is not attached.
    Detached,
    /// Another program runs before it.
    Displaced,
    /// The attachment ends with a process or a mount namespace.
    Unpinned,
    /// Packets of a session leave, or can leave, by an interface without a hook.
    Route,
    /// Packets of an interface have a link header that the program does not read.
    LinkType,
    /// A live connection is not in sync.
    Blind,
    /// Packets passed unread.
    Unseen,
    /// The connection table is full.
    Table,
    /// A probe frame got no stamp: the program does not see what the host sends.
    Probe,
    /// A switch or the maps of the policy were changed, and not by breaker.
    Tampered,
    /// The network namespace of the load cannot be inspected.
    Namespace,
    /// The audit log is not written.
    Audit,
    /// A scope's limits do not trip it.
    Disarmed,
}

impl ProblemKind {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Displaced => "displaced",
            Self::Unpinned => "unpinned",
            Self::Route => "route",
            Self::LinkType => "link type",
            Self::Blind => "blind",
            Self::Unseen => "unseen",
            Self::Table => "table",
            Self::Probe => "probe",
            Self::Tampered => "tampered",
            Self::Namespace => "namespace",
            Self::Audit => "audit",
            Self::Disarmed => "disarmed",
        }
    }

    /// Returns true if a problem of this kind is `Problem::open`.
    pub(super) const fn is_open(self) -> bool {
        match self {
            Self::Detached
            | Self::Displaced
            | Self::Unpinned
            | Self::Route
            | Self::LinkType
            | Self::Probe
            | Self::Tampered
            | Self::Namespace => true,
            Self::Blind | Self::Unseen | Self::Table | Self::Audit | Self::Disarmed => false,
        }
    }
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
