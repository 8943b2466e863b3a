//! What venues of three kinds take out of a stream, and how much of it crosses a limit. The readers share nothing with the walk: one
//! believes BodyLength and goes on behind the next trailer (as QuickFIX does), one searches for the next `8=FIX` where a length was
//! wrong (as QuickFIX/J does), and one ignores lengths and takes all up to a trailer for a message. Where a wrong length
//! goes on behind its segment each may take what it hides before it has turned out to be wrong: at most [`HIDDEN`] orders.

use breaker_common::abi::Stream;
use breaker_common::counts::BYTES_PER_ORDER;

use crate::feed::Feed;

/// Bytes of the longest message that is believed.
pub const LONGEST: u32 = 4096;
/// Orders that fit into it.
pub const HIDDEN: usize = (LONGEST / BYTES_PER_ORDER) as usize;

/// A trailer that begins at or behind `from`, with the SOH before it: where it begins, and where it ends.
fn trailer(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let is_trailer = |at: &usize| {
        bytes[*at..].starts_with(b"\x0110=") && bytes[*at + 4..].iter().position(|byte| *byte == 1) == Some(3)
    };
    let at = (from..bytes.len().saturating_sub(7)).find(is_trailer)?;
    Some((at, at + 8))
}

/// Where this is found first from there on.
pub fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(what))
}

/// BodyLength of the message that begins at `at`, and where its body begins. `None` where more bytes are to come, `Some(None)` where it
/// has none.
fn body(bytes: &[u8], at: usize) -> Option<Option<(usize, usize)>> {
    let soh = find(bytes, at, b"\x01")?;
    if !bytes[soh..].starts_with(b"\x019=") {
        return if bytes.len() - soh < 3 { None } else { Some(None) };
    }
    let end = find(bytes, soh + 1, b"\x01")?;
    let length = std::str::from_utf8(&bytes[soh + 3..end]).ok().and_then(|text| text.parse().ok());
    Some(length.map(|length: usize| (length, end + 1)))
}

/// No order is shorter than these many bytes.
fn is_order(message: &[u8]) -> bool {
    message.len() >= BYTES_PER_ORDER as usize
        && find(message, 0, b"\x0135=").is_some_and(|at| message[at..].starts_with(b"\x0135=D\x01"))
}

/// Orders that a venue takes which believes lengths: from the end of the body on it looks for a trailer.
pub fn by_length(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        match body(bytes, start) {
            None => break,
            Some(None) => at = start + 1,
            Some(Some((length, from))) => {
                let Some((_, end)) = from.checked_add(length).and_then(|to| trailer(bytes, to - 1)) else {
                    break;
                };
                orders += usize::from(is_order(&bytes[start..end]));
                at = end;
            }
        }
    }
    orders
}

/// Orders that a venue takes which searches on behind the beginning of a message where its length leads to no trailer.
pub fn by_search(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        at = start + 1;
        let Some(found) = body(bytes, start) else { break };
        let Some((length, from)) = found else { continue };
        let Some(end) = from.checked_add(length) else { continue };
        // It waits for a length that it believes.
        if end + 7 > bytes.len() && end < 1 << 20 {
            break;
        }
        if trailer(bytes, end - 1).is_some_and(|(begin, _)| begin == end - 1) {
            orders += usize::from(is_order(&bytes[start..end + 7]));
            at = end + 7;
        }
    }
    orders
}

/// Orders that a venue takes which ignores lengths.
pub fn by_trailer(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        let Some((_, end)) = trailer(bytes, start) else { break };
        orders += usize::from(is_order(&bytes[start..end]));
        at = end;
    }
    orders
}

/// The bytes of a stream that cross a limit of so many orders, sent in segments of these sizes.
pub fn crossed(stream: &[u8], sizes: &[usize], most: u32) -> usize {
    let mut feed = Feed { longest: LONGEST, ..Feed::of(Stream::at(1)) };
    let (mut at, mut used) = (0, 0);
    for size in sizes.iter().cycle() {
        if at == stream.len() {
            break;
        }
        let end = stream.len().min(at + size);
        feed.counts = Default::default();
        feed.segment(1 + at as u32, &stream[at..end]);
        used += feed.orders();
        if used > most {
            break;
        }
        at = end;
    }
    at
}

/// Whether a wrong length ends exactly where another message begins: then what lies between is a message's body to everyone.
pub fn nests(stream: &[u8]) -> bool {
    let starts: Vec<usize> = (0..stream.len()).filter(|at| stream[*at..].starts_with(b"8=FIX")).collect();
    starts.iter().any(|start| {
        let Some(Some((length, from))) = body(stream, *start) else { return false };
        let end = from.saturating_add(length).saturating_add(7);
        let inside = starts.iter().any(|other| other > start && *other < end);
        inside && (starts.contains(&end) || end == stream.len())
    })
}
