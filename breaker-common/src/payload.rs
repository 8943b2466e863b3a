//! Read access to the payload of a segment.

use crate::fix::{self, Chunk, Header};

/// Payload of a segment, readable at any offset. Each implementation decides where the bytes are stored.
pub trait Payload {
    /// Reads `length` (1 to [`fix::CHUNK`]) bytes from `offset` into the front of a zeroed chunk.
    ///
    /// Returns `None` if the bytes cannot be read.
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk>;
    /// Parses the header at the start of a chunk: [`fix::header`].
    ///
    /// The kernel makes this method a function that the verifier checks once, instead of once for each
    /// caller.
    fn header(&mut self, chunk: &Chunk, available: u32) -> Header {
        fix::header(chunk, available)
    }
    /// Returns the offset of the first `8=FIX` in `from..to`, or `to` if there is none.
    fn find(&mut self, from: u32, to: u32) -> u32;
    /// Returns the number of a zero-padded CompID or SubID.
    ///
    /// The number of an undeclared value is [`crate::abi::identity::UNKNOWN`].
    fn comp_id(&mut self, value: &Chunk) -> u32;
}

/// Appends the bytes of `next` to the first `head_bytes` bytes of `head`. Bytes behind the end of the chunk
/// are lost.
///
/// The shift goes over all words in steps that need no index.
#[inline(always)]
pub(crate) fn concat(head: &Chunk, next: &Chunk, head_bytes: u32) -> Chunk {
    let [mut a, mut b, mut c, mut d] = *next;
    if head_bytes & 16 != 0 {
        (a, b, c, d) = (0, 0, a, b);
    }
    if head_bytes & 8 != 0 {
        (a, b, c, d) = (0, a, b, c);
    }
    let shift = 8 * (head_bytes & 7);
    let carry = |low: u64| (low >> 1) >> (63 - shift);
    let [e, f, g, h] = *head;
    [e | a << shift, f | b << shift | carry(a), g | c << shift | carry(b), h | d << shift | carry(c)]
}
