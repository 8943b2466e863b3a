//! The event ring: changes of state, for whoever listens. Nobody has to.

use aya_ebpf::{macros::map, maps::RingBuf};
use breaker_common::abi::{ConnectionKey, Event, kind, reason};

use crate::packet::Packet;
use crate::{now, work};

/// Bytes of the ring: 3,000 events.
const SIZE: u32 = 256 * 1024;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(SIZE, 0);

/// Writes an event, or counts it as lost.
#[inline(always)]
pub fn send(event: &Event) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(0);
        }
        None => work::count(reason::EVENT_LOST),
    }
}

/// The connection table has no room for this connection.
#[inline(always)]
pub fn table_full(packet: &Packet, session: u32) {
    send(&new(kind::TABLE_FULL, 0, session, packet.key));
}

/// FIX to a place that no session declares.
#[inline(always)]
pub fn undeclared(packet: &Packet) {
    send(&new(kind::UNDECLARED, 0, 0, packet.key));
}

/// An event of this moment, with nothing to say of limits.
#[inline(always)]
pub fn new(kind: u32, scope: u32, session: u32, connection: ConnectionKey) -> Event {
    Event { at_ns: now(), kind, scope, session, limit: 0, cause: 0, used: 0, connection, level: 0 }
}
