//! Three kinds of venues that read a stream, and the part of a stream that passes a limit.
//!
//! The venues share no code with the walk:
//! - One trusts BodyLength(9) and continues behind the next trailer, like QuickFIX.
//! - One searches for the next `8=FIX` after a wrong length, like QuickFIX/J.
//! - One ignores lengths and takes all bytes up to a trailer as a message.
//!
//! If a wrong length reaches beyond its segment, a venue may take the orders in it before the length proves
//! wrong: at most [`MAX_HIDDEN`] orders.

use breaker_common::abi::Stream;
use breaker_common::counts::BYTES_PER_ORDER;

use crate::feed::Feed;

/// Maximum length of a message in bytes.
pub const LONGEST: u32 = 4096;
/// Maximum number of orders in a message of that length.
pub const MAX_HIDDEN: usize = (LONGEST / BYTES_PER_ORDER) as usize;

/// Returns the range of the first trailer from `from` on, with the SOH before it.
fn trailer(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let is_trailer = |at: &usize| {
        bytes[*at..].starts_with(b"\x0110=") && bytes[*at + 4..].iter().position(|byte| *byte == 1) == Some(3)
    };
    let at = (from..bytes.len().saturating_sub(7)).find(is_trailer)?;
    Some((at, at + 8))
}

/// Returns the first offset of a pattern from `from` on.
pub fn find(bytes: &[u8], from: usize, pattern: &[u8]) -> Option<usize> {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(pattern))
}

/// Returns the BodyLength(9) of the message at `at`, and the offset of its body.
///
/// Returns `None` if more bytes are needed, and `Some(None)` if the message has no BodyLength(9).
fn body(bytes: &[u8], at: usize) -> Option<Option<(usize, usize)>> {
    let soh = find(bytes, at, b"\x01")?;
    if !bytes[soh..].starts_with(b"\x019=") {
        return if bytes.len() - soh < 3 { None } else { Some(None) };
    }
    let end = find(bytes, soh + 1, b"\x01")?;
    let length = std::str::from_utf8(&bytes[soh + 3..end]).ok().and_then(|text| text.parse().ok());
    Some(length.map(|length: usize| (length, end + 1)))
}

/// Returns true if a message is an order of at least [`BYTES_PER_ORDER`] bytes.
fn is_order(message: &[u8]) -> bool {
    message.len() >= BYTES_PER_ORDER as usize
        && find(message, 0, b"\x0135=").is_some_and(|at| message[at..].starts_with(b"\x0135=D\x01"))
}

/// Returns the orders that a venue takes that trusts lengths. It searches for a trailer from the end of the
/// body on.
pub fn taken_by_length(bytes: &[u8]) -> usize {
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

/// Returns the orders that a venue takes that searches for the next message if a length leads to no trailer.
pub fn taken_by_search(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        at = start + 1;
        let Some(found) = body(bytes, start) else { break };
        let Some((length, from)) = found else { continue };
        let Some(end) = from.checked_add(length) else { continue };
        // It waits for the rest of a message with a plausible length.
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

/// Returns the orders that a venue takes that ignores lengths.
pub fn taken_by_trailer(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        let Some((_, end)) = trailer(bytes, start) else { break };
        orders += usize::from(is_order(&bytes[start..end]));
        at = end;
    }
    orders
}

/// Returns the number of bytes of a stream that pass a limit of `max` orders, in segments of these sizes.
pub fn passed_bytes(stream: &[u8], sizes: &[usize], max: u32) -> usize {
    let mut feed = Feed { longest: LONGEST, ..Feed::new(Stream::at(1)) };
    let (mut at, mut used) = (0, 0);
    for size in sizes.iter().cycle() {
        if at == stream.len() {
            break;
        }
        let end = stream.len().min(at + size);
        feed.counts = Default::default();
        feed.segment(1 + at as u32, &stream[at..end]);
        used += feed.orders();
        if used > max {
            break;
        }
        at = end;
    }
    at
}

/// Returns true if a wrong length ends exactly at another message.
///
/// The bytes in between are then part of a message body for every reader.
pub fn nests(stream: &[u8]) -> bool {
    let starts: Vec<usize> = (0..stream.len()).filter(|at| stream[*at..].starts_with(b"8=FIX")).collect();
    starts.iter().any(|start| {
        let Some(Some((length, from))) = body(stream, *start) else { return false };
        let end = from.saturating_add(length).saturating_add(7);
        let inside = starts.iter().any(|other| other > start && *other < end);
        inside && (starts.contains(&end) || end == stream.len())
    })
}
