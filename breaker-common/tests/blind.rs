//! The bound of a limit holds for any bytes: of what crosses, no venue takes more than N orders, and of what a wrong length hides.

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
use venues::{HIDDEN, LONGEST, by_length, by_search, by_trailer, crossed, find, nests};

/// What engines and proxies put between messages, and what looks like one.
const FILLERS: [&[u8]; 7] =
    [b"\n", b"\0", b"\r\n", b"8=FIX", b"8=FIX.4.4\x019=5\x0135=0\x01", b"\x01", b"10=000\x01"];

/// A message as long as an order is at the least.
fn order(version: &str, figures: usize) -> Vec<u8> {
    const FIELDS: &[u8] = b"49=FIRM\x0156=XNYS\x0134=1\x0152=20261127-10:00:00\x0111=C1\x0155=IBM\x0154=1\x0138=100\x0140=1\x0159=0\x0121=1\x01";
    let order = build(version, figures, "D", FIELDS);
    assert!(order.len() >= BYTES_PER_ORDER as usize);
    order
}

/// The same with another BodyLength.
fn with_length(message: &[u8], length: &str) -> Vec<u8> {
    let from = find(message, 0, b"\x019=").expect("it has one") + 3;
    let to = find(message, from, b"\x01").expect("it ends");
    [&message[..from], length.as_bytes(), &message[to..]].concat()
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let version = select(&["FIX.4.2", "FIX.4.4", "FIXT.1.1", "FIX.5.0SP2", "FIX.4.44", "FIX.9"][..]);
    let whole = (version, 1..8usize).prop_map(|(version, figures)| order(version, figures));
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
        2 => any::<Index>().prop_map(|at| { let order = order("FIX.4.4", 1); order[..at.index(order.len())].to_vec() }),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_venue_takes_more_orders_than_the_limit(
        pieces in vec(piece(), 1..60), sizes in sizes(), most in 1..30u32,
    ) {
        let stream = pieces.concat();
        prop_assume!(!nests(&stream));
        let through = &stream[..crossed(&stream, &sizes, most)];
        // In one segment nothing is hidden: that a length was wrong shows in it.
        let hidden = if sizes == ONE_SEGMENT { 0 } else { HIDDEN };
        prop_assert!(by_length(through) <= most as usize + hidden, "by length: {} of {most}", by_length(through));
        prop_assert!(by_search(through) <= most as usize + hidden, "by search: {} of {most}", by_search(through));
        prop_assert!(by_trailer(through) <= most as usize + HIDDEN, "by trailer: {} of {most}", by_trailer(through));
    }

    #[test]
    fn orders_that_begin_a_segment_are_never_hidden_by_the_length_of_what_came_before(
        claims in vec(0..4000u32, 1..6), orders in 1..60usize, most in 1..30u32,
    ) {
        // Each message in a segment of its own, as an engine without Nagle sends them; every judge agrees.
        let heartbeat = build("FIX.4.4", 1, "0", b"49=FIRM\x0156=XNYS\x01");
        let mut feed = Feed { longest: LONGEST, ..Feed::of(Stream::at(1)) };
        let (mut through, mut used, mut seq) = (Vec::new(), 0, 1);
        let one = order("FIX.4.4", 1);
        for i in 0..orders {
            let claim = claims[i % claims.len()];
            for message in [with_length(&heartbeat, &claim.to_string()), one.clone()] {
                feed.counts = Default::default();
                feed.segment(seq, &message);
                used += feed.orders();
                seq += message.len() as u32;
                if used <= most {
                    through.extend(message);
                }
            }
        }
        prop_assume!(!nests(&through));
        for taken in [by_length(&through), by_search(&through), by_trailer(&through)] {
            prop_assert!(taken <= most as usize, "{taken} of {most}");
        }
    }

    #[test]
    fn the_search_for_a_signature_finds_what_a_naive_one_finds(
        bytes in vec(select(b"8=FIX.\x01\x38\x3d\x37\x39".as_slice()), 16..17),
    ) {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let naive = find(&bytes, 0, b"8=FIX").filter(|at| *at < 8).unwrap_or(8);
        let found = first_signature(word(0), word(8)) as usize;
        // It may take what only looks alike: the header is read all the same. It never misses one.
        prop_assert!(found <= naive, "{found}, {naive}");
    }
}
