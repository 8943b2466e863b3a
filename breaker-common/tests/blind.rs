//! The bound of a limit holds for any bytes: of what crosses, no venue that frames by BodyLength takes more than N orders.
//!
//! The judges are readers of their own, which share nothing with the walk: one that believes BodyLength and goes on behind the next
//! trailer (as QuickFIX does), one that searches for the next `8=FIX` where a length was wrong (as QuickFIX/J does), and one that
//! ignores lengths and takes all up to a trailer for a message. The last one may take what a wrong length hides before the length has
//! turned out to be wrong: at most what fits into the longest message that is believed.

mod feed;
mod messages;

use breaker_common::blind::{BYTES_PER_ORDER, first_signature};
use breaker_common::sequence::Stream;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use feed::Feed;
use messages::build;

const LONGEST: u32 = 4096;

/// What engines and proxies put between messages, and what looks like one.
const FILLERS: [&[u8]; 7] = [b"\n", b"\0", b"\r\n", b"8=FIX", b"8=FIX.4.4\x019=5\x0135=0\x01", b"\x01", b"10=000\x01"];

/// A trailer that begins at or behind `from`, with the SOH before it: where it begins, and where it ends.
fn trailer(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let is_trailer = |at: &usize| {
        bytes[*at..].starts_with(b"\x0110=") && bytes[*at + 4..].iter().position(|byte| *byte == 1) == Some(3)
    };
    let at = (from..bytes.len().saturating_sub(7)).find(is_trailer)?;
    Some((at, at + 8))
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(what))
}

/// BodyLength of the message that begins at `at`, and where its body begins. `None` where more bytes are to come, `Some(None)` where it
/// has none.
fn body(bytes: &[u8], at: usize) -> Option<Option<(usize, usize)>> {
    let soh = find(bytes, at, b"\x01")?;
    if !bytes[soh..].starts_with(b"\x019=") {
        return if bytes.len() - soh < 3 { None } else { Some(None) };
    }
    let end = find(bytes, soh + 1, b"\x01")?;
    let length = std::str::from_utf8(&bytes[soh + 3..end]).ok().and_then(|text| text.parse().ok());
    Some(length.map(|length: usize| (length, end + 1)))
}

fn is_order(message: &[u8]) -> bool {
    find(message, 0, b"\x0135=").is_some_and(|at| message[at..].starts_with(b"\x0135=D\x01"))
}

/// Orders that a venue takes which believes lengths: from the end of the body on it looks for a trailer.
fn by_length(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        match body(bytes, start) {
            None => break,
            Some(None) => at = start + 1,
            Some(Some((length, from))) => {
                let Some((_, end)) = from.checked_add(length).and_then(|to| trailer(bytes, to - 1)) else { break };
                orders += usize::from(is_order(&bytes[start..end]));
                at = end;
            }
        }
    }
    orders
}

/// Orders that a venue takes which searches on behind the beginning of a message where its length leads to no trailer.
fn by_search(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        at = start + 1;
        let Some(found) = body(bytes, start) else { break };
        let Some((length, from)) = found else { continue };
        let Some(end) = from.checked_add(length) else { continue };
        // It waits for a length that it believes.
        if end + 7 > bytes.len() && end < 1 << 20 {
            break;
        }
        if trailer(bytes, end - 1).is_some_and(|(begin, _)| begin == end - 1) {
            orders += usize::from(is_order(&bytes[start..end + 7]));
            at = end + 7;
        }
    }
    orders
}

/// Orders that a venue takes which ignores lengths.
fn by_trailer(bytes: &[u8]) -> usize {
    let (mut at, mut orders) = (0, 0);
    while let Some(start) = find(bytes, at, b"8=FIX") {
        let Some((_, end)) = trailer(bytes, start) else { break };
        orders += usize::from(is_order(&bytes[start..end]));
        at = end;
    }
    orders
}

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

/// The bytes of a stream that cross a limit of so many orders, sent in segments of these sizes.
fn crossed(stream: &[u8], sizes: &[usize], most: u32) -> usize {
    let mut feed = Feed { longest: LONGEST, ..Feed::of(Stream::at(1)) };
    let (mut at, mut used) = (0, 0);
    for size in sizes.iter().cycle() {
        if at == stream.len() {
            break;
        }
        let end = stream.len().min(at + size);
        feed.tally = Default::default();
        feed.segment(1 + at as u32, &stream[at..end]);
        used += feed.orders();
        if used > most {
            break;
        }
        at = end;
    }
    at
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1 << 16]), vec(1..10usize, 1..9), vec(1..300usize, 1..9), vec(100..1500usize, 1..9),]
}

/// Whether a wrong length ends exactly where another message begins: then what lies between is a message's body to everyone.
fn nests(stream: &[u8]) -> bool {
    let starts: Vec<usize> = (0..stream.len()).filter(|at| stream[*at..].starts_with(b"8=FIX")).collect();
    starts.iter().any(|start| {
        let Some(Some((length, from))) = body(stream, *start) else { return false };
        let end = from.saturating_add(length).saturating_add(7);
        let inside = starts.iter().any(|other| other > start && *other < end);
        inside && (starts.contains(&end) || end == stream.len())
    })
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
        prop_assert!(by_length(through) <= most as usize, "by length: {} of {most}", by_length(through));
        prop_assert!(by_search(through) <= most as usize, "by search: {} of {most}", by_search(through));
        let hidden = (LONGEST / BYTES_PER_ORDER) as usize;
        prop_assert!(by_trailer(through) <= most as usize + hidden, "by trailer: {} of {most}", by_trailer(through));
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
                feed.tally = Default::default();
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
