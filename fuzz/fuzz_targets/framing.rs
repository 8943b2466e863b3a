//! Fuzzes FIX framing with arbitrary bytes.
//!
//! Nothing panics and every step makes progress. A readable stream gives the same counts for any
//! segmentation. No more orders of any stream pass a limit than it allows.
//!
//! An input is a stream, then the segmentation (see [`cut`]). The last byte is the number of segmentation
//! bytes, up to 15.
#![no_main]

#[path = "../../breaker-common/tests/feed/mod.rs"]
mod feed;
#[path = "../../breaker-common/tests/venues/mod.rs"]
mod venues;

use breaker_common::abi::Stream;
use breaker_common::class::{self, outbound_kind};
use breaker_common::fix::MsgType;
use breaker_common::message::{MessageKind, want};
use libfuzzer_sys::fuzz_target;

use feed::{Feed, uninspected_kind};
use venues::{MAX_HIDDEN, nests, passed_bytes, taken_by_length, taken_by_search, taken_by_trailer};

/// Sequence number of the first byte. Most streams cross the wrap-around.
const FIRST: u32 = u32::MAX - 40;

fuzz_target!(|data: &[u8]| {
    let Some((count, data)) = data.split_last() else { return };
    let (stream, cuts) = data.split_at(data.len().saturating_sub(*count as usize % 16));
    let segments = cut(stream.len(), cuts);
    for (kind_of, skips_common) in [
        (uninspected_kind as KindOf, true),
        (uninspected_kind, false),
        (inspected_kind, false),
        (class::inbound_kind, false),
    ] {
        counts_do_not_depend_on_the_segmentation(stream, &segments, (kind_of, skips_common));
    }
    late_segments_and_a_late_start_are_survived(stream, &segments);
    no_venue_takes_more_orders_than_the_limit(stream, &segments);
});

/// Returns the kind of a message by its MsgType.
type KindOf = fn(MsgType) -> MessageKind;

/// Returns the kind of an outbound message, with the CompIDs of the first message and replays among all
/// orders.
fn inspected_kind(msg_type: MsgType) -> MessageKind {
    let class = (class::default_class(msg_type), false);
    outbound_kind(msg_type, class, want::IDENTITY | want::OWNER, want::POSSDUP)
}

/// Returns the ranges of the segments. Each byte of `cuts` describes one segment; the bytes are used in turn.
///
/// The lower six bits are the size, in units of 32 bytes if bit 6 is set. With bit 7 set, the segment also
/// repeats up to 24 bytes before it.
fn cut(length: usize, cuts: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 0;
    let mut segments = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while at < length {
        let cut = *cuts.next().unwrap_or(&0x7f) as usize;
        let size = if cut & 0x40 != 0 { 32 * (cut & 0x3f) } else { cut & 0x3f };
        let from = if cut & 0x80 != 0 { at.saturating_sub(cut & 0x18) } else { at };
        let to = length.min(at + size.max(1));
        segments.push((from, to));
        at = to;
    }
    segments
}

fn counts_do_not_depend_on_the_segmentation(
    stream: &[u8],
    segments: &[(usize, usize)],
    (kind_of, skips_common): (KindOf, bool),
) {
    let feed = || Feed { kind_of, skips_common, ..Feed::new(Stream::at(FIRST)) };
    let mut whole = feed();
    if !stream.is_empty() {
        whole.segment(FIRST, stream);
    }
    let mut pieces = feed();
    segments.iter().for_each(|(from, to)| send(&mut pieces, stream, *from, *to));
    // A blind stream is in sync again inside a segment, which depends on the segmentation. An embedded
    // message is accepted if a segment starts with it, which depends on the segmentation too.
    let signatures = stream.windows(5).filter(|window| window == b"8=FIX").count();
    if whole.counts.desyncs == 0 && signatures as u32 == whole.counts.messages.iter().sum() {
        assert_eq!(pieces.counts.messages, whole.counts.messages);
        assert_eq!(
            (pieces.counts.replays, pieces.counts.comp_ids),
            (whole.counts.replays, whole.counts.comp_ids)
        );
        assert_eq!(pieces.counts.desyncs, 0);
        assert_eq!(pieces.stream.framing.sync, whole.stream.framing.sync);
        assert_eq!(pieces.stream.framing.body_remaining, whole.stream.framing.body_remaining);
    }
    assert_eq!(pieces.stream.next_seq, whole.stream.next_seq);
}

/// Swaps the segments of each pair, in a stream from its start and in a stream joined at its second segment.
fn late_segments_and_a_late_start_are_survived(stream: &[u8], segments: &[(usize, usize)]) {
    let Some((_, first)) = segments.first() else { return };
    for start in [Stream::at(FIRST), Stream::joined(FIRST.wrapping_add(*first as u32))] {
        let mut feed = Feed { kind_of: inspected_kind, skips_common: false, ..Feed::new(start) };
        for pair in segments.chunks(2) {
            pair.iter().rev().for_each(|(from, to)| send(&mut feed, stream, *from, *to));
        }
    }
}

fn send(feed: &mut Feed, stream: &[u8], from: usize, to: usize) {
    feed.segment(FIRST.wrapping_add(from as u32), &stream[from..to]);
}

/// A venue takes at most `max` orders, and the orders that a wrong length hides before it proves wrong.
fn no_venue_takes_more_orders_than_the_limit(stream: &[u8], segments: &[(usize, usize)]) {
    if nests(stream) {
        return;
    }
    let sizes: Vec<usize> = segments.iter().map(|(from, to)| to - from).collect();
    for max in [1, 4] {
        let passed = if sizes.is_empty() { stream } else { &stream[..passed_bytes(stream, &sizes, max)] };
        for (venue, taken) in [
            ("length", taken_by_length(passed)),
            ("search", taken_by_search(passed)),
            ("trailer", taken_by_trailer(passed)),
        ] {
            assert!(taken <= max as usize + MAX_HIDDEN, "by {venue}: {taken} of {max}");
        }
    }
}
