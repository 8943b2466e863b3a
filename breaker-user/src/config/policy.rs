//! A policy: the content of a valid configuration.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breaker_common::message::Class;

use super::diagnostics::Diagnostics;
use super::endpoint::Endpoint;
use super::fleet::Fleet;
use super::limit::{Limit, Limits};
use super::on_event::OnEvent;
use super::people::People;
use super::scope::{GroupIndex, Scope, ScopeIndex, Scopes, SessionIndex, UnknownScope};
use super::text::{AbsolutePath, CompId, Interface, MessageSize, MsgType, Name, PolicyName, User};
use super::words::{
    CancelOnDisconnect, DeadmanAction, Hook, Inbound, Mode, OnDesync, OnTableFull, OnTrip, PossDup,
    UncleanBoot, Undeclared, WhileTripped, WireFormat,
};

/// The CompIDs that distinguish the sessions of an endpoint: the configuration key and the FIX tag in the
/// Logon.
pub const COMP_IDS: [(&str, u32); 4] =
    [("sender", 49), ("target", 56), ("sender_sub", 50), ("target_sub", 57)];

/// A validated policy. Only [`super::parse`] creates one, and it is immutable: its users may rely on every
/// rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) name: PolicyName,
    pub(super) sha256: [u8; 32],
    pub(super) text: Arc<str>,
    pub(super) host: Host,
    pub(super) agent: Agent,
    pub(super) people: People,
    pub(super) fleet: Option<Fleet>,
    pub(super) groups: Vec<Group>,
    pub(super) sessions: Vec<Session>,
    pub(super) scopes: Scopes,
    pub(super) warnings: Diagnostics,
}

/// Settings of the host: the scope `host`, the interfaces and the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Interfaces to enforce on: at least one, without duplicates.
    pub interfaces: Vec<Interface>,
    /// Position in the packet path.
    pub mode: Mode,
    /// Type of the attachment: one of the hooks of the mode.
    pub hook: Hook,
    /// Treatment of FIX connections that no session declares.
    pub undeclared: Undeclared,
    /// Whether undeclared connections count for the host's limits and can trip the host.
    pub undeclared_trips: bool,
    /// Whether inbound messages are read. Always [`Inbound::Watch`] if a limit needs them.
    pub inbound: Inbound,
    /// Treatment of connections at a trip, unless their session overrides it.
    pub on_trip: OnTrip,
    /// Messages that new connections may send while tripped, unless their session overrides it.
    pub while_tripped: WhileTripped,
    /// Treatment of a desync, unless the session overrides it.
    pub on_desync: OnDesync,
    /// Treatment of new connections while the connection table is full.
    pub on_table_full: OnTableFull,
    /// State of armed scopes after the host went down while an agent was running.
    pub unclean_boot: UncleanBoot,
    /// Size of the connection table: 64 to 4,194,304.
    pub connections: NonZeroU32,
    /// Whether an exceeded limit trips the host, from the first load on.
    pub armed: bool,
    /// The host's limits.
    pub limits: Limits,
    /// Reaction to a silent agent; `None` for no reaction.
    pub deadman: Option<Deadman>,
}

/// Reaction to a silent agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadman {
    /// Longest age of the heartbeat: 100 ms to 24 h.
    pub after: Duration,
    /// The reaction.
    pub action: DeadmanAction,
}

/// Default address of the metrics.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);
/// Default directory of the state.
pub const DEFAULT_STATE: &str = "/var/lib/breaker";
/// Default path of the audit log.
pub const DEFAULT_AUDIT: &str = "/var/log/breaker/audit.jsonl";
/// Default path of the control socket.
pub const DEFAULT_CONTROL: &str = "/run/breaker/control.sock";

/// Addresses and files of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Address of the metrics.
    pub metrics: SocketAddr,
    /// Control socket; its path fits into a UNIX socket address.
    pub control: AbsolutePath,
    /// Directory of state that survives a reboot.
    pub state: AbsolutePath,
    /// Path of the audit log.
    pub audit: AbsolutePath,
    /// The program that runs for events; `None` for none.
    pub on_event: Option<OnEvent>,
}

/// A group of sessions, such as a desk, a venue or an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Unique among the groups.
    pub name: Name,
    /// Whether an exceeded limit trips the group, from the first load on.
    pub armed: bool,
    /// Limits on the sum of its sessions.
    pub limits: Limits,
}

