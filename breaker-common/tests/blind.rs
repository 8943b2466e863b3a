//! A limit holds for any bytes: a venue takes at max N orders, plus the orders that a wrong length hides.

mod feed;
mod messages;
mod venues;

use breaker_common::abi::Stream;
use breaker_common::blind::first_signature;
use breaker_common::counts::BYTES_PER_ORDER;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use feed::Feed;
use messages::build;
use venues::{
    LONGEST, MAX_HIDDEN, find, nests, passed_bytes, taken_by_length, taken_by_search, taken_by_trailer,
};

/// Bytes that engines and proxies put between messages, and bytes that resemble a message.
const FILLERS: [&[u8]; 7] =
    [b"\n", b"\0", b"\r\n", b"8=FIX", b"8=FIX.4.4\x019=5\x0135=0\x01", b"\x01", b"10=000\x01"];

/// Builds an order of at least [`BYTES_PER_ORDER`] bytes.
fn order(version: &str, digits: usize) -> Vec<u8> {
    const FIELDS: &[u8] = b"49=FIRM\x0156=XNYS\x0134=1\x0152=20261127-10:00:00\x01\
        11=C1\x0155=IBM\x0154=1\x0138=100\x0140=1\x0159=0\x0121=1\x01";
    let order = build(version, digits, "D", FIELDS);
    assert!(order.len() >= BYTES_PER_ORDER as usize);
    order
}

/// Replaces the BodyLength(9) of a message.
fn with_length(message: &[u8], length: &str) -> Vec<u8> {
    let from = find(message, 0, b"\x019=").expect("it has one") + 3;
    let to = find(message, from, b"\x01").expect("it ends");
    [&message[..from], length.as_bytes(), &message[to..]].concat()
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let version = select(&["FIX.4.2", "FIX.4.4", "FIXT.1.1", "FIX.5.0SP2", "FIX.4.44", "FIX.9"][..]);
    let whole = (version, 1..8usize).prop_map(|(version, digits)| order(version, digits));
    let heartbeat = || build("FIX.4.4", 1, "0", b"49=FIRM\x0156=XNYS\x01");
    let length = prop_oneof![
        Just("0".to_owned()),
        Just("9999999".to_owned()),
        Just(String::new()),
        Just("-5".to_owned()),
        (1..200u32).prop_map(|length| length.to_string()),
        (1..5000u32).prop_map(|length| format!("{length:08}")),
        (1..20_000u32).prop_map(|length| length.to_string()),
    ];
    prop_oneof![
        8 => whole,
        2 => Just(heartbeat()),
        2 => vec(any::<u8>(), 1..150),
        2 => any::<Index>().prop_map(|at| {
            let order = order("FIX.4.4", 1);
            order[..at.index(order.len())].to_vec()
        }),
        3 => (length, any::<bool>()).prop_map(move |(length, of_order)| {
            with_length(&if of_order { order("FIX.4.4", 1) } else { heartbeat() }, &length)
        }),
        1 => select(&FILLERS[..]).prop_map(<[u8]>::to_vec),
    ]
}

const ONE_SEGMENT: [usize; 1] = [1 << 16];

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(ONE_SEGMENT.to_vec()),
        vec(1..10usize, 1..9),
        vec(1..300usize, 1..9),
        vec(100..1500usize, 1..9),
    ]
}

/// Number of orders that are not found behind a wrong length: values of a field, and unknown versions.
fn hidden_in_a_segment(stream: &[u8]) -> usize {
    let starts = (0..stream.len()).filter(|at| stream[*at..].starts_with(b"8=FIX"));
    let known = |at: &usize| {
        ["FIX.4.2", "FIX.4.4", "FIXT.1.1", "FIX.5.0SP2"]
            .iter()
            .any(|version| stream[at + 2..].starts_with(format!("{version}\x01").as_bytes()))
    };
    starts.filter(|at| *at > 0 && stream[at - 1] == b'=' || !known(at)).count()
}

/// Counts a segment on its own, with limits of a session as [`passed_bytes`] uses them.
fn orders_in(segment: &[u8]) -> u32 {
    let mut feed = Feed { longest: LONGEST, ..Feed::new(Stream::at(1)) };
    feed.segment(1, segment);
    feed.orders()
}

