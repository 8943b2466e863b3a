//! The connection of a packet, and the tables of connections.
//!
//! [`CONNECTIONS`] holds the open connections of declared sessions, and never evicts. [`TRANSIENT`] holds all
//! other connections, and evicts the least recently used one: unanswered SYNs, closed or fenced connections,
//! undeclared flows. No other user and no refusing venue can therefore displace a live connection, with or
//! without an agent. An evicted connection that is still alive is found again in mid-stream: blind, and live
//! only if nothing has tripped since its session was declared.
//!
//! A connection's state has one writer at a time, for the hook runs under the socket's lock.

use core::hint::cold_path;

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap},
};
use breaker_common::abi::{Connection, ConnectionKey, Inbound, flag, kind, reason, undeclared};
use breaker_common::decide::{ACK, SYN};
use breaker_common::limits::SharedScope;

use crate::boundary::Pack;
use crate::clock::now;
use crate::context::Context;
use crate::exit::{End, Exit};
use crate::parse::header;
use crate::payload::{self, Beginning};
use crate::scratch::Scratch;
use crate::{event, policy, scope};

const BPF_NOEXIST: u64 = 1;

/// Open connections of declared sessions.
#[map]
static CONNECTIONS: HashMap<ConnectionKey, Connection> = HashMap::with_max_entries(1, 0);

/// All other connections.
#[map]
static TRANSIENT: LruHashMap<ConnectionKey, Connection> = LruHashMap::with_max_entries(1, 0);

/// Inbound state of connections.
#[map]
static INBOUND: HashMap<ConnectionKey, Inbound> = HashMap::with_max_entries(1, 0);

/// The table that holds a connection.
enum Table {
    Connections,
    Transient,
}

impl Pack for Table {
    type Word = u32;

    #[inline(always)]
    fn pack(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        if word == 0 { Self::Connections } else { Self::Transient }
    }
}

/// The result of [`locate`]: the connection's table, or the reason to ignore or drop the packet.
type Location = Result<Table, Exit>;

const IN_CONNECTIONS: u32 = Table::Connections as u32;
const IN_TRANSIENT: u32 = Table::Transient as u32;
const NOT_CONFIGURED: u32 = Exit::pass(reason::NOT_CONFIGURED).word();
const NOT_OURS: u32 = Exit::pass(reason::NOT_OURS).word();

/// Returns how a packet's payload begins, if undeclared FIX matters by the policy (`abi::undeclared`).
#[inline(always)]
pub fn beginning(context: impl Context, undeclared: u32, scratch: &Scratch) -> Beginning {
    if undeclared == undeclared::IGNORE {
        Beginning::Other
    } else {
        payload::beginning(context, &scratch.packet)
    }
}

/// Returns the connection of a packet, and creates a new one. `port_watched`: see
/// [`policy::is_port_watched`].
#[inline(always)]
pub fn find(
    context: impl Context,
    scratch: &mut Scratch,
    port_watched: bool,
) -> Result<&'static mut Connection, Exit> {
    if port_watched && let Some(connection) = CONNECTIONS.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time. User space removes an entry
        // long after the last one.
        let connection = unsafe { &mut *connection };
        if (scratch.packet.segment.flags & SYN) as u32 | connection.contested == 0 {
            return Ok(connection);
        }
    }
    cold_path();
    let beginning = beginning(context, policy::undeclared(scratch.side), scratch);
    if !port_watched && beginning == Beginning::Other {
        return Err(Exit::pass(reason::NOT_OURS));
    }
    scratch.hops = context.forwarded().map_or(0, |frame| header::hops(frame, &scratch.packet));
    let joins = scratch.packet.segment.flags & SYN != 0 && context.joins_multipath(&raw const scratch.packet);
    let location = locate(port_watched as u32, beginning as u32, context.socket_uid(), joins as u32);
    let found = match Location::unpack(location)? {
        Table::Connections => CONNECTIONS.get_ptr_mut(&scratch.packet.key),
        Table::Transient => TRANSIENT.get_ptr_mut(&scratch.packet.key),
    };
    // SAFETY: as above.
    found.map_or(Err(Exit::pass(reason::TABLE_FULL)), |connection| Ok(unsafe { &mut *connection }))
}

/// Returns the connection in either table.
#[inline(always)]
fn lookup(key: &ConnectionKey) -> Option<*mut Connection> {
    CONNECTIONS.get_ptr_mut(key).or_else(|| TRANSIENT.get_ptr_mut(key))
}

