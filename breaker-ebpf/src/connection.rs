//! Which session a packet belongs to, and the state of its connection.
//!
//! Why it is safe: a connection's state has one writer at a time, for the hook runs under the socket's lock. It is made at the first
//! packet and found by 4-tuple from then on; ports that no session has are turned away by one bit.

use core::borrow::Borrow;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
};
use breaker_common::abi::{Connection, ConnectionKey, Endpoint, Meta, Name, Session, flag, reason};
use breaker_common::decide::RST;

use crate::packet::Packet;
use crate::work::Work;
use crate::{Exit, event, pass};

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

/// One bit for each port, in host order, that some session's remote end has.
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
pub fn find(work: &mut Work) -> Result<&'static mut Connection, Exit> {
    let packet = &work.packet;
    let port = u16::from_be(packet.key.remote_port);
    let declared = PORTS.get((port >> 6) as u32).is_some_and(|word| word >> (port & 63) & 1 == 1);
    if !declared {
        return Err(pass(reason::NOT_OURS));
    }
    match CONNECTIONS.get_ptr_mut(&packet.key) {
        // SAFETY: a map value of a connection whose packets come one at a time; entries are removed by user space long after the
        // last of them.
        Some(connection) => Ok(unsafe { &mut *connection }),
        None => make(work),
    }
}

/// Takes up a connection that is not in the table, if it is a session's.
#[inline(always)]
fn make(work: &mut Work) -> Result<&'static mut Connection, Exit> {
    let packet = &work.packet;
    let session = session_of(packet).ok_or(pass(reason::NOT_OURS))?;
    if packet.segment.flags & RST != 0 && packet.segment.length == 0 {
        // A refusal needs no state, and a port scan must not fill the table.
        return Err(pass(reason::CONTROL));
    }
    work.connection = Connection::joined(session, packet.segment.seq);
    let made = CONNECTIONS.insert(&packet.key, &work.connection, 0);
    match CONNECTIONS.get_ptr_mut(&packet.key) {
        // SAFETY: as in `find`.
        Some(connection) if made.is_ok() => Ok(unsafe { &mut *connection }),
        _ => Err(full(packet, session)),
    }
}

/// No room in the table: closed or open as the policy says, and never silent.
#[inline(always)]
fn full(packet: &Packet, session: u32) -> Exit {
    event::table_full(packet, session);
    let open = META.get(0).is_some_and(|meta| meta.flags & flag::PASS_WHEN_FULL != 0);
    Exit { reason: reason::TABLE_FULL, shot: !open && packet.segment.length != 0 }
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
