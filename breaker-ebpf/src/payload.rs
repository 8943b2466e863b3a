//! The payload of a segment.
//!
//! At tc the payload lies in pages outside the linear part. It is read by copy, with helpers that accept any
//! offset. At XDP a whole chunk is read in place.

use core::hint::black_box;

use aya_ebpf::{macros::map, maps::PerCpuArray};
use breaker_common::fix::{self, CHUNK, Chunk, Header, MsgType, SIGNATURE};
use breaker_common::payload::Payload;

use crate::context::{Access, Context};
use crate::packet::Packet;
use crate::policy;

/// The payload of a packet.
pub struct InPacket<C> {
    /// The packet.
    pub context: C,
    /// Offset of the payload in the packet.
    pub start: u32,
}

impl<C: Context> Payload for InPacket<C> {
    #[inline(always)]
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk> {
        let offset = self.start.wrapping_add(offset);
        if length >= CHUNK as u32 {
            return self.context.chunk(offset);
        }
        let mut chunk: Chunk = [0; 4];
        let length = bounded(length, CHUNK as u32);
        // SAFETY: `length` is at most CHUNK.
        unsafe { self.context.load(offset, chunk.as_mut_ptr().cast(), length) }.then_some(chunk)
    }

    #[inline(always)]
    fn header(&mut self, chunk: &Chunk, available: u32) -> Header {
        let Some(parsed) = HEADERS.get_ptr_mut(0) else { return Header::Implausible };
        // SAFETY: this CPU's own value, and one packet at a time.
        let parsed = unsafe { &mut *parsed };
        parsed.chunk = *chunk;
        match parse_header(available) {
            MESSAGE => Header::Message {
                msg_type: MsgType(parsed.msg_type),
                length: parsed.length,
                body_offset: parsed.body_offset,
            },
            PARTIAL => Header::Partial,
            _ => Header::Implausible,
        }
    }

    #[inline(always)]
    fn find(&mut self, from: u32, to: u32) -> u32 {
        self.context.find(self.start.wrapping_add(from), self.start.wrapping_add(to)).wrapping_sub(self.start)
    }

    #[inline(always)]
    fn comp_id(&mut self, value: &Chunk) -> u32 {
        policy::comp_id(value)
    }
}

/// Argument and result of [`parse_header`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Parsed {
    chunk: Chunk,
    msg_type: u64,
    length: u32,
    body_offset: u32,
}

#[map]
static HEADERS: PerCpuArray<Parsed> = PerCpuArray::with_max_entries(1, 0);

const IMPLAUSIBLE: u32 = 0;
const PARTIAL: u32 = 1;
const MESSAGE: u32 = 2;

/// Parses the header in [`HEADERS`] ([`fix::header`]), and returns the variant of [`Header`]. A global
/// function.
///
/// A whole [`Header`] in the map instead takes 22 instructions more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_header(available: u32) -> u32 {
    let Some(parsed) = HEADERS.get_ptr_mut(0) else { return IMPLAUSIBLE };
    // SAFETY: this CPU's own value, and one packet at a time.
    let parsed = unsafe { &mut *parsed };
    match fix::header(&parsed.chunk, available) {
        Header::Message { msg_type, length, body_offset } => {
            (parsed.msg_type, parsed.length, parsed.body_offset) = (msg_type.0, length, body_offset);
            MESSAGE
        }
        Header::Partial => PARTIAL,
        Header::Implausible => IMPLAUSIBLE,
    }
}

/// Returns the length, of 1 to `limit` bytes, with bounds that the verifier sees. `limit` is a power of two.
///
/// The compiler knows the bounds already, and without the black box it leaves the mask out: "invalid
/// zero-sized read" (6.1; 6.12 accepts that).
#[inline(always)]
pub fn bounded(length: u32, limit: u32) -> u32 {
    (black_box(length).wrapping_sub(1) & (limit - 1)) + 1
}

/// Whether a payload begins like a FIX message.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Beginning {
    /// The payload does not begin like FIX.
    Other = 0,
    /// The payload begins with [`SIGNATURE`].
    Fix = 1,
    /// The payload is shorter than [`SIGNATURE`], and is a prefix of it.
    Short = 2,
}

/// Compares the beginning of a packet's payload with a FIX message's.
#[inline(always)]
pub fn beginning(context: impl Access, packet: &Packet) -> Beginning {
    const BYTES: u32 = SIGNATURE.len() as u32;
    const WORD: u64 = 0x58_49_46_3d_38;
    let mut word = 0u64;
    let to = (&raw mut word).cast();
    let length = packet.segment.length;
    if length >= BYTES {
        // SAFETY: the buffer has 8 bytes.
        let read = unsafe { context.load(packet.payload, to, BYTES) };
        return if read && word == WORD { Beginning::Fix } else { Beginning::Other };
    }
    if length == 0 {
        return Beginning::Other;
    }
    let length = bounded(length, 4);
    // SAFETY: the buffer has 8 bytes.
    let read = unsafe { context.load(packet.payload, to, length) };
    if read && word == WORD & ((1u64 << (8 * length)) - 1) { Beginning::Short } else { Beginning::Other }
}
