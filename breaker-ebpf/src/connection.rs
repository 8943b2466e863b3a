//! Which session a packet belongs to, and the state of its connection.
//!
//! Why it is safe: a connection's state has one writer at a time, for the hook runs under the socket's lock. It is made at the first
//! packet and found by 4-tuple from then on; ports that no session has are turned away by one bit.

use core::borrow::Borrow;
use core::hint::cold_path;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
};
use breaker_common::abi::{
    Connection, ConnectionKey, Endpoint, IdentityKey, Inbound, Label, Meta, Place, Policy, SIDES, Session, Target,
    flag, reason, undeclared,
};
use breaker_common::decide::{FIN, RST, SYN};
use breaker_common::limits::SharedScope;
use breaker_common::stream::Stream;

use crate::context::Context;
use crate::packet::Packet;
use crate::work::Work;
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
static ENDPOINTS: LpmTrie<Endpoint, Place> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Sessions at endpoints that several share.
#[map]
static IDENTITIES: HashMap<IdentityKey, Place> = HashMap::with_max_entries(1, 0);

/// Sessions by number, the sides of each beside each other.
#[map]
static SESSIONS: Array<Session> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What comes in, by the same keys.
#[map]
static INBOUND: HashMap<ConnectionKey, Inbound> = HashMap::with_max_entries(1, 0);

#[map]
static CONNECTIONS: HashMap<ConnectionKey, Connection> = HashMap::with_max_entries(1, 0);

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
pub fn session_at(place: u32, ids: [u32; 4], side: u32) -> u32 {
    let key = IdentityKey { place, ids };
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
    Some((unsafe { beat.read_volatile() }, policy.deadman_ns, policy.flags & flag::SILENCE_TRIPS != 0))
}

/// Whether a packet is FIX of nobody's, and that matters by the policy ([`undeclared`]).
#[inline(always)]
pub fn is_undeclared(context: impl Context, policy: u32, packet: &Packet) -> bool {
    policy != undeclared::IGNORE && payload::begins_like_fix(context, packet)
}

/// The state of a packet's connection, made where it is new. `looked_up`: its port is ([`is_looked_up`]).
#[inline(always)]
pub fn find(context: impl Context, work: &mut Work, looked_up: bool) -> Result<&'static mut Connection, Exit> {
    if looked_up && let Some(connection) = CONNECTIONS.get_ptr_mut(&work.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time; entries are removed by user space long after the
        // last of them.
        let connection = unsafe { &mut *connection };
        if !connection.is_reused(&work.packet.segment) {
            if connection.session != Connection::IGNORED {
                return Ok(connection);
            }
            cold_path();
            if work.packet.segment.flags & (FIN | RST) != 0 {
                connection.closed_ns = crate::now();
            }
            return Err(pass(reason::NOT_OURS));
        }
        forget();
    }
    let fix = is_undeclared(context, undeclared(work.side), &work.packet);
    if !looked_up && !fix {
        return Err(pass(reason::NOT_OURS));
    }
    match make(looked_up as u32, fix as u32) {
        MADE => CONNECTIONS.get_ptr_mut(&work.packet.key).map_or(Err(pass(reason::TABLE_FULL)), |connection| {
            // SAFETY: as above.
            Ok(unsafe { &mut *connection })
        }),
        found => Err(Exit { reason: found & !DROP, end: if found & DROP != 0 { End::Drop } else { End::Pass } }),
    }
}

/// Removes the connection that had a packet's ports before it. A global function: see [`make`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forget() -> u32 {
    if let Some(work) = Work::of_this_cpu() {
        // A failure to remove it is one to make it anew: `make` overwrites.
        let _ = CONNECTIONS.remove(&work.packet.key);
        // What came in on the earlier one says nothing of this one. Often nothing has.
        let _ = INBOUND.remove(&work.packet.key);
    }
    0
}

/// Whether connections to a port, in network order, are looked up.
#[inline(always)]
pub fn is_looked_up(port: u16) -> bool {
    let port = u16::from_be(port);
    PORTS.get((port >> 6) as u32).is_some_and(|word| word >> (port & 63) & 1 == 1)
}

