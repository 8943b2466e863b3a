//! Which session a packet belongs to, and the state of its connection.
//!
//! Why it is safe: a connection's state has one writer at a time, for the hook runs under the socket's lock. It is made at the first
//! packet and found by 4-tuple from then on; ports that no session has are turned away by one bit.
//!
//! Two tables. In [`CONNECTIONS`] are the open connections of declared sessions, and nothing else has a place there: it never evicts. All
//! others are in [`TRANSIENT`], which evicts what was not used for longest: SYNs that nobody has answered yet, connections that have
//! closed or are fenced, flows that no session declares. So nothing that an ordinary user or a venue that refuses may do takes a place
//! from a live connection, with or without an agent. What is evicted and still alive is found anew as one seen in mid-stream: blind,
//! and live only where nothing has tripped since its session was declared.

use core::borrow::Borrow;
use core::hint::{black_box, cold_path};

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
};
use breaker_common::abi::Inbound;
use breaker_common::abi::{
    Address, Connection, ConnectionKey, Endpoint, IdentityKey, Label, Meta, Policy, SIDES, Session,
    TargetWords, flag, reason, undeclared,
};
use breaker_common::decide::{ACK, SYN};
use breaker_common::limits::SharedScope;

use crate::context::Context;
use crate::packet::Packet;
use crate::payload::Beginning;
use crate::scratch::Scratch;
use crate::{End, Exit, atomic, event, pass, payload, scope};

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
static META: Array<Meta> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What the scopes are called, by number: only user space reads it.
#[map]
static LABELS: Array<Label> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// When the agent was last seen alive (CLOCK_MONOTONIC, ns), or the load, where none was yet; and whether one was. User space writes it.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// One bit for each port, in host order, at which connections are looked up: user space sets those of the sessions' remote ends, the
/// kernel, by atomic OR, those at which it met FIX that no session declares.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

#[map]
static ENDPOINTS: LpmTrie<Endpoint, TargetWords> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Sessions at endpoints that several share.
#[map]
static IDENTITIES: HashMap<IdentityKey, TargetWords> = HashMap::with_max_entries(1, 0);

/// Sessions by number, the sides of each beside each other.
#[map]
static SESSIONS: Array<Session> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What comes in, by the same keys.
#[map]
static INBOUND: HashMap<ConnectionKey, Inbound> = HashMap::with_max_entries(1, 0);

/// Open connections of declared sessions.
#[map]
static CONNECTIONS: HashMap<ConnectionKey, Connection> = HashMap::with_max_entries(1, 0);

/// All other connections.
#[map]
static TRANSIENT: LruHashMap<ConnectionKey, Connection> = LruHashMap::with_max_entries(1, 0);

/// Which policy is in force, and it. Read once a packet: all of it is judged by that one.
#[inline(always)]
pub fn in_force() -> Option<(u32, &'static Policy)> {
    let meta = META.get_ptr(0)?;
    // SAFETY: fields of a map value. User space changes the side at any time, and nothing of the policy on the one that is in force.
    unsafe {
        let side = (&raw const (*meta).side).read_volatile() & (SIDES as u32 - 1);
        Some((side, &*(&raw const (*meta).policies).cast::<Policy>().add(side as usize)))
    }
}

/// Whether all frames come over a wire (`Meta::wired` in `breaker_common::abi`).
#[inline(always)]
pub fn is_wired() -> bool {
    META.get(0).is_some_and(|meta| meta.wired != 0)
}

/// The policy on a side.
#[inline(always)]
fn policy(side: u32) -> Option<&'static Policy> {
    META.get(0).map(|meta| &meta.policies[side as usize & (SIDES - 1)])
}

/// The session with this number on a side.
#[inline(always)]
pub fn session(number: u32, side: u32) -> Option<&'static Session> {
    let place = number.wrapping_mul(SIDES as u32).wrapping_add(side);
    // SAFETY: a map value lives as long as the map; user space alone writes it, and never that of the side in force but for one word.
    SESSIONS.get_ptr(place).map(|session| unsafe { &*session })
}

