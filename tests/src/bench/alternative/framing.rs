//! FIX framing in user space over a byte stream: what a proxy needs to count messages correctly.

use breaker_common::class::{self};
use breaker_common::fix::{CHUNK, Chunk, Header, header};
use breaker_common::message::Class;

/// Position in a stream.
#[derive(Default)]
pub struct Framing {
    /// Remaining bytes of a message whose header has been read.
    body_remaining: usize,
    /// First bytes of a message whose header is incomplete.
    head: Vec<u8>,
}

impl Framing {
    /// Parses the next bytes of the stream and calls `allow` with the class of each message that begins.
    /// Returns the number of bytes to forward: all of them, or those before the first refused message or
    /// before bytes that are not FIX.
    pub fn parse(&mut self, bytes: &[u8], mut allow: impl FnMut(Class) -> bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.body_remaining.min(bytes.len() - at);
            (self.body_remaining, at) = (self.body_remaining - skipped, at + skipped);
            if at == bytes.len() {
                break;
            }
            let rest = &bytes[at..];
            let (window, available) = window(&self.head, rest);
            match header(&window, available as u32) {
                Header::Message { msg_type, .. } if !allow(class::default_class(msg_type)) => return at,
                Header::Message { length, .. } => {
                    self.body_remaining = length as usize - self.head.len();
                    self.head.clear();
                }
                Header::Partial => {
                    self.head.extend_from_slice(rest);
                    at = bytes.len();
                }
                Header::Implausible => return at,
            }
        }
        at
    }
}

/// The first bytes of the kept header and the new bytes as words, and their number.
fn window(head: &[u8], rest: &[u8]) -> (Chunk, usize) {
    let mut bytes = [0; CHUNK];
    let from_rest = rest.len().min(CHUNK - head.len());
    bytes[..head.len()].copy_from_slice(head);
    bytes[head.len()..head.len() + from_rest].copy_from_slice(&rest[..from_rest]);
    let mut words = Chunk::default();
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    (words, head.len() + from_rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::order::orders;

    #[test]
    fn any_way_of_cutting_gives_the_same_count_and_what_is_refused_does_not_go_on() {
        let stream = orders(0, 20);
        for size in [1, 7, 31, 199, 200, 201, 5_000] {
            let (mut framing, mut seen, mut passed) = (Framing::default(), 0, 0);
            for piece in stream.chunks(size) {
                let allowed = framing.parse(piece, |class| {
                    seen += usize::from(class == Class::Order);
                    seen <= 10
                });
                passed += allowed;
                if allowed < piece.len() {
                    break;
                }
            }
            assert_eq!(seen, 11, "cut into {size}");
            assert!((2_000..2_000 + CHUNK).contains(&passed), "cut into {size}: {passed} bytes");
        }
    }
}
