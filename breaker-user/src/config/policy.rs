//! A policy: what a valid configuration says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use breaker_common::message::Class;

use super::diagnostics::Diagnostics;
use super::endpoint::Endpoint;
use super::limit::{Limit, Limits};
use super::scope::{GroupIndex, Scope, ScopeIndex, Scopes, SessionIndex, UnknownScope};
use super::text::{AbsolutePath, CompId, Interface, MessageSize, MsgType, Name, PolicyName, User};
use super::words::{
    DeadmanAction, Hook, Inbound, Mode, OnDesync, OnTableFull, OnTrip, PossDup, Undeclared, WhileTripped,
    WireFormat,
};

/// The CompIDs that tell the sessions of a place apart: the key in the file and the tag in the Logon.
pub const COMP_IDS: [(&str, u32); 4] =
    [("sender", 49), ("target", 56), ("sender_sub", 50), ("target_sub", 57)];

/// A policy. Only [`super::parse`] makes one, and nothing can change it, so whoever holds one may rely on every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) name: PolicyName,
    pub(super) sha256: [u8; 32],
    pub(super) host: Host,
    pub(super) agent: Agent,
    pub(super) groups: Vec<Group>,
    pub(super) sessions: Vec<Session>,
    pub(super) scopes: Scopes,
    pub(super) warnings: Diagnostics,
}

/// What holds for the host as a whole: the scope `host`, and where and how breaker stands in the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it enforces: at least one, none twice.
    pub interfaces: Vec<Interface>,
    /// Where in the path of the packets.
    pub mode: Mode,
    /// How it hangs on them: one of the hooks of the mode.
    pub hook: Hook,
    /// What happens to FIX that no session declares.
    pub undeclared: Undeclared,
    /// Whether it counts for the host's limits, and so may trip the host.
    pub undeclared_trips: bool,
    /// Whether what comes in is read. It always is where a limit needs it.
    pub inbound: Inbound,
    /// What connections see of a trip, where their session says nothing else.
    pub on_trip: OnTrip,
    /// What new connections may send, where their session says nothing else.
    pub while_tripped: WhileTripped,
    /// What a lost stream leads to, where its session says nothing else.
    pub on_desync: OnDesync,
    /// What happens when the connection table is full.
    pub on_table_full: OnTableFull,
    /// Size of the connection table: 64 to 4,194,304.
    pub connections: NonZeroU32,
    /// Whether a limit that is passed trips the host from the first load on.
    pub armed: bool,
    /// The host's limits.
    pub limits: Limits,
    /// What happens when the agent falls silent; `None`: nothing.
    pub deadman: Option<Deadman>,
}

/// What happens when the agent falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadman {
    /// How old the heartbeat may grow: 100 ms to 24 h.
    pub after: Duration,
    /// What happens then.
    pub action: DeadmanAction,
}

/// Where the metrics are unless the file says otherwise.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);

/// Where the agent serves and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Address of the metrics.
    pub metrics: SocketAddr,
    /// Control socket; short enough for a UNIX socket's address.
    pub control: AbsolutePath,
    /// Directory of what must survive a reboot.
    pub state: AbsolutePath,
    /// File of the audit log.
    pub audit: AbsolutePath,
}

/// Sessions with something in common: a desk, a venue, an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Unique among the groups.
    pub name: Name,
    /// Whether a limit that is passed trips the group from the first load on.
    pub armed: bool,
    /// The group's limits, for all its sessions together.
    pub limits: Limits,
}

