//! The differences between two policies, as types. `view::policy_diff` puts them into words.

use std::fmt;
use std::net::IpAddr;

use breaker_common::abi::{Endpoint, Limit};
use breaker_common::fix::MsgType;
use breaker_common::message::Class;

use crate::config::{OnDesync, Undeclared, WhileTripped};
use crate::kernel::address::ip_address;

/// The differences between the policy in force and the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyDiff {
    /// Changes that may let a message pass that the policy in force withholds.
    pub loosened: Vec<Loosening>,
    /// Scopes that only the next policy declares: `host`, `group/NAME` or `session/NAME`.
    pub added: Vec<String>,
    /// Scopes that only the policy in force declares.
    pub removed: Vec<String>,
}

/// A change of a scope that may let a message pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loosening {
    /// The scope: `host`, `group/NAME` or `session/NAME`.
    pub scope: String,
    /// The change.
    pub change: Change,
}

/// What changes about a scope. `old` is the policy in force, `new` the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The next policy does not declare the scope.
    ScopeRemoved,
    /// The limits of the scope no longer trip it.
    Disarmed,
    /// A limit has a higher maximum.
    LimitRaised {
        /// The limit in force.
        old: Limit,
        /// The next one.
        new: Limit,
    },
    /// No limit of the next policy covers a limit in force.
    LimitRemoved(Limit),
    /// `[host].undeclared` restricts less.
    Undeclared {
        /// The setting in force.
        old: Undeclared,
        /// The next one.
        new: Undeclared,
    },
    /// `[host].on_table_full` becomes `pass`.
    TableFullPasses,
    /// `[host].deadman` restricts less.
    Deadman {
        /// The setting in force.
        old: Deadman,
        /// The next one.
        new: Deadman,
    },
    /// A session leaves a group that stays declared.
    GroupLeft(String),
    /// `while_tripped` allows more.
    WhileTripped {
        /// The setting in force.
        old: WhileTripped,
        /// The next one.
        new: WhileTripped,
    },
    /// `on_desync` restricts less.
    OnDesync {
        /// The setting in force.
        old: OnDesync,
        /// The next one.
        new: OnDesync,
    },
    /// `longest` grows; in bytes.
    LongestMessage {
        /// The setting in force.
        old: u32,
        /// The next one.
        new: u32,
    },
    /// Only sockets of this account (uid) belong to the session. Sockets of other accounts become undeclared.
    RestrictedToUser(u32),
    /// `possdup` becomes `pass`.
    PossDupPasses,
    /// `wire` changes. Each direction counts less: `opaque` ignores the bounds of FIX messages, `fix` ignores
    /// what is not FIX.
    Wire {
        /// The next setting is `opaque`; the one in force is `fix`.
        becomes_opaque: bool,
    },
    /// A MsgType has a class that is withheld less.
    MsgType {
        /// The MsgType (FIX tag 35).
        msg_type: MsgType,
        /// Its class in force.
        old: Class,
        /// The next one.
        new: Class,
    },
    /// Connections to an endpoint no longer belong to the session.
    EndpointLost {
        /// The remote address range and port.
        endpoint: RemoteRange,
        /// They belong to another session then; otherwise they are undeclared.
        to_another_session: bool,
    },
}

/// The dead-man's switch of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadman {
    /// Silence of the agent after which it acts, ns; 0 for never.
    pub after_ns: u64,
    /// It trips the host; otherwise it only warns.
    pub trips: bool,
}

/// A range of remote addresses with a port. Displayed as `10.9.0.0/24:9001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRange {
    address: IpAddr,
    prefix_len: u32,
    port: u16,
}

impl RemoteRange {
    /// The remote part of an endpoint of which the first `bits` count.
    pub fn new(endpoint: &Endpoint, bits: u32) -> Self {
        let address = ip_address(endpoint.remote);
        let mapped_bits = if address.is_ipv4() { 96 } else { 0 };
        let prefix_len = bits.saturating_sub(Endpoint::FIXED_BITS + mapped_bits);
        Self { address, prefix_len, port: u16::from_be(endpoint.port) }
    }
}

impl fmt::Display for RemoteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix_len, port } = self;
        let (full, [open, close]) = if address.is_ipv4() { (32, ["", ""]) } else { (128, ["[", "]"]) };
        if *prefix_len == full {
            write!(f, "{open}{address}{close}:{port}")
        } else {
            write!(f, "{open}{address}/{prefix_len}{close}:{port}")
        }
    }
}
