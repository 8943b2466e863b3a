//! Counting by FIX framing: any way of sending the same stream gives the same counts.

mod feed;
mod messages;

use breaker_common::abi::Inbound;
use breaker_common::abi::Stream;
use breaker_common::abi::{Framing, sync};
use breaker_common::class::TABLE;
use breaker_common::counts::SegmentCounts;
use breaker_common::message::Class;
use breaker_common::message::MessageKind;
use breaker_common::payload::Payload;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use feed::{Feed, ordinary, walk};
use messages::build;

const VERSIONS: [&str; 9] = [
    "FIX.4.0",
    "FIX.4.1",
    "FIX.4.2",
    "FIX.4.3",
    "FIX.4.4",
    "FIX.5.0",
    "FIX.5.0SP1",
    "FIX.5.0SP2",
    "FIXT.1.1",
];
const UNKNOWN: [&str; 9] = ["O", "5x", "@", "CF", "ZZ", "AAA", "U", "Unlisted", "LongerThanEight"];
/// What a data field may hold to mislead whoever searches.
const FAKES: [&str; 6] = [
    "\x01",
    "35=D\x01",
    "8=FIX.4.4\x019=5\x01",
    "8=FIX",
    "\x0110=000\x018=FIX.4.2\x01",
    "8=FIX.4.4\x019=5\x0135=D\x0110=181\x01",
];

// The reference: byte by byte, as the standard describes it.

/// Takes a field off the front of the stream: its tag, and its value up to SOH.
fn field<'a>(stream: &mut &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let equals = stream.iter().position(|byte| *byte == b'=').expect("a field has a tag");
    let soh = stream.iter().position(|byte| *byte == 1).expect("a field ends in SOH");
    let found = (&stream[..equals], &stream[equals + 1..soh]);
    *stream = &stream[soh + 1..];
    found
}

/// The types of all messages of a valid stream.
fn types(mut stream: &[u8]) -> Vec<String> {
    let mut types = Vec::new();
    while !stream.is_empty() {
        assert_eq!(field(&mut stream).0, b"8");
        let (tag, length) = field(&mut stream);
        assert_eq!(tag, b"9");
        let length = length.iter().fold(0, |number, digit| 10 * number + (digit - b'0') as usize);
        let (mut body, behind) = stream.split_at(length);
        let (tag, msg_type) = field(&mut body);
        assert_eq!(tag, b"35");
        types.push(String::from_utf8(msg_type.to_vec()).expect("text"));
        stream = behind;
        let (tag, checksum) = field(&mut stream);
        assert_eq!((tag, checksum.len()), (&b"10"[..], 3));
    }
    types
}

/// Messages of a valid stream, by class.
fn reference(stream: &[u8]) -> [u32; 5] {
    let mut counts = [0; 5];
    for msg_type in types(stream) {
        let class =
            TABLE.iter().find(|(name, _)| *name == msg_type).map_or(Class::Order, |(_, class)| *class);
        counts[class as usize] += 1;
    }
    counts
}

// Streams and ways of sending them.

fn msg_type() -> impl Strategy<Value = String> {
    let listed = (0..TABLE.len()).prop_map(|i| TABLE[i].0.to_owned());
    prop_oneof![4 => listed, 1 => select(&UNKNOWN[..]).prop_map(str::to_owned), 1 => "U[0-9A-Za-z]{0,9}"]
}

fn fields() -> impl Strategy<Value = Vec<u8>> {
    let text = "58=[ -~]{0,40}\x01".prop_map(String::into_bytes);
    let data = prop_oneof![
        vec(any::<u8>(), 0..40),
        vec(select(&FAKES[..]), 0..4).prop_map(|fakes| fakes.concat().into())
    ]
    .prop_map(|data| [format!("95={}\x0196=", data.len()).as_bytes(), &data, b"\x01"].concat());
    vec(prop_oneof![text, data], 0..4).prop_map(|fields| fields.concat())
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    // The header of a longer type, behind the longest version and so many figures, does not fit the window.
    (select(&VERSIONS[..]), 1..=5usize, msg_type(), fields())
        .prop_map(|(version, figures, msg_type, fields)| build(version, figures, &msg_type, &fields))
}

/// Sizes of segments, to be used in turn.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        vec(1..8usize, 1..20),
        vec(1..60usize, 1..20),
        vec(1..400usize, 1..20),
        Just(vec![1 << 16])
    ]
}

/// Sequence numbers of the first byte, many of them just below the wrap-around.
fn first_seq() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0..2000u32).prop_map(|below| 0u32.wrapping_sub(below))]
}

/// Where segments of these sizes begin and end.
fn cut(length: usize, sizes: &[usize]) -> Vec<(usize, usize)> {
    let mut at = 0;
    let mut segments = Vec::new();
    for size in sizes.iter().cycle().take_while(|_| length > 0) {
        let end = length.min(at + size);
        segments.push((at, end));
        at = end;
        if at == length {
            break;
        }
    }
    segments
}

