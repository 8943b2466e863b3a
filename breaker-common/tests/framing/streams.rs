//! Streams, their segmentation, and the reference counts.

use breaker_common::abi::Stream;
use breaker_common::class::TABLE;
use breaker_common::counts::SegmentCounts;
use breaker_common::message::Class;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::feed::Feed;
use super::messages::build;
use super::versions::VERSIONS;

pub const UNKNOWN: [&str; 9] = ["O", "5x", "@", "CF", "ZZ", "AAA", "U", "Unlisted", "LongerThanEight"];
/// Content of data fields that resembles fields and messages.
pub const FAKES: [&str; 6] = [
    "\x01",
    "35=D\x01",
    "8=FIX.4.4\x019=5\x01",
    "8=FIX",
    "\x0110=000\x018=FIX.4.2\x01",
    "8=FIX.4.4\x019=5\x0135=D\x0110=181\x01",
];

// The reference parser reads byte by byte, as the standard describes it.

/// Takes a field off the front of the stream. Returns its tag and its value.
fn field<'a>(stream: &mut &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let equals = stream.iter().position(|byte| *byte == b'=').expect("a field has a tag");
    let soh = stream.iter().position(|byte| *byte == 1).expect("a field ends in SOH");
    let found = (&stream[..equals], &stream[equals + 1..soh]);
    *stream = &stream[soh + 1..];
    found
}

/// Returns the MsgTypes of a valid stream.
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

/// Returns the number of messages of a valid stream, by class.
pub fn reference(stream: &[u8]) -> [u32; 5] {
    let mut counts = [0; 5];
    for msg_type in types(stream) {
        let class =
            TABLE.iter().find(|(name, _)| *name == msg_type).map_or(Class::Order, |(_, class)| *class);
        counts[class as usize] += 1;
    }
    counts
}

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

pub fn message() -> impl Strategy<Value = Vec<u8>> {
    // With more digits, the longest version and type do not fit into a chunk.
    (select(&VERSIONS[..]), 1..=5usize, msg_type(), fields())
        .prop_map(|(version, digits, msg_type, fields)| build(version, digits, &msg_type, &fields))
}

/// Generates sizes of segments, used in turn.
pub fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        vec(1..8usize, 1..20),
        vec(1..60usize, 1..20),
        vec(1..400usize, 1..20),
        Just(vec![1 << 16])
    ]
}

/// Generates sequence numbers of the first byte, many of them just below the wrap-around.
pub fn first_seq() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0..2000u32).prop_map(|below| 0u32.wrapping_sub(below))]
}

/// Returns the ranges of segments of these sizes.
pub fn cut(length: usize, sizes: &[usize]) -> Vec<(usize, usize)> {
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

pub fn has_signature(bytes: &[u8]) -> bool {
    bytes.windows(5).any(|window| window == b"8=FIX")
}

/// Returns the messages by class, and the desyncs.
pub fn counts(counts: &SegmentCounts) -> ([u32; 5], u32) {
    (std::array::from_fn(|class| counts.messages[class]), counts.desyncs)
}

/// The outbound direction of a stream.
pub struct Sender<'a> {
    bytes: &'a [u8],
    first: u32,
    pub feed: Feed,
}

impl<'a> Sender<'a> {
    pub fn new(bytes: &'a [u8], first: u32) -> Self {
        Self { bytes, first, feed: Feed::new(Stream::at(first)) }
    }

    /// Sends a range of the stream. Returns false if the segment is withheld.
    pub fn send(&mut self, from: usize, to: usize) -> bool {
        self.feed.segment(self.first.wrapping_add(from as u32), &self.bytes[from..to])
    }

    pub fn counts(&self) -> ([u32; 5], u32) {
        counts(&self.feed.counts)
    }
}
