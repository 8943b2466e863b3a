//! FIX over a stream that comes in pieces, in user space: what a proxy needs to count rightly.

use breaker_common::class::{self};
use breaker_common::fix::{CHUNK, Chunk, Header, header};
use breaker_common::message::Class;

/// Where in a stream one stands.
#[derive(Default)]
pub struct Framing {
    /// Bytes of a message whose header has been read that are still to come.
    skip: usize,
    /// The beginning of a message whose header is not whole.
    head: Vec<u8>,
}

impl Framing {
    /// Follows the stream over the next bytes and shows the class of each message that begins. Returns how many bytes may go on: all,
    /// or those before the first message that is refused, or before what is no FIX.
    pub fn follow(&mut self, bytes: &[u8], mut allow: impl FnMut(Class) -> bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let skipped = self.skip.min(bytes.len() - at);
            (self.skip, at) = (self.skip - skipped, at + skipped);
            if at == bytes.len() {
                break;
            }
            let rest = &bytes[at..];
            let (window, available) = window(&self.head, rest);
            match header(&window, available as u32) {
                Header::Message { msg_type, .. } if !allow(class::default_class(msg_type)) => return at,
                Header::Message { length, .. } => {
                    self.skip = length as usize - self.head.len();
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

/// The first bytes of what was kept and what came, and how many they are.
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
                let allowed = framing.follow(piece, |class| {
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