/// The session that a packet comes in for, and what came in before it on its connection.
#[inline(always)]
pub fn find_inbound(work: &mut Work) -> Option<(u32, &'static mut Inbound)> {
    if !is_looked_up(work.packet.key.remote_port) {
        return None;
    }
    let connection = CONNECTIONS.get_ptr(&work.packet.key)?;
    // SAFETY: a field of a map value.
    let session = unsafe { (&raw const (*connection).session).read_volatile() };
    // SAFETY: a map value of a connection whose packets come one at a time.
    let found = || INBOUND.get_ptr_mut(&work.packet.key).map(|inbound| (session, unsafe { &mut *inbound }));
    if let Some(found) = found() {
        return Some(found);
    }
    let segment = &work.packet.segment;
    let syn = segment.flags & SYN != 0;
    work.inbound.stream = if syn { Stream::at(segment.seq.wrapping_add(1)) } else { Stream::joined(segment.seq) };
    // No room: what comes in goes uncounted. The table is as large as that of the connections, which tells.
    INBOUND.insert(&work.packet.key, &work.inbound, 0).ok()?;
    found()
}

/// Whether the peer of a withheld connection has been told; if not, it is now, by a reset of the sequence number that is returned.
#[inline(always)]
pub fn tell_peer(work: &Work) -> Option<u32> {
    let connection = CONNECTIONS.get_ptr_mut(&work.packet.key)?;
    // SAFETY: a map value of a connection whose packets come one at a time.
    let connection = unsafe { &mut *connection };
    (core::mem::replace(&mut connection.told, 1) == 0).then_some(connection.withheld_seq)
}

/// What [`make`] returns where there is no reason against it.
const MADE: u32 = u32::MAX;
/// What it adds to the reason of a packet that is to be dropped.
const DROP: u32 = 1 << 30;

/// Puts a packet's connection into the table, if it is a session's or looks like one: [`MADE`], or why not.
///
/// `looked_up`: a session may have this port; `fix`: it begins like FIX, and that matters. A global function, as this is rare and would
/// take the others' stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make(looked_up: u32, fix: u32) -> u32 {
    // Looked up again, and not handed over: up to 6.1 a map takes no key from a global function's argument.
    let Some(work) = Work::of_this_cpu() else { return reason::NOT_CONFIGURED };
    let segment = &work.packet.segment;
    let word = if looked_up != 0 { whose(&work.packet, work.side) } else { 0 };
    if segment.flags & RST != 0 && segment.length == 0 {
        // A refusal needs no state, and a port scan must not fill the table.
        return if word == 0 { reason::NOT_OURS } else { reason::CONTROL };
    }
    work.connection = match Target::unpack(word) {
        Target::Nobody if fix == 0 => return reason::NOT_OURS,
        Target::Nobody => {
            let blocked_ns = if undeclared(work.side) == undeclared::BLOCK { crate::now() } else { 0 };
            Connection::undeclared(segment.seq, blocked_ns)
        }
        Target::Session(_) | Target::Shared { .. } => Connection::new(word, segment),
    };
    if CONNECTIONS.insert(&work.packet.key, &work.connection, 0).is_ok() {
        if let Target::Nobody = Target::unpack(word) {
            look_up(work.packet.key.remote_port);
            event::undeclared(&work.packet);
        }
        return MADE;
    }
    // No room: closed or open as the policy says, and never silent. What is disarmed withholds nothing.
    let number = work.connection.session;
    event::table_full(&work.packet, number);
    let open = policy(work.side).is_some_and(|policy| policy.flags & flag::PASS_WHEN_FULL != 0);
    let armed =
        session(number, work.side).and_then(|session| scope::get(session.scopes[0], 0)).is_some_and(|own| own.armed());
    if open || !armed || segment.length == 0 { reason::TABLE_FULL } else { reason::TABLE_FULL | DROP }
}

/// What becomes of FIX that no session declares.
#[inline(always)]
pub fn undeclared(side: u32) -> u32 {
    policy(side).map_or(undeclared::IGNORE, |policy| policy.undeclared)
}

/// Has the connections to a port looked up from now on.
#[inline(always)]
fn look_up(port: u16) {
    let port = u16::from_be(port);
    if let Some(word) = PORTS.get_ptr_mut((port >> 6) as u32) {
        // SAFETY: a word of a map value.
        unsafe { atomic::fetch_or(word, 1 << (port & 63)) };
    }
}

/// Whose endpoint this is, as a word of [`Target`]: one with this local address before one with any, then the longest prefix.
#[inline(always)]
fn whose(packet: &Packet, side: u32) -> u32 {
    let key = &packet.key;
    let endpoint = Endpoint { port: key.remote_port, pad: 0, local: key.local, remote: key.remote };
    let at =
        |endpoint| ENDPOINTS.get(Aligned::new(endpoint)).map_or(0, |place: &Place| place[side as usize & (SIDES - 1)]);
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