/// The session at a shared place that shows these CompIDs; 0 where there is none.
#[inline(always)]
pub fn session_by_comp_ids(place: u32, ids: [u32; 4], side: u32) -> u32 {
    let key = IdentityKey { endpoint: place, comp_ids: ids };
    // SAFETY: user space alone writes it.
    unsafe { IDENTITIES.get(key) }.map_or(0, |sessions| sessions[side as usize & (SIDES - 1)])
}

/// Where the policy minds the agent's silence: its last heartbeat (CLOCK_MONOTONIC, ns), how old that may be, and whether more trips
/// the host.
#[inline(always)]
pub fn heartbeat(side: u32) -> Option<(u64, u64, bool)> {
    let policy = policy(side)?;
    if policy.deadman_ns == 0 {
        return None;
    }
    let beat = HEARTBEAT.get_ptr(0)?;
    // SAFETY: a word of a map value; user space changes it at any time.
    Some((unsafe { beat.read_volatile() }, policy.deadman_ns, policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0))
}

/// How far a packet begins like FIX of nobody's, where that matters by the policy ([`undeclared`]).
#[inline(always)]
pub fn beginning(context: impl Context, policy: u32, packet: &Packet) -> Beginning {
    if policy == undeclared::IGNORE { Beginning::Other } else { payload::beginning(context, packet) }
}

/// The state of a packet's connection, made where it is new. `port_watched`: its port is ([`is_port_watched`]).
#[inline(always)]
pub fn find(
    context: impl Context,
    scratch: &mut Scratch,
    port_watched: bool,
) -> Result<&'static mut Connection, Exit> {
    if port_watched && let Some(connection) = CONNECTIONS.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time; entries are removed by user space long after the
        // last of them.
        let connection = unsafe { &mut *connection };
        if (scratch.packet.segment.flags & SYN) as u32 | connection.contested == 0 {
            return Ok(connection);
        }
    }
    cold_path();
    let beginning = beginning(context, undeclared(scratch.side), &scratch.packet);
    if !port_watched && beginning == Beginning::Other {
        return Err(pass(reason::NOT_OURS));
    }
    scratch.hops = context.hops(&scratch.packet);
    let joins =
        scratch.packet.segment.flags & SYN != 0 && context.joins_multipath(&raw const scratch.packet) != 0;
    let found = match locate(port_watched as u32, beginning as u32, context.uid(), joins as u32) {
        IN_CONNECTIONS => CONNECTIONS.get_ptr_mut(&scratch.packet.key),
        IN_TRANSIENT => TRANSIENT.get_ptr_mut(&scratch.packet.key),
        found => {
            return Err(Exit {
                reason: found & !DROP,
                end: if found & DROP != 0 { End::Drop } else { End::Pass },
            });
        }
    };
    // SAFETY: as above.
    found.map_or(Err(pass(reason::TABLE_FULL)), |connection| Ok(unsafe { &mut *connection }))
}

/// The state of a packet's connection, wherever it is.
#[inline(always)]
fn known(key: &ConnectionKey) -> Option<*mut Connection> {
    CONNECTIONS.get_ptr_mut(key).or_else(|| TRANSIENT.get_ptr_mut(key))
}

/// Moves a packet's connection to [`TRANSIENT`] once it is closed, fenced or nobody's. A global function: see [`locate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn retire() -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return 0 };
    let Some(connection) = CONNECTIONS.get_ptr(&scratch.packet.key) else { return 0 };
    // SAFETY: a map value of a connection whose packets come one at a time.
    let connection = unsafe { &*connection };
    // Where there is no room, which this table always makes, it stays where it is.
    let over = connection.closed_ns != 0 || connection.session == Connection::IGNORED;
    if over && TRANSIENT.insert(&scratch.packet.key, connection, 0).is_ok() {
        let _ = CONNECTIONS.remove(&scratch.packet.key);
    }
    0
}

