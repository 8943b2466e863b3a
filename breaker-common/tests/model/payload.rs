//! Payload in memory.

#[path = "chunk.rs"]
mod packing;

use breaker_common::abi::identity;
use breaker_common::fix::{CHUNK, Chunk};
use breaker_common::payload::Payload;

pub use packing::chunk;

/// The payload of a segment, and the declared CompIDs. Their numbers start at [`identity::FIRST`].
pub struct Bytes<'a>(pub &'a [u8], pub &'a [Chunk]);

impl Payload for Bytes<'_> {
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk> {
        let length = length as usize;
        assert!((1..=CHUNK).contains(&length), "a read of {length} bytes");
        Some(chunk(&self.0[offset as usize..][..length]))
    }

    fn find(&mut self, from: u32, to: u32) -> u32 {
        let bytes = &self.0[from as usize..to as usize];
        bytes.windows(5).position(|window| window == b"8=FIX").map_or(to, |at| from + at as u32)
    }

    fn comp_id(&mut self, value: &Chunk) -> u32 {
        self.1
            .iter()
            .position(|declared| declared == value)
            .map_or(identity::UNKNOWN, |at| identity::FIRST + at as u32)
    }
}