/// Returns the session of an inbound packet, the connection, and the inbound state.
#[inline(always)]
pub fn find_inbound(scratch: &mut Scratch) -> Option<(u32, &'static Connection, &'static mut Inbound)> {
    if !policy::is_port_watched(scratch.packet.key.remote_port) {
        return None;
    }
    // SAFETY: a map value, read only.
    let connection = unsafe { &*lookup(&scratch.packet.key)? };
    let session = connection.session;
    if session == Connection::IGNORED {
        return None;
    }
    let found = || {
        let inbound = INBOUND.get_ptr_mut(&scratch.packet.key)?;
        // SAFETY: a map value of a connection whose packets come one at a time.
        Some((session, connection, unsafe { &mut *inbound }))
    };
    if let Some(found) = found() {
        return Some(found);
    }
    let segment = &scratch.packet.segment;
    let syn = segment.flags & SYN != 0;
    scratch.inbound =
        if syn { Inbound::at(segment.seq.wrapping_add(1)) } else { Inbound::joined(segment.seq) };
    // Without room the packet is not counted. The connections fill their table, of the same size, at the same
    // time, with an event.
    INBOUND.insert(&scratch.packet.key, &scratch.inbound, 0).ok()?;
    found()
}

/// Marks the peer of a withheld connection as notified. Returns the sequence number for the peer's reset, if
/// it was not.
#[inline(always)]
pub fn notify_peer(scratch: &Scratch) -> Option<u32> {
    // SAFETY: a map value of a connection whose packets come one at a time.
    let connection = unsafe { &mut *lookup(&scratch.packet.key)? };
    (core::mem::replace(&mut connection.peer_notified, 1) == 0).then_some(connection.withheld_seq)
}

/// Finds a connection that [`find`] has not found, or creates one: a packed [`Location`].
///
/// `beginning` is a [`Beginning`], `uid` the socket's account. `joins`: the segment opens a further path of
/// Multipath TCP. A global function: its stack frame would not fit into that of [`find`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn locate(port_watched: u32, beginning: u32, uid: u32, joins: u32) -> u32 {
    // Not an argument: up to Linux 6.1 a map key must not be an argument's memory ("R2 type=mem expected=fp,
    // ...").
    let Some(scratch) = Scratch::this_cpu() else { return NOT_CONFIGURED };
    let segment = &scratch.packet.segment;
    if segment.opens_connection() {
        return open(port_watched, beginning, uid, joins);
    }
    let live = CONNECTIONS.get_ptr_mut(&scratch.packet.key);
    if let Some(other) = TRANSIENT.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time.
        let other = unsafe { &mut *other };
        if other.session == Connection::IGNORED {
            return if live.is_some() { IN_CONNECTIONS } else { NOT_OURS };
        }
        if other.closed_ns == 0
            && other.session | other.shared_endpoint != 0
            && other.is_established_by(segment)
        {
            scratch.connection = *other;
            return establish();
        }
        if live.is_none() {
            return IN_TRANSIENT;
        }
    }
    if live.is_some() {
        return IN_CONNECTIONS;
    }
    join(port_watched, beginning, uid)
}

/// [`locate`] for a SYN. Its connection waits in [`TRANSIENT`] until the peer has answered.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open(port_watched: u32, beginning: u32, uid: u32, joins: u32) -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return NOT_CONFIGURED };
    let segment = &scratch.packet.segment;
    // A retransmitted SYN opens a connection as old as the first SYN.
    if let Some(other) = TRANSIENT.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time.
        if unsafe { (*other).is_opened_by(segment) } {
            return IN_TRANSIENT;
        }
    }
    let mut is_contested = false;
    if let Some(live) = CONNECTIONS.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: as above.
        let live = unsafe { &mut *live };
        if live.is_opened_by(segment) {
            return IN_CONNECTIONS;
        }
        if live.closed_ns != 0 {
            let _ = CONNECTIONS.remove(&scratch.packet.key);
        } else if segment.length != 0 {
            return Exit::drop(reason::FOREIGN).word();
        } else {
            // One of the two connections is dead. The next segment shows which one; until then the
            // established connection goes on.
            (live.contested, is_contested) = (1, true);
        }
    }
    let target =
        if port_watched != 0 { policy::lookup_endpoint(&scratch.packet.key, uid, scratch.side) } else { 0 };
    if target == 0 {
        return join(port_watched, beginning, uid);
    }
    if joins != 0 {
        // Over a further path Multipath TCP would retransmit what a trip has withheld and a reset has made
        // stale.
        return Exit::drop(reason::MULTIPATH).word();
    }
    if !is_contested {
        evict_inbound(&scratch.packet.key);
    }
    scratch.connection = Connection::new(target, segment);
    (scratch.connection.uid, scratch.connection.hops) = (uid, scratch.hops);
    if segment.length != 0 {
        // The payload of a Fast Open SYN needs an established connection.
        return establish();
    }
    match TRANSIENT.insert(&scratch.packet.key, &scratch.connection, 0) {
        Ok(()) => IN_TRANSIENT,
        Err(_) => table_full(scratch).word(),
    }
}

