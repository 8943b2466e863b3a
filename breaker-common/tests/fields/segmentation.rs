//! Any segmentation of a stream gives what a reader of whole messages finds.

use breaker_common::abi::Inbound;
use breaker_common::counts::SegmentCounts;
use breaker_common::message::want;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::inspect::{Direction, process, walked};
use super::reference::{Found, reference_in, reference_out};
use super::streams::{FAKES, any_wants, cuts, message, sent, sizes};

/// Removes the findings that are not wanted.
fn wanted(any: u32, found: Found) -> Found {
    if any & want::IDENTITY == 0 { Found { comp_ids: [0; 4], ..found } } else { found }
}

proptest! {
    #[test]
    fn any_cutting_of_an_outbound_stream_gives_what_the_reference_finds(
        messages in vec(message(), 1..7), sizes in sizes(), any in any_wants(),
    ) {
        let bytes = sent(&messages);
        let found = walked(Direction::Out(any), &bytes, &cuts(bytes.len(), &sizes));
        prop_assert_eq!(found, (wanted(any, reference_out(&messages)), 0));
    }

    #[test]
    fn any_cutting_of_an_inbound_stream_gives_what_the_reference_finds(
        messages in vec(message(), 1..7), sizes in sizes(),
    ) {
        let bytes = sent(&messages);
        let found = walked(Direction::In, &bytes, &cuts(bytes.len(), &sizes));
        prop_assert_eq!(found, (reference_in(&messages), 0));
    }

    #[test]
    fn a_cut_anywhere_changes_nothing(messages in vec(message(), 1..3), any in any_wants()) {
        let bytes = sent(&messages);
        for cut in 1..bytes.len() {
            let outbound = walked(Direction::Out(any), &bytes, &[cut]);
            prop_assert_eq!(outbound, (wanted(any, reference_out(&messages)), 0));
            prop_assert_eq!(walked(Direction::In, &bytes, &[cut]), (reference_in(&messages), 0));
        }
    }

    #[test]
    fn a_gap_counts_each_message_once_whether_it_is_filled_or_not(
        messages in vec(message(), 1..4), gap in any::<(Index, Index)>(), fill in any::<bool>(),
        any in any_wants(),
    ) {
        let bytes = sent(&messages);
        let (a, b) = (gap.0.index(bytes.len()), gap.1.index(bytes.len()));
        let (from, to) = (a.min(b), a.max(b));
        let starts: Vec<_> = (0..messages.len()).map(|count| sent(&messages[..count]).len()).collect();
        let is_lookalike = |at: usize| bytes[at..].starts_with(b"8=FIX") && !starts.contains(&at);
        let lookalike = (to..bytes.len()).any(is_lookalike);
        prop_assume!(!lookalike, "a data field that resembles a message may be read as one");
        let (mut stream, mut counts) = (Inbound::at(0), SegmentCounts::default());
        let direction = Direction::Out(any);
        process(&mut stream, direction, 0, &bytes[..from], &mut counts);
        process(&mut stream, direction, to as u32, &bytes[to..], &mut counts);
        if fill {
            process(&mut stream, direction, from as u32, &bytes[from..to], &mut counts);
        }
        let total = counts.total() as usize;
        prop_assert!(total <= messages.len(), "{} messages of {}", total, messages.len());
        let complete = total == messages.len();
        prop_assert!(complete || counts.desyncs != 0, "{} messages of {}", total, messages.len());
    }

    #[test]
    fn garbage_neither_panics_nor_stands_still(
        segments in vec((0..600u32, prop_oneof![
            vec(any::<u8>(), 1..200),
            vec(select(&FAKES[..]), 1..6).prop_map(|fakes| fakes.concat().into_bytes()),
            (message(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(message, at, byte)| {
                let mut bytes = sent(&[message]);
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes
            }),
        ]), 1..30),
        any in any_wants(), outward in any::<bool>(),
    ) {
        let direction = if outward { Direction::Out(any) } else { Direction::In };
        let (mut stream, mut counts, mut at) = (Inbound::at(0), SegmentCounts::default(), 0u32);
        for (offset, bytes) in &segments {
            process(&mut stream, direction, at.wrapping_add(*offset).wrapping_sub(100), bytes, &mut counts);
            at = stream.next_seq;
            process(&mut stream, direction, at, bytes, &mut counts);
            at = stream.next_seq;
        }
    }
}