/// Whether connections to a port, in network order, are looked up.
#[inline(always)]
pub fn is_port_watched(port: u16) -> bool {
    let port = u16::from_be(port);
    PORTS.get((port >> 6) as u32).is_some_and(|word| word >> (port & 63) & 1 == 1)
}

/// The session that a packet comes in for, its connection, and what came in before it.
#[inline(always)]
pub fn find_inbound(scratch: &mut Scratch) -> Option<(u32, &'static Connection, &'static mut Inbound)> {
    if !is_port_watched(scratch.packet.key.remote_port) {
        return None;
    }
    // SAFETY: a map value, read only.
    let connection = unsafe { &*known(&scratch.packet.key)? };
    let session = connection.session;
    if session == Connection::IGNORED {
        return None;
    }
    // SAFETY: a map value of a connection whose packets come one at a time.
    let found = || {
        INBOUND
            .get_ptr_mut(&scratch.packet.key)
            .map(|inbound| (session, connection, unsafe { &mut *inbound }))
    };
    if let Some(found) = found() {
        return Some(found);
    }
    let segment = &scratch.packet.segment;
    let syn = segment.flags & SYN != 0;
    scratch.inbound =
        if syn { Inbound::at(segment.seq.wrapping_add(1)) } else { Inbound::joined(segment.seq) };
    // No room: what comes in goes uncounted. The table is as large as that of the connections, which tells.
    INBOUND.insert(&scratch.packet.key, &scratch.inbound, 0).ok()?;
    found()
}

/// Whether the peer of a withheld connection has been told; if not, it is now, by a reset of the sequence number that is returned.
#[inline(always)]
pub fn notify_peer(scratch: &Scratch) -> Option<u32> {
    // SAFETY: a map value of a connection whose packets come one at a time.
    let connection = unsafe { &mut *known(&scratch.packet.key)? };
    (core::mem::replace(&mut connection.peer_notified, 1) == 0).then_some(connection.withheld_seq)
}

/// Where [`locate`] has found or put a connection.
const IN_CONNECTIONS: u32 = u32::MAX;
const IN_TRANSIENT: u32 = u32::MAX - 1;
/// What it adds to the reason of a packet that is to be dropped.
const DROP: u32 = 1 << 30;