/// Where the messages begin and end, some of them together.
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

fn has_signature(bytes: &[u8]) -> bool {
    bytes.windows(5).any(|window| window == b"8=FIX")
}

/// Messages by class, and desyncs.
fn counts(counts: &SegmentCounts) -> ([u32; 5], u32) {
    (std::array::from_fn(|class| counts.messages[class]), counts.desyncs)
}

/// One stream that comes in.
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
        walk::walk(
            framing,
            walk::Bytes(payload, &[]),
            (new.from, new.to),
            u32::MAX,
            ordinary,
            true,
            &mut self.counts,
        );
    }

    fn counts(&self) -> ([u32; 5], u32) {
        counts(&self.counts)
    }
}

/// One stream that is being sent.
struct Sender<'a> {
    bytes: &'a [u8],
    first: u32,
    feed: Feed,
}

impl<'a> Sender<'a> {
    fn new(bytes: &'a [u8], first: u32) -> Self {
        Self { bytes, first, feed: Feed::of(Stream::at(first)) }
    }

    /// False where it is withheld.
    fn send(&mut self, from: usize, to: usize) -> bool {
        self.feed.segment(self.first.wrapping_add(from as u32), &self.bytes[from..to])
    }

    fn counts(&self) -> ([u32; 5], u32) {
        counts(&self.feed.counts)
    }
}

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
        prop_assert_eq!(sender.feed.stream.framing, Framing { partial, message_bytes, message_class, ..Framing::default() });
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
            // The new segment begins before the end of the last one; then anything sent so far is sent again.
            sender.send(from.saturating_sub(*overlap), to);
            let start = *start as usize % to;
            sender.send(start, to.min(start + 1 + *length as usize % 300));
        }
        prop_assert_eq!(sender.counts(), (reference(&stream), 0));
        prop_assert_eq!(sender.feed.counts.repeated, 1);
    }

    #[test]
    fn whole_messages_that_come_in_another_order_count_once_the_gap_is_filled(
        messages in vec(message(), 2..16), together in vec(1..4usize, 1..6), early in vec(0..4usize, 1..6), first in first_seq(),
        at_once in any::<bool>(),
    ) {
        let stream = messages.concat();
        let mut receiver = Receiver::new(&stream, first);
        let mut segments = &cut_at_messages(&messages, &together)[..];
        let mut holes = 0;
        for late in early.iter().cycle() {
            // The last of some segments overtakes the others; they follow, in their order or with it as one segment, and again.
            let (block, behind) = segments.split_at((late + 1).min(segments.len()));
            let Some(((from, to), others)) = block.split_last() else { break };
            holes += !others.is_empty() as u32;
            receiver.take(*from, *to);
            let whole = [(block[0].0, *to)];
            let others = if at_once { &whole[..] } else { others };
            others.iter().chain(others).for_each(|(from, to)| receiver.take(*from, *to));
            segments = behind;
        }
        prop_assert_eq!(receiver.counts(), (reference(&stream), holes));
    }

    #[test]
    fn a_gap_inside_a_body_that_comes_in_keeps_sync(
        before in vec(message(), 0..3), text in "[ -~]{60,200}", after in vec(message(), 1..4), first in first_seq(),
        gap in (0..60usize, 1..60usize), late in any::<bool>(),
    ) {
        let holed = build("FIX.4.4", 1, "D", format!("58={text}\x01").as_bytes());
        let start = before.concat().len() + 32 + gap.0;
        let stream = [before.concat(), holed.clone(), after.concat()].concat();
        // Up to the last byte of the message, its trailer included.
        let end = (start + gap.1).min(before.concat().len() + holed.len());
        let mut receiver = Receiver::new(&stream, first);
        receiver.take(0, start);
        receiver.take(end, stream.len());
        if late {
            receiver.take(start, end);
        }
        prop_assert_eq!(receiver.counts(), (reference(&stream), 0));
    }

    #[test]
    fn what_comes_too_late_to_be_read_is_told_and_never_silent(
        messages in vec(message(), 4..5), order in prop::sample::select(&[[2, 1, 0, 3], [1, 3, 0, 2], [2, 0, 3, 1], [3, 2, 1, 0]][..]),
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
    fn a_gap_is_forgotten_long_before_its_numbers_come_again(first in first_seq()) {
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
        kept in vec(message(), 0..3), lost in message(), straddled in message(), after in vec(message(), 1..4),
        cut in any::<prop::sample::Index>(), first in first_seq(),
    ) {
        let start = kept.concat().len();
        let stream = [kept.concat(), lost.clone(), straddled.clone(), after.concat()].concat();
        // The gap takes the boundary behind `lost` and some of the message behind it.
        let end = start + lost.len() + 1 + cut.index(straddled.len() - 1);
        let aligned = start + lost.len() + straddled.len();
        let mut receiver = Receiver::new(&stream, first);
        prop_assume!(!has_signature(&stream[end..aligned]), "a data field that looks like a message may be taken for one");
        receiver.take(0, start);
        receiver.take(end, aligned);
        prop_assert_eq!(receiver.counts(), (reference(&kept.concat()), 1));
        prop_assert_eq!(receiver.inbound.framing.sync, sync::BLIND);
        receiver.take(aligned, stream.len());
        let counted = [kept.concat(), after.concat()].concat();
        prop_assert_eq!(receiver.counts(), (reference(&counted), 1));
        prop_assert_eq!(receiver.inbound.framing.sync, sync::IN_SYNC);
    }

    #[test]
    fn a_stream_joined_in_the_middle_is_counted_by_bytes_up_to_the_next_message(
        middle in message(), after in vec(message(), 1..4), cut in any::<prop::sample::Index>(), first in first_seq(),
    ) {
        let from = 1 + cut.index(middle.len() - 1);
        let stream = [middle.clone(), after.concat()].concat();
        prop_assume!(!has_signature(&stream[from..middle.len()]), "a data field that looks like a message may be taken for one");
        let mut sender = Sender::new(&stream, first);
        sender.feed = Feed { opened: false, ..Feed::of(Stream::joined(first.wrapping_add(from as u32))) };
        sender.send(from, stream.len());
        prop_assert_eq!(sender.counts(), (reference(&after.concat()), 0));
        prop_assert_eq!(sender.feed.counts.blind_orders(), (middle.len() - from).div_ceil(100) as u32);
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
        let mut feed = Feed::of(Stream::at(start));
        for (offset, payload) in &segments {
            feed.segment(start.wrapping_add(*offset), payload);
        }
        // And with sequence numbers from anywhere.
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
        // The message before it may have had the wrong length: its bytes count too, less the order that it was.
        assert_eq!(sender.counts(), ([2, 0, 0, 0, 0], 1), "{bad:?}");
        assert_eq!(sender.feed.counts.blind_bytes as usize, good.len() + bad.len(), "{bad:?}");
        assert_eq!(sender.feed.orders(), 2, "{bad:?}");
        assert_eq!(sender.feed.stream.framing.sync, sync::IN_SYNC);
    }
}

