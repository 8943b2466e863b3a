//! Generated messages and their segmentation.

use breaker_common::abi::identity;
use breaker_common::fields::LENGTHS;
use breaker_common::message::want;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::dictionary::data_of;
use super::messages::build;
use super::reference::{DECLARED, fields};

/// Content of values that resembles fields and messages.
pub const FAKES: [&str; 8] = [
    "\x01",
    "43=Y\x01",
    "\x0143=Y\x01",
    "\x011373=3\x01",
    "\x0149=FIRM\x01",
    "\x0195=9\x0196=",
    "8=FIX.4.4\x019=5\x0135=D\x0110=181\x01",
    "=",
];

/// Returns the cuts of a stream into pieces of these sizes, used in turn.
pub fn cuts(length: usize, sizes: &[usize]) -> Vec<usize> {
    let ends = sizes.iter().cycle().scan(0, |at, size| {
        *at += size;
        Some(*at)
    });
    ends.take_while(|end| *end < length).collect()
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let content = prop_oneof![
        vec(any::<u8>(), 1..70),
        vec(select(&FAKES[..]), 1..5).prop_map(|fakes| fakes.concat().into_bytes()),
    ];
    // A length of 0, with or without an empty data field behind it.
    let empty = (select(LENGTHS), any::<bool>())
        .prop_map(|(tag, with)| format!("{tag}=0\x01{}", if with { "96=\x01" } else { "" }).into_bytes());
    let whole = (select(LENGTHS), 1..=7usize, content).prop_map(|(tag, digits, content)| {
        let data = data_of(tag);
        [format!("{tag}={:0digits$}\x01{data}=", content.len()).as_bytes(), &content, b"\x01"].concat()
    });
    prop_oneof![4 => whole, 1 => empty]
}

fn comp_id() -> impl Strategy<Value = String> {
    let value =
        prop_oneof![select(&DECLARED[..]).prop_map(str::to_owned), "[ -<>-~]{0,40}", Just("Z".repeat(29))];
    (select(&identity::TAGS[..]), value).prop_map(|(tag, value)| format!("{tag}={value}\x01"))
}

/// Generates wanted fields, other fields, and fields that resemble wanted ones.
fn some_fields() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["58=[ -~]{0,90}\x01", "[1-9][0-9]{0,4}=[ -~]{0,12}\x01"].prop_filter(
        "a length field without a data field",
        |field| {
            let tag = field.split('=').next().and_then(|tag| tag.parse().ok());
            !tag.is_some_and(|tag: u32| LENGTHS.contains(&tag))
        },
    );
    let flag = select(&["43=Y\x01", "43=N\x01", "43=\x01", "43=YES\x01", "143=Y\x01", "97=Y\x01"][..]);
    let action =
        select(&["1373=1\x01", "1373=2\x01", "1373=3\x01", "1373=33\x01", "373=3\x01", "13730=3\x01"][..]);
    let report =
        select(&["150=F\x01", "150=1\x01", "150=8\x01", "150=0\x01", "39=8\x01", "39=2\x01", "39=0\x01"][..]);
    let one = prop_oneof![
        2 => text.prop_map(String::into_bytes),
        2 => data(),
        1 => comp_id().prop_map(String::into_bytes),
        1 => flag.prop_map(|field| field.as_bytes().to_vec()),
        1 => action.prop_map(|field| field.as_bytes().to_vec()),
        1 => report.prop_map(|field| field.as_bytes().to_vec()),
    ];
    vec(one, 0..9).prop_map(|fields| fields.concat()).prop_filter("a field of a report is repeated", |body| {
        let all = fields(body);
        [150, 39].iter().all(|tag| all.iter().filter(|(found, _)| found == tag).count() < 2)
    })
}

/// Generates the MsgType and the fields of a message.
pub fn message() -> impl Strategy<Value = (String, Vec<u8>)> {
    const TYPES: [&str; 16] = [
        "D",
        "G",
        "CA",
        "CA",
        "8",
        "8",
        "A",
        "F",
        "3",
        "j",
        "9",
        "0",
        "AB",
        "U1",
        "LongType",
        "LongerThanEight",
    ];
    (select(&TYPES[..]).prop_map(str::to_owned), some_fields())
}

/// Returns the bytes of messages with various headers.
pub fn sent(messages: &[(String, Vec<u8>)]) -> Vec<u8> {
    let one = |(i, (msg_type, body)): (usize, &(String, Vec<u8>))| {
        let begin = if i % 2 == 0 { "FIX.4.4" } else { "FIXT.1.1" };
        build(begin, 1 + i % 7, msg_type, body)
    };
    messages.iter().enumerate().flat_map(one).collect()
}

/// Generates sizes of segments, used in turn.
pub fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        vec(1..8usize, 1..20),
        vec(1..60usize, 1..20),
        vec(1..400usize, 1..9),
        Just(vec![1 << 16])
    ]
}

/// Generates the [`want`] bits for every outbound message.
pub fn any_wants() -> impl Strategy<Value = u32> {
    select(&[0, want::IDENTITY, want::IDENTITY | want::OWNER][..])
}