/// A declared FIX session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name: unique among the sessions, and never `undeclared`.
    pub name: Name,
    /// Remote endpoints: 1 to 16, without duplicates.
    pub remotes: Vec<Endpoint>,
    /// Local address, of the address family of every remote; `None` for any.
    pub local: Option<IpAddr>,
    /// SenderCompID(49) of the connection's Logon; `None` for any.
    pub sender: Option<CompId>,
    /// TargetCompID(56) of the connection's Logon; `None` for any.
    pub target: Option<CompId>,
    /// SenderSubID(50) of the connection's Logon; `None` for any.
    pub sender_sub: Option<CompId>,
    /// TargetSubID(57) of the connection's Logon; `None` for any.
    pub target_sub: Option<CompId>,
    /// Groups: at most four, without duplicates.
    pub groups: Vec<GroupIndex>,
    /// Account that owns the sockets of its connections; `None` for any.
    pub user: Option<User>,
    /// Format of the bytes on its connections.
    pub wire: WireFormat,
    /// Longest valid message; a longer BodyLength(9) is a desync.
    pub longest: MessageSize,
    /// Whether an exceeded limit trips the session, from the first load on.
    pub armed: bool,
    /// Treatment of possible duplicates after a trip.
    pub possdup: PossDup,
    /// Treatment of its connections at a trip.
    pub on_trip: OnTrip,
    /// Messages that its new connections may send while one of its scopes is tripped.
    pub while_tripped: WhileTripped,
    /// Treatment of a desync.
    pub on_desync: OnDesync,
    /// The orders that the venue cancels by itself when a connection ends; `None` if the file does not say.
    pub cancel_on_disconnect: Option<CancelOnDisconnect>,
    /// Whether `drill --live` may trip the session.
    pub drill: bool,
    /// The session's own limits.
    pub limits: Limits,
    /// MsgTypes with a class of their own: at most 16, without duplicates.
    pub classes: Vec<(MsgType, Class)>,
}

impl Session {
    /// The CompIDs that distinguish it from the other sessions of an endpoint, in the order of [`COMP_IDS`].
    pub fn comp_ids(&self) -> [Option<&CompId>; COMP_IDS.len()] {
        [self.sender.as_ref(), self.target.as_ref(), self.sender_sub.as_ref(), self.target_sub.as_ref()]
    }
}

/// An endpoint that connections go to, with its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSessions {
    /// The remote address and port.
    pub remote: Endpoint,
    /// The local address; `None` for any that no other endpoint with this remote names.
    pub local: Option<IpAddr>,
    /// The sessions of the endpoint, in the order of the file: at least one. The sessions of a shared
    /// endpoint declare the same keys of [`Session::comp_ids`], at least one, with different values.
    pub sessions: Vec<SessionIndex>,
}

impl Policy {
    /// The operator's name for the policy.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// SHA-256 of the file's bytes.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Text of the configuration file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// [`Self::sha256`] in lower-case hexadecimal, as `sha256sum` prints it.
    pub fn sha256_hex(&self) -> String {
        self.sha256.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The people who may use the control socket.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The fleet that the host belongs to; `None` for none.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// The groups in the order of the file; a [`GroupIndex`] is a position here.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The declared sessions in the order of the file.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// The names and numbers of all scopes.
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Warnings about the file, which is valid nevertheless.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// The group with this index.
    pub fn group(&self, group: GroupIndex) -> &Group {
        &self.groups[group.get() as usize]
    }

    /// The session with this index; `None` for `undeclared`, which follows the host's settings.
    pub fn session(&self, session: SessionIndex) -> Option<&Session> {
        session.declared().map(|position| &self.sessions[position])
    }

    /// Every endpoint of a session, without duplicates, in the order of the file.
    pub fn endpoints(&self) -> Vec<EndpointSessions> {
        let mut endpoints: Vec<EndpointSessions> = Vec::new();
        let mut known: HashMap<(Endpoint, Option<IpAddr>), usize> = HashMap::new();
        for index in self.scopes.sessions() {
            let Some(Session { remotes, local, .. }) = self.session(index) else { continue };
            for remote in remotes {
                let at = *known.entry((*remote, *local)).or_insert_with(|| {
                    endpoints.push(EndpointSessions { remote: *remote, local: *local, sessions: Vec::new() });
                    endpoints.len() - 1
                });
                endpoints[at].sessions.push(index);
            }
        }
        endpoints
    }

    /// The scopes that a session's messages count for: the session, its groups, the host.
    pub fn scopes_of(&self, session: SessionIndex) -> Vec<ScopeIndex> {
        let groups = self.session(session).map_or(&[][..], |session| &session.groups);
        let groups = groups.iter().map(|group| self.scopes.of_group(*group));
        std::iter::once(self.scopes.of_session(session)).chain(groups).chain([ScopeIndex::HOST]).collect()
    }

    /// The limits of a scope; `session/undeclared` has none of its own.
    pub fn limits(&self, scope: ScopeIndex) -> &[Limit] {
        match self.scopes.what(scope) {
            Scope::Host => &self.host.limits,
            Scope::Group(group) => &self.group(group).limits,
            Scope::Session(session) => self.session(session).map_or(&[], |session| &session.limits),
        }
    }

    /// Returns true if an exceeded limit trips the scope, from the first load on. `session/undeclared` is
    /// always armed.
    pub fn armed(&self, scope: ScopeIndex) -> bool {
        match self.scopes.what(scope) {
            Scope::Host => self.host.armed,
            Scope::Group(group) => self.group(group).armed,
            Scope::Session(session) => self.session(session).is_none_or(|session| session.armed),
        }
    }

    /// Finds a scope by its name.
    ///
    /// # Errors
    /// If there is no such scope; the error lists similar names.
    pub fn find(&self, text: &str) -> Result<ScopeIndex, UnknownScope> {
        self.scopes.find(text)
    }
}