/// Finds a packet's connection where the first look has not, or makes it, if it is a session's or looks like one: where it is, or why not.
///
/// `port_watched`: a session may have this port; `beginning`: see [`Beginning`]; `uid`: whose socket it is; `joins`: it opens a further path
/// of a Multipath TCP connection. A global function, as this is rare and would take the others' stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn locate(port_watched: u32, beginning: u32, uid: u32, joins: u32) -> u32 {
    // Looked up again, and not handed over: up to 6.1 a map takes no key from a global function's argument.
    let Some(scratch) = Scratch::this_cpu() else { return reason::NOT_CONFIGURED };
    let segment = &scratch.packet.segment;
    if segment.opens_connection() {
        return open(port_watched, beginning, uid, joins);
    }
    let live = CONNECTIONS.get_ptr_mut(&scratch.packet.key);
    if let Some(other) = TRANSIENT.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time.
        let other = unsafe { &mut *other };
        if other.session == Connection::IGNORED {
            return if live.is_some() { IN_CONNECTIONS } else { reason::NOT_OURS };
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

/// [`locate`] of a SYN: it waits in [`TRANSIENT`] until the peer has answered.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open(port_watched: u32, beginning: u32, uid: u32, joins: u32) -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return reason::NOT_CONFIGURED };
    let segment = &scratch.packet.segment;
    // First, for what a SYN that is sent again opens is as old as its first one.
    if let Some(other) = TRANSIENT.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time.
        if unsafe { (*other).is_opened_by(segment) } {
            return IN_TRANSIENT;
        }
    }
    if let Some(live) = CONNECTIONS.get_ptr_mut(&scratch.packet.key) {
        // SAFETY: as above.
        let live = unsafe { &mut *live };
        if live.is_opened_by(segment) {
            return IN_CONNECTIONS;
        }
        if live.closed_ns != 0 {
            let _ = CONNECTIONS.remove(&scratch.packet.key);
        } else if segment.length != 0 {
            return reason::FOREIGN | DROP;
        } else {
            // One of the two is dead. Which one, the next segment tells: until then the one that was answered goes on.
            live.contested = 1;
        }
    }
    let word = if port_watched != 0 { lookup_endpoint(scratch, uid) } else { 0 };
    if word == 0 {
        return join(port_watched, beginning, uid);
    }
    if joins != 0 {
        // Over a further path Multipath TCP would send again what a trip has withheld, and what a reset has made stale.
        return reason::MULTIPATH | DROP;
    }
    if CONNECTIONS.get_ptr(&scratch.packet.key).is_none() {
        evict_inbound(&scratch.packet.key);
    }
    scratch.connection = Connection::new(word, segment);
    (scratch.connection.uid, scratch.connection.hops) = (uid, scratch.hops);
    if segment.length != 0 {
        // Fast Open: its payload is as good as established.
        return establish();
    }
    if TRANSIENT.insert(&scratch.packet.key, &scratch.connection, 0).is_ok() {
        IN_TRANSIENT
    } else {
        table_full()
    }
}

/// Puts the connection in the work area into [`CONNECTIONS`], in place of what had its ports before.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn establish() -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return reason::NOT_CONFIGURED };
    let replaces = CONNECTIONS.get_ptr(&scratch.packet.key).is_some();
    if CONNECTIONS.insert(&scratch.packet.key, &scratch.connection, 0).is_err() {
        let reason = table_full();
        if scratch.packet.segment.length != 0 && reason & DROP == 0 {
            // What follows on what passes uncounted would seem to leave a gap.
            let _ = TRANSIENT.remove(&scratch.packet.key);
        }
        return reason;
    }
    let _ = TRANSIENT.remove(&scratch.packet.key);
    if replaces {
        evict_inbound(&scratch.packet.key);
    }
    IN_CONNECTIONS
}

/// What came in on an earlier connection says nothing of the one that has its ports now.
#[inline(always)]
fn evict_inbound(key: &ConnectionKey) {
    // What is not there needs no removal.
    let _ = INBOUND.remove(key);
}

/// [`locate`] of a segment of a connection whose SYN was not seen: as a session's, or as FIX that no session declares.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn join(port_watched: u32, beginning: u32, uid: u32) -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return reason::NOT_CONFIGURED };
    let segment = &scratch.packet.segment;
    let word = if port_watched != 0 { lookup_endpoint(scratch, uid) } else { 0 };
    if word != 0 {
        if segment.flags & (SYN | ACK) == SYN | ACK {
            // The peer has opened it, to a service of this host.
            scratch.connection = Connection::ignored();
            let _ = TRANSIENT.insert(&scratch.packet.key, &scratch.connection, 0);
            return reason::NOT_OURS;
        }
        if segment.length == 0 {
            // What sends nothing needs no state: a refusal, a port scan, an acknowledgement.
            return reason::CONTROL;
        }
        scratch.connection = Connection::new(word, segment);
        scratch.connection.uid = uid;
        return establish();
    }
    if beginning == Beginning::Other as u32 {
        return reason::NOT_OURS;
    }
    let whole = beginning == Beginning::Fix as u32;
    let blocked_ns = if undeclared(scratch.side) == undeclared::BLOCK { crate::now() } else { 0 };
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    scratch.connection = Connection::undeclared(seq, blocked_ns, whole);
    if TRANSIENT.insert(&scratch.packet.key, &scratch.connection, 0).is_err() {
        return table_full();
    }
    watch_port(scratch.packet.key.remote_port);
    if whole {
        event::undeclared(&scratch.packet);
    }
    IN_TRANSIENT
}

