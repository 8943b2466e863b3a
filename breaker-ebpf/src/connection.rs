//! Which session a packet belongs to, and the state of its connection.
//!
//! Why it is safe: a connection's state has one writer at a time, for the hook runs under the socket's lock. It is made at the first
//! packet and found by 4-tuple from then on; ports that no session has are turned away by one bit.

use core::borrow::Borrow;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
};
use breaker_common::abi::{Connection, ConnectionKey, Endpoint, Meta, Name, Session, flag, reason, undeclared};
use breaker_common::decide::RST;

use crate::packet::Packet;
use crate::work::Work;
use crate::{Exit, atomic, event, pass, payload};

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
static META: Array<Meta> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Names of the scopes, by number: only user space reads them.
#[map]
static NAMES: Array<Name> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// When the agent was last seen alive (CLOCK_MONOTONIC, ns): user space writes and reads it.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// One bit for each port, in host order, at which connections are looked up: user space sets those of the sessions' remote ends, the
/// kernel, by atomic OR, those at which it met FIX that no session declares.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, BPF_F_MMAPABLE);

#[map]
static ENDPOINTS: LpmTrie<Endpoint, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static SESSIONS: Array<Session> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static CONNECTIONS: HashMap<ConnectionKey, Connection> = HashMap::with_max_entries(1, 0);

/// The session with this number.
#[inline(always)]
pub fn session(number: u32) -> Option<&'static Session> {
    // SAFETY: a map value lives as long as the map; user space alone writes it.
    SESSIONS.get_ptr(number).map(|session| unsafe { &*session })
}

/// The state of a packet's connection, made where it is new.
#[inline(always)]
pub fn find(skb: *mut __sk_buff, work: &mut Work) -> Result<&'static mut Connection, Exit> {
    let port = u16::from_be(work.packet.key.remote_port);
    let looked_up = PORTS.get((port >> 6) as u32).is_some_and(|word| word >> (port & 63) & 1 == 1);
    if looked_up && let Some(connection) = CONNECTIONS.get_ptr_mut(&work.packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time; entries are removed by user space long after the
        // last of them.
        let connection = unsafe { &mut *connection };
        if !connection.is_reused(&work.packet.segment) {
            return Ok(connection);
        }
        // A failure to remove it is one to make it anew: `make` overwrites.
        let _ = CONNECTIONS.remove(&work.packet.key);
    }
    if !looked_up && (watches() == undeclared::IGNORE || !payload::begins_like_fix(skb, &work.packet)) {
        return Err(pass(reason::NOT_OURS));
    }
    match make(skb, looked_up as u32) {
        MADE => CONNECTIONS.get_ptr_mut(&work.packet.key).map_or(Err(pass(reason::TABLE_FULL)), |connection| {
            // SAFETY: as above.
            Ok(unsafe { &mut *connection })
        }),
        found => Err(Exit { reason: found & !DROP, shot: found & DROP != 0 }),
    }
}

/// What [`make`] returns where there is no reason against it.
const MADE: u32 = u32::MAX;
/// What it adds to the reason of a packet that is to be dropped.
const DROP: u32 = 1 << 30;

/// Puts a packet's connection into the table, if it is a session's or looks like one: [`MADE`], or why not.
///
/// `looked_up`: a session may have this port. A global function, as this is rare and would take the others' stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make(skb: *mut __sk_buff, looked_up: u32) -> u32 {
    // Looked up again, and not handed over: up to 6.1 a map takes no key from a global function's argument.
    let Some(work) = Work::of_this_cpu() else { return reason::NOT_CONFIGURED };
    let segment = &work.packet.segment;
    let session = if looked_up != 0 { session_of(&work.packet) } else { None };
    work.connection = match session {
        Some(session) => Connection::joined(session, segment.seq),
        None => match watches() {
            undeclared::IGNORE => return reason::NOT_OURS,
            _ if !payload::begins_like_fix(skb, &work.packet) => return reason::NOT_OURS,
            policy => {
                look_up(work.packet.key.remote_port);
                event::undeclared(&work.packet);
                Connection::undeclared(segment.seq, policy == undeclared::BLOCK)
            }
        },
    };
    if segment.flags & RST != 0 && segment.length == 0 {
        // A refusal needs no state, and a port scan must not fill the table.
        return reason::CONTROL;
    }
    if CONNECTIONS.insert(&work.packet.key, &work.connection, 0).is_ok() {
        return MADE;
    }
    // No room: closed or open as the policy says, and never silent.
    event::table_full(&work.packet, work.connection.session);
    let open = META.get(0).is_some_and(|meta| meta.flags & flag::PASS_WHEN_FULL != 0);
    if open || segment.length == 0 { reason::TABLE_FULL } else { reason::TABLE_FULL | DROP }
}

/// What becomes of FIX that no session declares.
#[inline(always)]
fn watches() -> u32 {
    META.get(0).map_or(undeclared::IGNORE, |meta| meta.undeclared)
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

/// The session whose endpoint this is: one with this local address before one with any, then the longest prefix.
#[inline(always)]
fn session_of(packet: &Packet) -> Option<u32> {
    let key = &packet.key;
    let endpoint = Endpoint { port: key.remote_port, pad: 0, local: key.local, remote: key.remote };
    if let Some(session) = ENDPOINTS.get(Aligned::new(endpoint)) {
        return Some(*session);
    }
    ENDPOINTS.get(Aligned::new(Endpoint { local: [0; 4], ..endpoint })).copied()
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
