//! Any segmentation of an outbound stream gives the same counts.

use breaker_common::abi::{Framing, Stream};
use breaker_common::class::TABLE;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::feed::Feed;
use super::messages::build;
use super::streams::{FAKES, Sender, UNKNOWN, cut, first_seq, message, reference, sizes};
use super::versions::VERSIONS;

proptest! {
    #[test]
    fn any_cutting_gives_the_counts_of_the_reference(
        messages in vec(message(), 1..12), sizes in sizes(), first in first_seq(),
    ) {
        let stream = messages.concat();
        let mut sender = Sender::new(&stream, first);
        for (from, to) in cut(stream.len(), &sizes) {
            sender.send(from, to);
        }
        prop_assert_eq!(sender.counts(), (reference(&stream), 0));
        prop_assert_eq!(sender.feed.counts.repeated, 0);
        let Framing { partial, message_bytes, message_class, .. } = sender.feed.stream.framing;
        let finished = Framing { partial, message_bytes, message_class, ..Framing::default() };
        prop_assert_eq!(sender.feed.stream.framing, finished);
    }

    #[test]
    fn what_was_sent_before_counts_nothing(
        messages in vec(message(), 1..8), sizes in sizes(), first in first_seq(),
        repeats in vec((any::<u16>(), any::<u16>(), 0..90usize), 1..12),
    ) {
        let stream = messages.concat();
        let mut sender = Sender::new(&stream, first);
        let segments = cut(stream.len(), &sizes);
        for ((from, to), (start, length, overlap)) in segments.into_iter().zip(repeats.iter().cycle()) {
            // The new segment overlaps the previous one. Then a random sent range is sent again.
            sender.send(from.saturating_sub(*overlap), to);
            let start = *start as usize % to;
            sender.send(start, to.min(start + 1 + *length as usize % 300));
        }
        prop_assert_eq!(sender.counts(), (reference(&stream), 0));
        prop_assert_eq!(sender.feed.counts.repeated, 1);
    }

    #[test]
    fn garbage_neither_panics_nor_stands_still(
        start in any::<u32>(),
        segments in vec((0..3000u32, prop_oneof![
            vec(any::<u8>(), 1..200),
            vec(select(&FAKES[..]), 1..6).prop_map(|fakes| fakes.concat().into()),
            (message(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut message, at, byte)| {
                let at = at.index(message.len());
                message[at] = byte;
                message
            }),
        ]), 1..40),
        wild in vec(any::<u32>(), 0..4),
    ) {
        let mut feed = Feed::new(Stream::at(start));
        for (offset, payload) in &segments {
            feed.segment(start.wrapping_add(*offset), payload);
        }
        // Then segments with random sequence numbers.
        for (seq, (_, payload)) in wild.iter().zip(&segments) {
            feed.segment(*seq, payload);
        }
    }
}

#[test]
fn every_type_counts_in_its_class_however_it_is_cut() {
    for msg_type in TABLE.iter().map(|(name, _)| *name).chain(UNKNOWN) {
        for version in VERSIONS {
            let stream = [build(version, 1, msg_type, b"58=x\x01"), build(version, 7, "0", b"")].concat();
            for size in [1, 2, 3, 5, 8, 13, 16, 21, 31, 32, 33, 1 << 16] {
                let mut sender = Sender::new(&stream, 0u32.wrapping_sub(20));
                cut(stream.len(), &[size]).into_iter().for_each(|(from, to)| assert!(sender.send(from, to)));
                assert_eq!(sender.counts(), (reference(&stream), 0), "{version} {msg_type} by {size}");
            }
        }
    }
}

#[test]
fn data_fields_do_not_mislead() {
    let fake = build("FIX.4.4", 1, "D", b"58=x\x01");
    let data = [format!("95={}\x0196=", fake.len()).as_bytes(), &fake, b"\x01"].concat();
    let stream = [build("FIX.4.2", 1, "B", &data), build("FIX.4.2", 1, "F", &data)].concat();
    for start in 1..stream.len() {
        let mut sender = Sender::new(&stream, 7);
        sender.send(0, start);
        sender.send(start, stream.len());
        assert_eq!(sender.counts(), ([0, 1, 0, 1, 0], 0), "cut at {start}");
    }
}

#[test]
fn a_segment_holds_as_many_messages_as_fit() {
    let stream = build("FIX.4.4", 1, "0", b"").repeat(65_535 / 26);
    let mut sender = Sender::new(&stream, 0);
    sender.send(0, stream.len());
    assert_eq!(sender.counts(), ([0, 0, 0, 0, 65_535 / 26], 0));
}