/// A heartbeat whose length reaches behind every segment of these tests.
fn too_long() -> Vec<u8> {
    with_length(&build("FIX.4.4", 1, "0", b"49=FIRM\x0156=XNYS\x01"), "4000")
}

#[test]
fn a_false_header_does_not_hide_the_orders_behind_a_wrong_length() {
    let orders = order("FIX.4.4", 1).repeat(20);
    for decoy in [&b"8=FIX.4.4\x01"[..], b"8=FIX", b"8=FIX.4.4\x019=5\x0135=0\x01"] {
        let segment = [&too_long(), &decoy.repeat(5)[..], &orders[..]].concat();
        assert!(orders_in(&segment) >= 20, "{} behind {decoy:?}", orders_in(&segment));
    }
}

#[test]
fn a_second_wrong_length_hides_no_orders_either() {
    let orders = order("FIX.4.4", 1).repeat(10);
    let segment = [too_long(), orders.clone(), too_long(), orders].concat();
    assert!(orders_in(&segment) >= 20, "{}", orders_in(&segment));
}

#[test]
fn more_false_headers_than_are_searched_count_as_unread() {
    let orders = order("FIX.4.4", 1).repeat(20);
    let segment = [&too_long(), &b"8=FIX".repeat(300)[..], &orders[..]].concat();
    assert!(orders_in(&segment) >= 20, "{}", orders_in(&segment));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_venue_takes_more_orders_than_the_limit(
        pieces in vec(piece(), 1..60), sizes in sizes(), max in 1..30u32,
    ) {
        let stream = pieces.concat();
        prop_assume!(!nests(&stream));
        let passed = &stream[..passed_bytes(&stream, &sizes, max)];
        // In one segment a wrong length hides only what is no message inside another message.
        let hidden = if sizes == ONE_SEGMENT { hidden_in_a_segment(passed) } else { MAX_HIDDEN };
        let max = max as usize;
        let (length, search, trailer) =
            (taken_by_length(passed), taken_by_search(passed), taken_by_trailer(passed));
        prop_assert!(length <= max + hidden, "by length: {length} of {max}");
        prop_assert!(search <= max + hidden, "by search: {search} of {max}");
        prop_assert!(trailer <= max + MAX_HIDDEN, "by trailer: {trailer} of {max}");
    }

    #[test]
    fn orders_that_begin_a_segment_are_never_hidden_by_the_length_of_what_came_before(
        claims in vec(0..4000u32, 1..6), orders in 1..60usize, max in 1..30u32,
    ) {
        // Each message is in its own segment, as an engine without Nagle sends them. All venues agree.
        let heartbeat = build("FIX.4.4", 1, "0", b"49=FIRM\x0156=XNYS\x01");
        let mut feed = Feed { longest: LONGEST, ..Feed::new(Stream::at(1)) };
        let (mut passed, mut used, mut seq) = (Vec::new(), 0, 1);
        let one = order("FIX.4.4", 1);
        for i in 0..orders {
            let claim = claims[i % claims.len()];
            for message in [with_length(&heartbeat, &claim.to_string()), one.clone()] {
                feed.counts = Default::default();
                feed.segment(seq, &message);
                used += feed.orders();
                seq += message.len() as u32;
                if used <= max {
                    passed.extend(message);
                }
            }
        }
        prop_assume!(!nests(&passed));
        for taken in [taken_by_length(&passed), taken_by_search(&passed), taken_by_trailer(&passed)] {
            prop_assert!(taken <= max as usize, "{taken} of {max}");
        }
    }

    #[test]
    fn the_search_for_a_signature_finds_what_a_naive_one_finds(
        bytes in vec(select(b"8=FIX.\x01\x38\x3d\x37\x39".as_slice()), 16..17),
    ) {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let naive = find(&bytes, 0, b"8=FIX").filter(|at| *at < 8).unwrap_or(8);
        let found = first_signature(word(0), word(8)) as usize;
        // A false match is allowed, because the header is parsed afterwards. A match is never missed.
        prop_assert!(found <= naive, "{found}, {naive}");
    }
}
