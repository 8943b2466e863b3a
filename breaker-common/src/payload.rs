//! Read access to the payload of a segment.

use crate::fix::{self, Chunk, Header};

/// Payload that can be read at any offset; where it lies is its owner's business.
pub trait Payload {
    /// Reads `length` (1 to [`fix::CHUNK`]) bytes from `offset` into the front of a zeroed window; `None` where they cannot be had.
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk>;
    /// [`fix::header`] of a window. The kernel's verifier is to follow it once, and not once a place that asks.
    fn header(&mut self, window: &Chunk, available: u32) -> Header {
        fix::header(window, available)
    }
    /// Offset of the first `8=FIX` that lies in `from..to`; `to` where there is none.
    fn find(&mut self, from: u32, to: u32) -> u32;
    /// The number of a CompID or SubID, zero-padded; [`crate::abi::identity::UNKNOWN`] where no session declares it.
    fn comp_id(&mut self, value: &Chunk) -> u32;
}

/// The first `held` bytes of `head`, then those of `next`: a shift over all words, in steps that need no index.
#[inline(always)]
pub(crate) fn concat(head: &Chunk, next: &Chunk, held: u32) -> Chunk {
    let [mut a, mut b, mut c, mut d] = *next;
    if held & 16 != 0 {
        (a, b, c, d) = (0, 0, a, b);
    }
    if held & 8 != 0 {
        (a, b, c, d) = (0, a, b, c);
    }
    let shift = 8 * (held & 7);
    let carry = |low: u64| (low >> 1) >> (63 - shift);
    let [e, f, g, h] = *head;
    [e | a << shift, f | b << shift | carry(a), g | c << shift | carry(b), h | d << shift | carry(c)]
}
