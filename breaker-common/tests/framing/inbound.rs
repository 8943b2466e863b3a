//! The inbound direction: gaps and late segments.

use breaker_common::abi::{Inbound, sync};
use breaker_common::counts::SegmentCounts;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::feed::uninspected_kind;
use super::messages::build;
use super::streams::{counts, first_seq, has_signature, message, reference};
use breaker_replay::model::payload::Bytes;
use breaker_replay::model::walk::Walk;

/// Returns the ranges of segments that contain whole messages. `together` are numbers of messages, used in
/// turn.
fn cut_at_messages(messages: &[Vec<u8>], together: &[usize]) -> Vec<(usize, usize)> {
    let mut rest = messages;
    let mut at = 0;
    let mut segments = Vec::new();
    for take in together.iter().cycle() {
        let (here, behind) = rest.split_at((*take).min(rest.len()));
        let end = at + here.iter().map(Vec::len).sum::<usize>();
        segments.push((at, end));
        (at, rest) = (end, behind);
        if rest.is_empty() {
            break;
        }
    }
    segments
}

/// The inbound direction of a stream.
struct Receiver<'a> {
    bytes: &'a [u8],
    first: u32,
    inbound: Inbound,
    counts: SegmentCounts,
}

impl<'a> Receiver<'a> {
    fn new(bytes: &'a [u8], first: u32) -> Self {
        Self { bytes, first, inbound: Inbound::at(first), counts: SegmentCounts::default() }
    }

    fn take(&mut self, from: usize, to: usize) {
        let (seq, payload) = (self.first.wrapping_add(from as u32), &self.bytes[from..to]);
        self.counts.false_headers = 0;
        let Some(new) = self.inbound.advance(seq, payload.len() as u32, &mut self.counts) else { return };
        let framing = if new.late { &mut self.inbound.gap.framing } else { &mut self.inbound.framing };
        let walk = Walk { longest: u32::MAX, kind_of: uninspected_kind, skips_common: true };
        walk.segment(framing, Bytes(payload, &[]), (new.from, new.to), &mut self.counts);
    }

    fn counts(&self) -> ([u32; 5], u32) {
        counts(&self.counts)
    }
}

proptest! {
    #[test]
    fn whole_messages_that_come_in_another_order_count_once_the_gap_is_filled(
        messages in vec(message(), 2..16), together in vec(1..4usize, 1..6), early in vec(0..4usize, 1..6),
        first in first_seq(), at_once in any::<bool>(),
    ) {
        let stream = messages.concat();
        let mut receiver = Receiver::new(&stream, first);
        let mut segments = &cut_at_messages(&messages, &together)[..];
        let mut gaps = 0;
        for late in early.iter().cycle() {
            // The last segment of a block arrives first. The others follow one by one or as one segment, and
            // twice.
            let (block, behind) = segments.split_at((late + 1).min(segments.len()));
            let Some(((from, to), others)) = block.split_last() else { break };
            gaps += !others.is_empty() as u32;
            receiver.take(*from, *to);
            let whole = [(block[0].0, *to)];
            let others = if at_once { &whole[..] } else { others };
            others.iter().chain(others).for_each(|(from, to)| receiver.take(*from, *to));
            segments = behind;
        }
        prop_assert_eq!(receiver.counts(), (reference(&stream), gaps));
    }

    #[test]
    fn a_gap_inside_a_body_that_comes_in_keeps_sync(
        before in vec(message(), 0..3), text in "[ -~]{60,200}", after in vec(message(), 1..4),
        first in first_seq(), gap in (0..60usize, 1..60usize), late in any::<bool>(),
    ) {
        let cut_message = build("FIX.4.4", 1, "D", format!("58={text}\x01").as_bytes());
        let start = before.concat().len() + 32 + gap.0;
        let stream = [before.concat(), cut_message.clone(), after.concat()].concat();
        // At most up to the last byte of the trailer.
        let end = (start + gap.1).min(before.concat().len() + cut_message.len());
        let mut receiver = Receiver::new(&stream, first);
        receiver.take(0, start);
        receiver.take(end, stream.len());
        if late {
            receiver.take(start, end);
        }
        prop_assert_eq!(receiver.counts(), (reference(&stream), 0));
    }

    #[test]
    fn bytes_too_late_to_be_read_cause_a_desync(
        messages in vec(message(), 4..5),
        order in select(&[[2, 1, 0, 3], [1, 3, 0, 2], [2, 0, 3, 1], [3, 2, 1, 0]][..]),
        first in first_seq(), at_once in any::<bool>(),
    ) {
        let stream = messages.concat();
        let segments = cut_at_messages(&messages, &[1]);
        let mut receiver = Receiver::new(&stream, first);
        for place in order {
            receiver.take(segments[place].0, segments[place].1);
        }
        if at_once {
            receiver.take(0, stream.len());
        }
        let (counts, desyncs) = receiver.counts();
        prop_assert!(counts == reference(&stream) || desyncs > 1, "{counts:?}, {desyncs} desyncs");
    }

    #[test]
    fn a_gap_is_forgotten_before_its_sequence_numbers_repeat(first in first_seq()) {
        let mut stream = Inbound::at(first);
        let mut counts = SegmentCounts::default();
        let _ = stream.advance(first.wrapping_add(100), 50, &mut counts);
        let before = counts.desyncs;
        let mut seq = stream.next_seq;
        for _ in 0..1_200 {
            let _ = stream.advance(seq, 1 << 22, &mut counts);
            seq = stream.next_seq;
            let _ = stream.advance(seq.wrapping_sub(1000), 500, &mut counts);
        }
        prop_assert_eq!(counts.desyncs, before);
    }

    #[test]
    fn a_gap_elsewhere_is_one_desync_and_ends_at_the_next_message(
        kept in vec(message(), 0..3), lost in message(), straddled in message(),
        after in vec(message(), 1..4), cut in any::<Index>(), first in first_seq(),
    ) {
        let start = kept.concat().len();
        let stream = [kept.concat(), lost.clone(), straddled.clone(), after.concat()].concat();
        // The gap contains `lost` and the start of `straddled`.
        let end = start + lost.len() + 1 + cut.index(straddled.len() - 1);
        let aligned = start + lost.len() + straddled.len();
        let mut receiver = Receiver::new(&stream, first);
        // A data field that resembles a message may be read as a message.
        prop_assume!(!has_signature(&stream[end..aligned]));
        receiver.take(0, start);
        receiver.take(end, aligned);
        prop_assert_eq!(receiver.counts(), (reference(&kept.concat()), 1));
        prop_assert_eq!(receiver.inbound.framing.sync, sync::BLIND);
        receiver.take(aligned, stream.len());
        let counted = [kept.concat(), after.concat()].concat();
        prop_assert_eq!(receiver.counts(), (reference(&counted), 1));
        prop_assert_eq!(receiver.inbound.framing.sync, sync::IN_SYNC);
    }
}