/// No room: closed or open as the policy says, and never silent. What is disarmed withholds nothing.
#[inline(always)]
fn table_full() -> u32 {
    let Some(scratch) = Scratch::this_cpu() else { return reason::NOT_CONFIGURED };
    let number = scratch.connection.session;
    event::table_full(&scratch.packet, number);
    let open = policy(scratch.side).is_some_and(|policy| policy.flags & flag::PASS_WHEN_FULL != 0);
    let armed = session(number, scratch.side)
        .and_then(|session| scope::get(session.scopes[0], 0))
        .is_some_and(|own| own.armed());
    if open || !armed || scratch.packet.segment.length == 0 {
        reason::TABLE_FULL
    } else {
        reason::TABLE_FULL | DROP
    }
}

/// What becomes of FIX that no session declares.
#[inline(always)]
pub fn undeclared(side: u32) -> u32 {
    policy(side).map_or(undeclared::IGNORE, |policy| policy.undeclared)
}

/// Has the connections to a port looked up from now on.
#[inline(always)]
fn watch_port(port: u16) {
    let port = u16::from_be(port);
    if let Some(word) = PORTS.get_ptr_mut((port >> 6) as u32) {
        // SAFETY: a word of a map value.
        unsafe { atomic::fetch_or(word, 1 << (port & 63)) };
    }
}

/// Whose a connection of this account's socket is, as a word of [`Target`].
#[inline(always)]
fn lookup_endpoint(scratch: &Scratch, uid: u32) -> u32 {
    let word = at_endpoint(&scratch.packet, scratch.side);
    // `Target::unpack` looks at its sign, and so does whoever asks: of two such looks the verifier of 6.18 draws wrong bounds, and warns of
    // them ("REG INVARIANTS VIOLATION").
    let (is_shared, number) = (black_box(word >> 31) != 0, word);
    if is_shared || word == 0 {
        return word;
    }
    let others = |session: &Session| session.flags & flag::MATCH_UID != 0 && session.uid != uid;
    if session(number, scratch.side).is_some_and(others) { 0 } else { word }
}

/// Whether an address is one of a declared session, whatever the port.
#[inline(always)]
pub fn is_declared(address: &Address, side: u32) -> bool {
    let endpoint = Endpoint { port: 0, pad: 0, local: [0; 4], remote: *address };
    ENDPOINTS
        .get(Aligned::new(endpoint))
        .is_some_and(|place: &TargetWords| place[side as usize & (SIDES - 1)] != 0)
}

/// Whose endpoint this is, as a word of [`Target`]: one with this local address before one with any, then the longest prefix.
#[inline(always)]
fn at_endpoint(packet: &Packet, side: u32) -> u32 {
    let key = &packet.key;
    let endpoint = Endpoint { port: key.remote_port, pad: 0, local: key.local, remote: key.remote };
    let at = |endpoint| {
        ENDPOINTS
            .get(Aligned::new(endpoint))
            .map_or(0, |place: &TargetWords| place[side as usize & (SIDES - 1)])
    };
    match at(endpoint) {
        0 => at(Endpoint { local: [0; 4], ..endpoint }),
        word => word,
    }
}

/// A key on the stack, where the verifier wants words aligned, which aya's packed type alone would not be.
#[repr(C, align(8))]
struct Aligned(Key<Endpoint>);

impl Aligned {
    #[inline(always)]
    fn new(endpoint: Endpoint) -> Self {
        Self(Key::new(Endpoint::BITS, endpoint))
    }
}

impl Borrow<Key<Endpoint>> for Aligned {
    #[inline(always)]
    fn borrow(&self) -> &Key<Endpoint> {
        &self.0
    }
}
