//! FIX framing over arbitrary bytes: nothing panics, every step makes progress; of a stream that can be read the same messages are counted
//! however it is cut; of any stream no more orders cross a limit than it allows.
//!
//! An input is a stream, then the way to cut it (see [`cut`]), and in its last byte how many bytes that takes, up to 15.
#![no_main]

#[path = "../../breaker-common/tests/feed/mod.rs"]
mod feed;
#[path = "../../breaker-common/tests/venues/mod.rs"]
mod venues;

use breaker_common::class;
use breaker_common::message::{want};
use breaker_common::fix::MsgType;
use breaker_common::abi::Stream;
use breaker_common::class::{outbound_kind};
use breaker_common::message::{MessageKind};
use libfuzzer_sys::fuzz_target;

use feed::{Feed, ordinary};
use venues::{HIDDEN, by_length, by_search, by_trailer, crossed, nests};

/// Sequence number of the first byte: most streams pass the wrap-around.
const FIRST: u32 = u32::MAX - 40;

fuzz_target!(|data: &[u8]| {
    let Some((count, data)) = data.split_last() else { return };
    let (stream, cuts) = data.split_at(data.len().saturating_sub(*count as usize % 16));
    let segments = cut(stream.len(), cuts);
    for (kind_of, hops) in
        [(ordinary as Way, true), (ordinary, false), (looking, false), (class::inbound_kind, false)]
    {
        counts_do_not_depend_on_the_cutting(stream, &segments, (kind_of, hops));
    }
    late_segments_and_a_late_start_are_survived(stream, &segments);
    no_venue_takes_more_orders_than_the_limit(stream, &segments);
});

/// What becomes of a message.
type Way = fn(MsgType) -> MessageKind;

/// What goes out, looked into for the CompIDs of the first message and for replays in all orders.
fn looking(msg_type: MsgType) -> MessageKind {
    outbound_kind(msg_type, (class::default_class(msg_type), false), want::IDENTITY | want::OWNER, want::POSSDUP)
}

/// Where segments begin and end. A byte each, used in turn: its lower six bits are the size, in units of 32 bytes where bit 6 is set;
/// with bit 7 the segment also repeats up to 24 bytes before it.
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
    (kind_of, hops): (Way, bool),
) {
    let feed = || Feed { kind_of, hops, ..Feed::of(Stream::at(FIRST)) };
    let mut whole = feed();
    if !stream.is_empty() {
        whole.segment(FIRST, stream);
    }
    let mut pieces = feed();
    segments.iter().for_each(|(from, to)| send(&mut pieces, stream, *from, *to));
    // Once lost, a stream is found again inside a segment, and that is a matter of the cutting. So is a message in the body of another,
    // which is believed where a segment begins with it.
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

/// Every second segment overtakes the one before it, which follows, in a stream that is joined at its second.
fn late_segments_and_a_late_start_are_survived(stream: &[u8], segments: &[(usize, usize)]) {
    let Some((_, first)) = segments.first() else { return };
    for start in [Stream::at(FIRST), Stream::joined(FIRST.wrapping_add(*first as u32))] {
        let mut feed = Feed { kind_of: looking, hops: false, ..Feed::of(start) };
        for pair in segments.chunks(2) {
            pair.iter().rev().for_each(|(from, to)| send(&mut feed, stream, *from, *to));
        }
    }
}

fn send(feed: &mut Feed, stream: &[u8], from: usize, to: usize) {
    feed.segment(FIRST.wrapping_add(from as u32), &stream[from..to]);
}

/// Nor more than that by what a wrong length hides before it has turned out to be wrong.
fn no_venue_takes_more_orders_than_the_limit(stream: &[u8], segments: &[(usize, usize)]) {
    if nests(stream) {
        return;
    }
    let sizes: Vec<usize> = segments.iter().map(|(from, to)| to - from).collect();
    for most in [1, 4] {
        let through = if sizes.is_empty() { stream } else { &stream[..crossed(stream, &sizes, most)] };
        for (venue, taken) in
            [("length", by_length(through)), ("search", by_search(through)), ("trailer", by_trailer(through))]
        {
            assert!(taken <= most as usize + HIDDEN, "by {venue}: {taken} of {most}");
        }
    }
}
