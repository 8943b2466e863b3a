//! Payload of a segment. At tc it lies in pages, never in the linear part, so it is read by copy: the helpers take any offset. At XDP a
//! whole window is read in place.

use core::hint::black_box;

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use breaker_common::abi::{CompId, identity};
use breaker_common::blind::first_signature;
use breaker_common::fix::{self, CHUNK, Chunk, Header, MsgType, SIGNATURE};
use breaker_common::payload::Payload;

use crate::context::Context;
use crate::packet::Packet;

/// Words of payload that are searched at a time.
const SEARCH_WORDS: usize = 32;
const SEARCH_BYTES: u32 = (SEARCH_WORDS * 8) as u32;
/// Bytes by which the search goes on: the last word is only looked into for what begins in the one before.
const STRIDE: u32 = SEARCH_BYTES - 8;
/// Chunks that one search goes over: 254 KB, more than any segment has (BIG TCP, 512 KB at most, is given up beyond).
const MAX_SEARCHES: u32 = 1024;

/// A window, and what its header says.
#[repr(C)]
#[derive(Clone, Copy)]
struct Scratch {
    window: Chunk,
    msg_type: u64,
    length: u32,
    body_offset: u32,
}

#[map]
static HEADERS: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// What [`parse_header`] returns: [`Header`] without what it holds.
const IMPLAUSIBLE: u32 = 0;
const PARTIAL: u32 = 1;
const MESSAGE: u32 = 2;

/// [`fix::header`] of the window in [`HEADERS`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_header(available: u32) -> u32 {
    let Some(scratch) = HEADERS.get_ptr_mut(0) else { return IMPLAUSIBLE };
    // SAFETY: this CPU's own value, and one packet at a time.
    let scratch = unsafe { &mut *scratch };
    match fix::header(&scratch.window, available) {
        Header::Message { msg_type, length, body_offset } => {
            (scratch.msg_type, scratch.length, scratch.body_offset) = (msg_type.0, length, body_offset);
            MESSAGE
        }
        Header::Partial => PARTIAL,
        Header::Implausible => IMPLAUSIBLE,
    }
}

#[map]
static CHUNKS: PerCpuArray<[u64; SEARCH_WORDS]> = PerCpuArray::with_max_entries(1, 0);

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

impl<C: Context> Payload for InPacket<C> {
    #[inline(always)]
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk> {
        let offset = self.start.wrapping_add(offset);
        if length >= CHUNK as u32 {
            return self.context.chunk(offset);
        }
        let mut window: Chunk = [0; 4];
        // The verifier must see 1 to CHUNK here; what the compiler knows of `length` it would leave out.
        let length = (black_box(length).wrapping_sub(1) & (CHUNK as u32 - 1)) + 1;
        // SAFETY: `length` is at most the buffer's.
        unsafe { self.context.load(offset, window.as_mut_ptr().cast(), length) }.then_some(window)
    }

    #[inline(always)]
    fn header(&mut self, window: &Chunk, available: u32) -> Header {
        let Some(scratch) = HEADERS.get_ptr_mut(0) else { return Header::Implausible };
        // SAFETY: this CPU's own value, and one packet at a time.
        let scratch = unsafe { &mut *scratch };
        scratch.window = *window;
        match parse_header(available) {
            MESSAGE => Header::Message {
                msg_type: MsgType(scratch.msg_type),
                length: scratch.length,
                body_offset: scratch.body_offset,
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
        // SAFETY: a number that user space sets once.
        unsafe { COMP_IDS.get(value) }.map_or(identity::UNKNOWN, |number| *number)
    }
}

/// Offset in the packet of the first `8=FIX` in `from..to`; `to` where there is none. A global function.
#[inline(always)]
pub fn find(context: impl Context, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut chunk = 0;
    while chunk < MAX_SEARCHES && at < to {
        let next = context.find_in_chunk(at, to);
        if next & FOUND != 0 {
            return next & !FOUND;
        }
        at = next;
        chunk += 1;
    }
    to
}

/// What [`find_in_chunk`] adds to an offset at which a message may begin.
const FOUND: u32 = 1 << 31;

/// [`find`] in the first chunk: where to go on, or with [`FOUND`] where it is. A global function.
#[inline(always)]
pub fn find_in_chunk(context: impl Context, from: u32, to: u32) -> u32 {
    let Some(words) = CHUNKS.get_ptr_mut(0) else { return to };
    let left = to.wrapping_sub(from);
    let length = if left < SEARCH_BYTES { left } else { SEARCH_BYTES };
    // The verifier must see 1 to SEARCH_BYTES here; what the compiler knows of `length` it would leave out.
    let length = (black_box(length).wrapping_sub(1) & (SEARCH_BYTES - 1)) + 1;
    // SAFETY: this CPU's own value, of SEARCH_BYTES.
    if !unsafe { context.load(from, words.cast(), length) } {
        return to;
    }
    let mut i = 0;
    while i < SEARCH_WORDS - 1 {
        // SAFETY: inside the value.
        let (word, next) = unsafe { ((*words)[i], (*words)[i + 1]) };
        let found = first_signature(word, next);
        if found != 8 {
            let at = from + i as u32 * 8 + found;
            // Behind the segment's bytes are those of an earlier chunk.
            return if at + SIGNATURE.len() as u32 <= to { at | FOUND } else { to };
        }
        i += 1;
    }
    from + STRIDE
}

/// How far a packet's payload begins like a FIX message.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Beginning {
    /// Not at all.
    Other = 0,
    /// It does.
    Fix = 1,
    /// It is shorter than [`SIGNATURE`], and so far the same.
    Short = 2,
}

/// See [`Beginning`].
#[inline(always)]
pub fn beginning(context: impl Context, packet: &Packet) -> Beginning {
    const BYTES: u32 = SIGNATURE.len() as u32;
    const WORD: u64 = 0x58_49_46_3d_38;
    // More than it takes: what lies on the stack must be aligned.
    let mut word = 0u64;
    let to = (&raw mut word).cast();
    let length = packet.segment.length;
    if length >= BYTES {
        // SAFETY: the buffer is longer than that.
        let read = unsafe { context.load(packet.payload, to, BYTES) };
        return if read && word == WORD { Beginning::Fix } else { Beginning::Other };
    }
    if length == 0 {
        return Beginning::Other;
    }
    let length = (black_box(length).wrapping_sub(1) & 3) + 1;
    // SAFETY: as above.
    let read = unsafe { context.load(packet.payload, to, length) };
    if read && word == WORD & ((1u64 << (8 * length)) - 1) { Beginning::Short } else { Beginning::Other }
}