#[test]
fn a_message_that_claims_more_than_is_believed_hides_nothing() {
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
    // Each in a segment of its own, and all in one.
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

/// What a connection whose first byte has the number 1000 makes of segments: their numbers and lengths, and whether each is let through.
fn let_through(opened: bool, segments: &[(u32, usize, bool)]) -> Feed {
    let mut feed = Feed { opened, ..Feed::of(if opened { Stream::at(1000) } else { Stream::joined(1000) }) };
    for (seq, length, expected) in segments {
        assert_eq!(feed.segment(*seq, &vec![b'x'; *length]), *expected, "{length} bytes at {seq}");
    }
    feed
}

#[test]
fn what_lies_ahead_of_a_gap_waits_until_tcp_has_filled_it() {
    let feed = let_through(
        true,
        &[
            (1000, 50, true),
            (1100, 50, false),
            (1150, 50, false),
            (1050, 50, true),
            (1100, 100, true),
            (1000, 50, true),
        ],
    );
    assert_eq!((feed.stream.next_seq, feed.counts.blind_bytes), (1200, 200));
}

#[test]
fn a_gap_that_stays_is_given_up_and_its_bytes_count_when_they_come_after_all() {
    let ahead = (1100, 50, false);
    let feed = let_through(
        true,
        &[(1000, 50, true), ahead, ahead, ahead, (1100, 50, true), (1060, 30, true), (1000, 50, true)],
    );
    assert_eq!((feed.stream.next_seq, feed.counts.blind_bytes), (1150, 50 + 50 + 30));
}

#[test]
fn the_first_byte_of_a_connection_is_the_one_behind_its_syn() {
    let first = (1050, 50, false);
    // Waited for, however often what is ahead comes again.
    let_through(true, &[first; 9]);
    // And what lies before it is of another connection, but for the byte of a keepalive probe.
    let_through(
        true,
        &[
            (999, 1, true),
            (999, 2, false),
            (900, 50, false),
            (1000, 50, true),
            (999, 51, false),
            (999, 1, true),
        ],
    );
}

#[test]
fn bytes_from_before_a_connection_was_joined_are_never_taken_for_repeated_ones() {
    let feed = let_through(false, &[(1000, 50, true), (900, 50, true), (980, 50, true), (1000, 50, true)]);
    assert_eq!(feed.counts.blind_bytes, 50 + 50 + 20);
}