/// Inserts the connection in the scratch memory into [`CONNECTIONS`], and replaces an older one. A global
/// function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn establish() -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return NOT_CONFIGURED };
    let key = &scratch.packet.key;
    let replaces = CONNECTIONS.insert(key, &scratch.connection, BPF_NOEXIST).is_err();
    if replaces && CONNECTIONS.insert(key, &scratch.connection, 0).is_err() {
        let exit = table_full(scratch);
        if scratch.packet.segment.length != 0 && exit.end() == End::Pass {
            // This segment passes uncounted. The next one would seem to leave a gap.
            let _ = TRANSIENT.remove(key);
        }
        return exit.word();
    }
    let _ = TRANSIENT.remove(key);
    if replaces {
        evict_inbound(key);
    }
    IN_CONNECTIONS
}

/// Removes the inbound state of an earlier connection with the same key.
#[inline(always)]
fn evict_inbound(key: &ConnectionKey) {
    let _ = INBOUND.remove(key);
}

/// [`locate`] for a segment of an unknown connection: of a session, or undeclared FIX. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn join(port_watched: u32, beginning: u32, uid: u32) -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return NOT_CONFIGURED };
    let segment = &scratch.packet.segment;
    let target =
        if port_watched != 0 { policy::lookup_endpoint(&scratch.packet.key, uid, scratch.side) } else { 0 };
    if target != 0 {
        if segment.flags & (SYN | ACK) == SYN | ACK {
            // The peer has opened the connection, to a service of this host.
            scratch.connection = Connection::ignored();
            let _ = TRANSIENT.insert(&scratch.packet.key, &scratch.connection, 0);
            return NOT_OURS;
        }
        if segment.length == 0 {
            // A refusal, a port scan or an acknowledgement needs no state.
            return Exit::pass(reason::CONTROL).word();
        }
        scratch.connection = Connection::new(target, segment);
        scratch.connection.uid = uid;
        return establish();
    }
    if beginning == Beginning::Other as u32 {
        return NOT_OURS;
    }
    let is_fix = beginning == Beginning::Fix as u32;
    let blocked_ns = if policy::undeclared(scratch.side) == undeclared::BLOCK { now() } else { 0 };
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    scratch.connection = Connection::undeclared(seq, blocked_ns, is_fix);
    if TRANSIENT.insert(&scratch.packet.key, &scratch.connection, 0).is_err() {
        return table_full(scratch).word();
    }
    policy::watch_port(scratch.packet.key.remote_port);
    if is_fix {
        event::send(&event::new(kind::UNDECLARED, 0, 0, scratch.packet.key));
    }
    IN_TRANSIENT
}

/// Returns the exit of a connection without room in its table, by the policy, and sends an event. Payload of
/// an armed session is dropped unless the policy says otherwise.
#[inline(always)]
fn table_full(scratch: &Scratch) -> Exit {
    let number = scratch.connection.session;
    event::send(&event::new(kind::TABLE_FULL, 0, number, scratch.packet.key));
    let passes = policy::policy(scratch.side).is_some_and(|policy| policy.flags & flag::PASS_WHEN_FULL != 0);
    let is_armed = policy::session(number, scratch.side)
        .and_then(|session| scope::get(session.scopes[0], 0))
        .is_some_and(|own| own.armed());
    if passes || !is_armed || scratch.packet.segment.length == 0 {
        Exit::pass(reason::TABLE_FULL)
    } else {
        Exit::drop(reason::TABLE_FULL)
    }
}

/// Moves a packet's connection to [`TRANSIENT`] if it is closed, fenced or ignored. A global function: see
/// [`locate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn retire() -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return 0 };
    let Some(connection) = CONNECTIONS.get_ptr(&scratch.packet.key) else { return 0 };
    // SAFETY: a map value of a connection whose packets come one at a time.
    let connection = unsafe { &*connection };
    let is_over = connection.closed_ns != 0 || connection.session == Connection::IGNORED;
    if is_over && TRANSIENT.insert(&scratch.packet.key, connection, 0).is_ok() {
        let _ = CONNECTIONS.remove(&scratch.packet.key);
    }
    0
}
