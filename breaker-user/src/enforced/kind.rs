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
    /// `verify`: a program is not the one of this binary.
    Program,
    /// `verify`: the process of a session has a library that can send past the kernel.
    KernelBypass,
    /// `verify`: a session that is declared as FIX sends TLS.
    Tls,
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
            Self::Program => "program",
            Self::KernelBypass => "kernel bypass",
            Self::Tls => "tls",
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
            | Self::Namespace
            | Self::KernelBypass => true,
            Self::Blind
            | Self::Unseen
            | Self::Table
            | Self::Audit
            | Self::Disarmed
            | Self::Program
            | Self::Tls => false,
        }
    }
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
