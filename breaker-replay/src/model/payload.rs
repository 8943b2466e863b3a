//! Payload in memory.

use breaker_common::abi::identity;
use breaker_common::fix::{CHUNK, Chunk, SIGNATURE, SOH};
use breaker_common::payload::Payload;

use super::chunk::chunk;

/// The payload of a segment, and the declared CompIDs. Their numbers start at [`identity::FIRST`].
///
/// A short snaplen may have cut the payload. A chunk behind the cut is unreadable.
pub struct Bytes<'a>(pub &'a [u8], pub &'a [Chunk]);

/// Fields of the shortest header, each with a SOH at its end: BeginString, BodyLength, MsgType.
const HEADER_FIELDS: usize = 3;

impl Payload for Bytes<'_> {
    #[inline(always)]
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk> {
        let (offset, length) = (offset as usize, length as usize);
        debug_assert!((1..=CHUNK).contains(&length), "a read of {length} bytes");
        match self.0.get(offset..offset + length) {
            Some(bytes) => Some(chunk(bytes)),
            None => self.cut_header(offset),
        }
    }

    fn find(&mut self, from: u32, to: u32) -> u32 {
        let end = (to as usize).min(self.0.len());
        let bytes = self.0.get(from as usize..end).unwrap_or_default();
        let found = bytes.windows(SIGNATURE.len()).position(|window| window == SIGNATURE);
        found.map_or(to, |at| from + at as u32)
    }

    fn comp_id(&mut self, value: &Chunk) -> u32 {
        self.1
            .iter()
            .position(|declared| declared == value)
            .map_or(identity::UNKNOWN, |at| identity::FIRST + at as u32)
    }
}

impl Bytes<'_> {
    /// Returns a chunk that the snaplen has cut behind a complete header.
    #[cold]
    fn cut_header(&self, offset: usize) -> Option<Chunk> {
        let bytes = self.0.get(offset..)?;
        let fields = bytes.iter().filter(|byte| **byte == SOH).count();
        (bytes.starts_with(&SIGNATURE) && fields >= HEADER_FIELDS && bytes.len() < CHUNK)
            .then(|| chunk(bytes))
    }
}