/// A declared FIX session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Unique among the sessions, and never `undeclared`.
    pub name: Name,
    /// Where it goes: one to 16, none twice.
    pub remotes: Vec<Endpoint>,
    /// The address it comes from, of the family of every remote; `None`: any.
    pub local: Option<IpAddr>,
    /// SenderCompID(49) of the connection's Logon; `None`: any.
    pub sender: Option<CompId>,
    /// TargetCompID(56) of the connection's Logon; `None`: any.
    pub target: Option<CompId>,
    /// SenderSubID(50) of the connection's Logon; `None`: any.
    pub sender_sub: Option<CompId>,
    /// TargetSubID(57) of the connection's Logon; `None`: any.
    pub target_sub: Option<CompId>,
    /// Its groups: at most four, none twice.
    pub groups: Vec<GroupIndex>,
    /// The account whose sockets are its connections; `None`: any.
    pub user: Option<User>,
    /// What its connections carry.
    pub wire: WireFormat,
    /// The longest message that is believed.
    pub longest: MessageSize,
    /// Whether a limit that is passed trips the session from the first load on.
    pub armed: bool,
    /// What happens to possible duplicates after a trip.
    pub possdup: PossDup,
    /// What its connections see of a trip.
    pub on_trip: OnTrip,
    /// What its new connections may send while a scope of it is tripped.
    pub while_tripped: WhileTripped,
    /// What a lost stream leads to.
    pub on_desync: OnDesync,
    /// The session's own limits.
    pub limits: Limits,
    /// MsgTypes it classifies for itself: at most 16, none twice.
    pub classes: Vec<(MsgType, Class)>,
}

impl Session {
    /// What tells it apart from the other sessions of a place: sender, target, sender_sub and target_sub, as [`COMP_IDS`] names
    /// them.
    pub fn comp_ids(&self) -> [Option<&CompId>; COMP_IDS.len()] {
        [self.sender.as_ref(), self.target.as_ref(), self.sender_sub.as_ref(), self.target_sub.as_ref()]
    }
}

/// A place that connections go to, and whose they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The remote end.
    pub remote: Endpoint,
    /// The local address; `None`: any that no other place with this remote names.
    pub local: Option<IpAddr>,
    /// The sessions that go there, in the order of the file: at least one. Several all declare the same of their
    /// [`Session::comp_ids`], at least one, and no two the same values.
    pub sessions: Vec<SessionIndex>,
}

impl Policy {
    /// The operator's name for it.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// SHA-256 of the file's bytes.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
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

    /// What the operator should know of the file. It is valid all the same.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// The group with this number.
    pub fn group(&self, group: GroupIndex) -> &Group {
        &self.groups[group.get() as usize]
    }

    /// The session with this number; `None` for `undeclared`, which follows the host's settings.
    pub fn session(&self, session: SessionIndex) -> Option<&Session> {
        session.declared().map(|position| &self.sessions[position])
    }

    /// Every place that a session goes to, once, in the order in which the file first names them.
    pub fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let mut known: HashMap<(Endpoint, Option<IpAddr>), usize> = HashMap::new();
        for index in self.scopes.sessions() {
            let Some(Session { remotes, local, .. }) = self.session(index) else { continue };
            for remote in remotes {
                let at = *known.entry((*remote, *local)).or_insert_with(|| {
                    places.push(Place { remote: *remote, local: *local, sessions: Vec::new() });
                    places.len() - 1
                });
                places[at].sessions.push(index);
            }
        }
        places
    }

    /// The scopes that the messages of a session are subject to: its own, its groups', the host.
    pub fn scopes_of(&self, session: SessionIndex) -> Vec<ScopeIndex> {
        let groups = self.session(session).map_or(&[][..], |session| &session.groups);
        let groups = groups.iter().map(|group| self.scopes.of_group(*group));
        std::iter::once(self.scopes.of_session(session)).chain(groups).chain([ScopeIndex::HOST]).collect()
    }

    /// The limits of a scope. `session/undeclared` has none of its own.
    pub fn limits(&self, scope: ScopeIndex) -> &[Limit] {
        match self.scopes.what(scope) {
            Scope::Host => &self.host.limits,
            Scope::Group(group) => &self.group(group).limits,
            Scope::Session(session) => self.session(session).map_or(&[], |session| &session.limits),
        }
    }

    /// Whether a limit that is passed trips the scope from the first load on. `session/undeclared` is always armed.
    pub fn armed(&self, scope: ScopeIndex) -> bool {
        match self.scopes.what(scope) {
            Scope::Host => self.host.armed,
            Scope::Group(group) => self.group(group).armed,
            Scope::Session(session) => self.session(session).is_none_or(|session| session.armed),
        }
    }

    /// The scope that a person named.
    ///
    /// # Errors
    /// Where there is no such scope, with the scopes that were most likely meant.
    pub fn find(&self, text: &str) -> Result<ScopeIndex, UnknownScope> {
        self.scopes.find(text)
    }
}
