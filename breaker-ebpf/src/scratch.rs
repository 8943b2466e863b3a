//! Per-CPU memory for the packet in progress.
//!
//! One packet uses it at a time: the hooks run with softirqs off, so no packet interrupts another on the same
//! CPU.

use core::hint::{black_box, cold_path};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use breaker_common::abi::{Connection, Inbound};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::SharedEndpointState;
use breaker_common::limits::{LimitExceeded, PendingCharge};

use crate::packet::Packet;

/// The state of the packet in progress.
#[repr(C)]
pub struct Scratch {
    /// The parsed headers.
    pub packet: Packet,
    /// Messages and bytes of the segment.
    pub counts: SegmentCounts,
    /// A connection before its insertion into a table.
    pub connection: Connection,
    /// Inbound state of a connection before its insertion.
    pub inbound: Inbound,
    /// The charge of the segment's messages to the limits.
    pub pending: PendingCharge,
    /// CLOCK_MONOTONIC, ns, once a limit has read the clock; 0 before.
    pub now: u64,
    /// The exceeded limit, if a function of `charge` reports one.
    pub exceeded: LimitExceeded,
    /// Number of the session.
    pub session: u32,
    /// The side of the policy in force when the packet arrived.
    pub side: u32,
    /// `Meta::hold` when the packet arrived: the second of CLOCK_MONOTONIC at which the hold ends by
    /// itself, or 0. In this memory because the stack has no room: "combined stack size of 6 calls is
    /// 544. Too large" (up to 6.1).
    pub hold: u32,
    /// Fields to read in every message (`message::want`).
    pub any: u32,
    /// Fields to read in orders (`message::want`).
    pub orders: u32,
    /// 1 if the packet is inbound.
    pub incoming: u32,
    /// Number of MsgTypes that the session classifies itself.
    pub overrides: u32,
    /// Longest plausible message, in bytes.
    pub longest: u32,
    /// Result of `switches::shared_endpoint_state`.
    pub shared_endpoint_state: SharedEndpointState,
    /// IPv4 TTL or IPv6 hop limit of a forwarded segment that may open a connection; otherwise 0.
    pub hops: u32,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

impl Scratch {
    /// Returns the memory of this CPU.
    #[inline(always)]
    pub fn this_cpu() -> Option<&'static mut Self> {
        // SAFETY: this CPU's own value, and one packet at a time.
        SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
    }

    /// Returns true if a message's fields decide anything in this segment, or the session overrides a class.
    #[inline(always)]
    pub fn needs_fields(&self) -> bool {
        self.any | self.orders | self.incoming | self.overrides != 0
    }

    /// Clears the counts and the clock for a packet.
    #[inline(always)]
    pub fn clear(&mut self, incoming: bool) {
        // Volatile words: LLVM turns plain stores into a memset, which compiles to a loop over bytes.
        let counts = (&raw mut self.counts).cast::<u64>();
        for i in 0..size_of::<SegmentCounts>() / size_of::<u64>() {
            // SAFETY: inside the counts, for which zero is a valid value.
            unsafe { counts.add(i).write_volatile(0) };
        }
        (self.incoming, self.now) = (incoming as u32, 0);
    }
}

/// Checks a pointer argument of a global function for null.
///
/// Behind the black box the compiler cannot move pointer arithmetic before the check, which every kernel
/// refuses: "pointer arithmetic on mem_or_null prohibited, null-check it first".
#[inline(always)]
pub fn non_null<T>(pointer: *mut T) -> Option<&'static mut T> {
    if pointer.is_null() {
        cold_path();
        return None;
    }
    // SAFETY: a part of this CPU's scratch memory or of a map value, used by one packet at a time.
    Some(unsafe { &mut *black_box(pointer) })
}
