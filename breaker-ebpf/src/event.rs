//! The event ring: changes of state, for any listener. Enforcement does not depend on one.

use aya_ebpf::bindings::BPF_RB_AVAIL_DATA;
use aya_ebpf::helpers::bpf_ringbuf_query;
use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use breaker_common::abi::{ConnectionKey, Event, kind, reason};

use crate::clock::now;
use crate::counters;

/// Bytes of the ring: 3,000 events.
const SIZE: u32 = 256 * 1024;
/// Bytes of the ring that only events about switches may use.
const RESERVE: u64 = SIZE as u64 / 4;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(SIZE, 0);

const SECOND: u64 = 1_000_000_000;
/// Events of one kind that a CPU writes in one second.
const MAX_PER_SECOND: u64 = 64;
/// Entries for all kinds, as a power of two.
const KINDS: u32 = 16;

/// Recent events of one kind on this CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rate {
    since_ns: u64,
    events: u64,
}

#[map]
static RATES: PerCpuArray<Rate> = PerCpuArray::with_max_entries(KINDS, 0);

/// Returns a new event that happens now and concerns no limit.
#[inline(always)]
pub fn new(kind: u32, scope: u32, session: u32, connection: ConnectionKey) -> Event {
    Event { at_ns: now(), kind, scope, session, limit: 0, cause: 0, used: 0, connection, level: 0 }
}

/// Writes an event, or counts the event as left out or lost.
#[inline(always)]
pub fn send(event: &Event) {
    if !is_admitted(event) {
        counters::count(reason::EVENT_LEFT_OUT);
        return;
    }
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(0);
        }
        None => counters::count(reason::EVENT_LOST),
    }
}

/// Returns false if the rest of the ring is reserved, or the event's kind has exceeded its rate.
#[inline(always)]
fn is_admitted(event: &Event) -> bool {
    if is_about_switch(event.kind) {
        return true;
    }
    // SAFETY: the map is a ring buffer.
    let filled =
        unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), BPF_RB_AVAIL_DATA as u64) };
    if filled > SIZE as u64 - RESERVE {
        return false;
    }
    let Some(rate) = RATES.get_ptr_mut(event.kind & (KINDS - 1)) else { return true };
    // SAFETY: this CPU's own value.
    let rate = unsafe { &mut *rate };
    if event.at_ns.wrapping_sub(rate.since_ns) > SECOND {
        *rate = Rate { since_ns: event.at_ns, events: 0 };
    }
    rate.events += 1;
    rate.events <= MAX_PER_SECOND
}

/// Returns true for a change of a switch. These events are rare, and a flood of other kinds must not displace
/// them.
#[inline(always)]
fn is_about_switch(kind: u32) -> bool {
    matches!(kind, kind::TRIPPED | kind::WOULD_TRIP | kind::ISOLATED | kind::HEARTBEAT_LOST)
}
