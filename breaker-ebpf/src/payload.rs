//! Payload of a segment. At tc it lies in pages, never in the linear part, so it is read by copy: the helpers take any offset. At XDP a
//! whole window is read in place.

use core::hint::black_box;

use aya_ebpf::{macros::map, maps::HashMap};
use breaker_common::abi::{CompId, identity};
use breaker_common::fix::{SIGNATURE, WINDOW, Words};
use breaker_common::stream::Payload;

use crate::context::Access;
use crate::packet::Packet;

/// Numbers of the CompIDs and SubIDs that sessions declare.
#[map]
static COMP_IDS: HashMap<CompId, u32> = HashMap::with_max_entries(1, 0);

/// The payload of a packet, from this offset on.
pub struct InPacket<C> {
    /// The packet.
    pub context: C,
    /// Where its payload begins.
    pub start: u32,
}

impl<C: Access> Payload for InPacket<C> {
    #[inline(always)]
    fn window(&mut self, offset: u32, length: u32) -> Option<Words> {
        let offset = self.start.wrapping_add(offset);
        if length >= WINDOW as u32 {
            return self.context.window(offset);
        }
        let mut window: Words = [0; 4];
        // The verifier must see 1 to WINDOW here; what the compiler knows of `length` it would leave out.
        let length = (black_box(length).wrapping_sub(1) & (WINDOW as u32 - 1)) + 1;
        // SAFETY: `length` is at most the buffer's.
        unsafe { self.context.load(offset, window.as_mut_ptr().cast(), length) }.then_some(window)
    }

    #[inline(always)]
    fn comp_id(&mut self, value: &Words) -> u32 {
        // SAFETY: a number that user space sets once.
        unsafe { COMP_IDS.get(value) }.map_or(identity::UNKNOWN, |number| *number)
    }
}

/// True where a packet's payload begins like a FIX message.
#[inline(always)]
pub fn begins_like_fix(context: impl Access, packet: &Packet) -> bool {
    const BYTES: u32 = SIGNATURE.len() as u32;
    // More than it takes: what lies on the stack must be aligned.
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is longer than that.
    let read = packet.segment.length >= BYTES && unsafe { context.load(packet.payload, bytes.as_mut_ptr(), BYTES) };
    read && bytes.starts_with(&SIGNATURE)
}
