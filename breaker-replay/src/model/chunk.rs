//! Chunks of bytes.

use breaker_common::fix::{CHUNK, Chunk};

/// Packs up to [`CHUNK`] bytes into a zero-padded chunk.
#[inline(always)]
pub fn chunk(bytes: &[u8]) -> Chunk {
    let mut padded = [0; CHUNK];
    match bytes.first_chunk() {
        Some(whole) if bytes.len() == CHUNK => padded = *whole,
        _ => padded[..bytes.len()].copy_from_slice(bytes),
    }
    std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| padded[8 * i + j])))
}
