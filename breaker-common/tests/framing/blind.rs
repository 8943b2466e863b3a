//! Blind streams: bytes that are no message, and lengths that are wrong.

use breaker_common::abi::{Framing, Stream, sync};
use breaker_common::counts::SegmentCounts;
use breaker_common::message::MessageKind;
use breaker_common::payload::Payload;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::feed::Feed;
use super::messages::build;
use super::streams::{Sender, first_seq, has_signature, message, reference};

proptest! {
    #[test]
    fn a_stream_joined_in_the_middle_is_counted_by_bytes_up_to_the_next_message(
        middle in message(), after in vec(message(), 1..4), cut in any::<Index>(), first in first_seq(),
    ) {
        let from = 1 + cut.index(middle.len() - 1);
        let stream = [middle.clone(), after.concat()].concat();
        // A data field that resembles a message may be read as a message.
        prop_assume!(!has_signature(&stream[from..middle.len()]));
        let mut sender = Sender::new(&stream, first);
        sender.feed = Feed { opened: false, ..Feed::new(Stream::joined(first.wrapping_add(from as u32))) };
        sender.send(from, stream.len());
        prop_assert_eq!(sender.counts(), (reference(&after.concat()), 0));
        prop_assert_eq!(sender.feed.counts.blind_orders(), (middle.len() - from).div_ceil(100) as u32);
    }
}

#[test]
fn what_is_no_message_is_counted_by_its_bytes_and_the_next_message_is_found() {
    let good = build("FIX.4.4", 1, "D", b"");
    for bad in [
        "GET / HTTP/1.1\r\n",
        "8=FIX.4.4\x019=\x0135=D\x01",
        "8=FIX.4.4\x019=12345678\x0135=D\x01",
        "8=FIX.6.0\x019=5\x0135=0\x01",
        "8=FIX.4.4\x019=5\x0149=A\x0135=D\x01",
    ] {
        let stream = [&good, bad.as_bytes(), &good].concat();
        let mut sender = Sender::new(&stream, 99);
        sender.send(0, stream.len());
        // The message before `bad` may have a wrong length. Its bytes count as unread, less its order.
        assert_eq!(sender.counts(), ([2, 0, 0, 0, 0], 1), "{bad:?}");
        assert_eq!(sender.feed.counts.blind_bytes as usize, good.len() + bad.len(), "{bad:?}");
        assert_eq!(sender.feed.orders(), 2, "{bad:?}");
        assert_eq!(sender.feed.stream.framing.sync, sync::IN_SYNC);
    }
}

#[test]
fn a_message_longer_than_the_maximum_hides_nothing() {
    let order = build("FIX.4.4", 1, "D", format!("58={:0100}\x01", 0).as_bytes());
    let absurd = b"8=FIX.4.4\x019=9999999\x0135=0\x0149=A\x0110=000\x01";
    let stream = [absurd.to_vec(), order.repeat(20)].concat();
    for longest in [16 * 1024, 400] {
        let mut sender = Sender::new(&stream, 5);
        sender.feed.longest = longest;
        sender.send(0, stream.len());
        assert_eq!((sender.feed.counts.messages[0], sender.feed.orders()), (20, 21));
    }
}

#[test]
fn orders_inside_a_message_that_claims_them_count_where_a_segment_begins_with_one() {
    let order = build("FIX.4.4", 1, "D", format!("58={:0100}\x01", 0).as_bytes());
    let greedy = b"8=FIX.4.4\x019=9000\x0135=0\x0149=A\x0110=000\x01";
    let stream = [greedy.to_vec(), order.repeat(30)].concat();
    // One segment per message, then one segment for all.
    let mut single = Sender::new(&stream, 5);
    single.send(0, greedy.len());
    for i in 0..30 {
        single.send(greedy.len() + i * order.len(), greedy.len() + (i + 1) * order.len());
        assert_eq!(single.feed.orders(), 1 + 1 + i as u32);
    }
    let mut whole = Sender::new(&stream, 5);
    whole.send(0, stream.len());
    assert_eq!(whole.feed.orders(), 31);
}

#[test]
fn payload_that_cannot_be_read_is_a_desync() {
    struct Unreadable;
    impl Payload for Unreadable {
        fn chunk(&mut self, _: u32, _: u32) -> Option<[u64; 4]> {
            None
        }

        fn find(&mut self, from: u32, _: u32) -> u32 {
            from
        }

        fn comp_id(&mut self, _: &[u64; 4]) -> u32 {
            unreachable!("nothing was read")
        }
    }
    let (mut framing, mut counts) = (Framing::default(), SegmentCounts::default());
    let kind_of = |_| MessageKind { class: 0, want: 0 };
    assert_eq!(framing.step(&mut Unreadable, (0, 100), u32::MAX, kind_of, &mut counts), 100);
    assert_eq!((counts.total(), counts.desyncs, counts.blind_bytes, framing.sync), (0, 1, 100, sync::BLIND));
}
