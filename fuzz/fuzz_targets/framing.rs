//! FIX framing over arbitrary bytes.
//!
//! Nothing panics, and every step makes progress. A readable stream has the same counts for every
//! segmentation. No stream gets more orders through a limit than the limit allows.
//!
//! An input is a stream, then up to 15 bytes for its segmentation (see [`cut`]), then one byte with the
//! number of these bytes.
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

use feed::{Feed, ordinary};
use venues::{HIDDEN, by_length, by_search, by_trailer, crossed, nests};

/// The sequence number of the first byte. Most streams cross the wrap-around.
const FIRST: u32 = u32::MAX - 40;

fuzz_target!(|data: &[u8]| {
    let Some((count, data)) = data.split_last() else { return };
    let (stream, cuts) = data.split_at(data.len().saturating_sub(*count as usize % 16));
    let segments = cut(stream.len(), cuts);
    for (kind_of, hops) in
        [(ordinary as KindOf, true), (ordinary, false), (with_fields, false), (class::inbound_kind, false)]
    {
        counts_do_not_depend_on_the_cutting(stream, &segments, (kind_of, hops));
    }
    late_segments_and_a_late_start_do_not_panic(stream, &segments);
    no_venue_takes_more_orders_than_the_limit(stream, &segments);
});

/// Returns the kind of a message.
type KindOf = fn(MsgType) -> MessageKind;

/// Returns the kind of an outbound message, with the CompIDs of the first message and PossDupFlag of all
/// orders.
fn with_fields(msg_type: MsgType) -> MessageKind {
    outbound_kind(
        msg_type,
        (class::default_class(msg_type), false),
        want::IDENTITY | want::OWNER,
        want::POSSDUP,
    )
}

/// Returns the start and end of each segment.
///
/// The bytes are used in turn, one for each segment. The lower six bits are the size, in units of 32 bytes if
/// bit 6 is set. With bit 7 the segment also repeats up to 24 bytes before it.
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

fn counts_do_not_depend_on_the_cutting(
    stream: &[u8],
    segments: &[(usize, usize)],
    (kind_of, hops): (KindOf, bool),
) {
    let feed = || Feed { kind_of, hops, ..Feed::of(Stream::at(FIRST)) };
    let mut whole = feed();
    if !stream.is_empty() {
        whole.segment(FIRST, stream);
    }
    let mut pieces = feed();
    segments.iter().for_each(|(from, to)| send(&mut pieces, stream, *from, *to));
    // The counts depend on the segmentation in two cases. A lost stream is found again inside a segment. A
    // message in the body of another message counts if a segment begins with it.
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

/// Sends each pair of segments in reverse order, in a stream from its SYN and in one joined at its second
/// segment.
fn late_segments_and_a_late_start_do_not_panic(stream: &[u8], segments: &[(usize, usize)]) {
    let Some((_, first)) = segments.first() else { return };
    for start in [Stream::at(FIRST), Stream::joined(FIRST.wrapping_add(*first as u32))] {
        let mut feed = Feed { kind_of: with_fields, hops: false, ..Feed::of(start) };
        for pair in segments.chunks(2) {
            pair.iter().rev().for_each(|(from, to)| send(&mut feed, stream, *from, *to));
        }
    }
}

fn send(feed: &mut Feed, stream: &[u8], from: usize, to: usize) {
    feed.segment(FIRST.wrapping_add(from as u32), &stream[from..to]);
}

/// A message with a wrong length can hide up to [`HIDDEN`] more orders before the wrong length is detected.
fn no_venue_takes_more_orders_than_the_limit(stream: &[u8], segments: &[(usize, usize)]) {
    if nests(stream) {
        return;
    }
    let sizes: Vec<usize> = segments.iter().map(|(from, to)| to - from).collect();
    for max in [1, 4] {
        let through = if sizes.is_empty() { stream } else { &stream[..crossed(stream, &sizes, max)] };
        for (venue, taken) in
            [("length", by_length(through)), ("search", by_search(through)), ("trailer", by_trailer(through))]
        {
            assert!(taken <= max as usize + HIDDEN, "by {venue}: {taken} of {max}");
        }
    }
}
