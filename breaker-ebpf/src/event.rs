//! The event ring: changes of state, for whoever listens. Nobody has to.

use aya_ebpf::bindings::BPF_RB_AVAIL_DATA;
use aya_ebpf::helpers::bpf_ringbuf_query;
use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use breaker_common::abi::{ConnectionKey, Event, kind, reason};

use crate::packet::Packet;
use crate::{now, scratch};

/// Bytes of the ring: 3,000 events.
const SIZE: u32 = 256 * 1024;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(SIZE, 0);

/// Bytes of the ring that are kept for events of [`is_grave`].
const RESERVE: u64 = SIZE as u64 / 4;

/// True for the changes of a switch: they are few, and none of them may be missed for the many of other kinds.
#[inline(always)]
fn is_grave(kind: u32) -> bool {
    matches!(kind, kind::TRIPPED | kind::WOULD_TRIP | kind::ISOLATED | kind::HEARTBEAT_LOST)
}

/// True where an event is one too many: its kind has used up its share of this moment, or the rest of the ring is reserved.
#[inline(always)]
fn is_left_out(event: &Event) -> bool {
    if is_grave(event.kind) {
        return false;
    }
    // SAFETY: the map is a ring buffer.
    let filled =
        unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), BPF_RB_AVAIL_DATA as u64) };
    if filled > SIZE as u64 - RESERVE {
        return true;
    }
    let Some(share) = SHARES.get_ptr_mut(event.kind & (KINDS - 1)) else { return false };
    // SAFETY: this CPU's own value.
    let share = unsafe { &mut *share };
    if event.at_ns.wrapping_sub(share.since_ns) > SECOND {
        *share = Share { since_ns: event.at_ns, events: 0 };
    }
    share.events += 1;
    share.events > MAX_A_SECOND
}

const SECOND: u64 = 1_000_000_000;
/// Events of a kind that a CPU may tell in a second. The rest is counted: what floods says the same again and again.
const MAX_A_SECOND: u64 = 64;
/// Room for all kinds, as a power of two.
const KINDS: u32 = 16;

/// What a kind has told lately on a CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Share {
    since_ns: u64,
    events: u64,
}

#[map]
static SHARES: PerCpuArray<Share> = PerCpuArray::with_max_entries(KINDS, 0);

/// Writes an event, or counts it as lost or left out.
#[inline(always)]
pub fn send(event: &Event) {
    if is_left_out(event) {
        scratch::count(reason::EVENT_LEFT_OUT);
        return;
    }
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(0);
        }
        None => scratch::count(reason::EVENT_LOST),
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
