//! The walk over fields: any way of cutting a stream finds what a reader finds that has every message whole.

mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs};

use breaker_common::abi::Inbound;
use breaker_common::abi::identity;
use breaker_common::abi::{Framing, sync};
use breaker_common::class::{self, TABLE};
use breaker_common::counts::SegmentCounts;
use breaker_common::fields::LENGTHS;
use breaker_common::fix::{CHUNK, Chunk, MsgType};
use breaker_common::inbound::NewBytes;
use breaker_common::message::MessageKind;
use breaker_common::message::want;
use breaker_common::message::{Class, InboundClass};
use breaker_common::payload::Payload;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use messages::build;

/// Fields that give the length of a data field: its number and name, then those of the data; `-` where there is none.
const LIST: &str = include_str!("lengths.txt");
/// Where Debian's libquickfix-dev puts its headers.
const HEADERS: &str = "/usr/include/quickfix";
/// Set to write `lengths.txt` anew.
const RENEW: &str = "BREAKER_RENEW_LENGTHS";

/// CompIDs that somebody declared; their numbers follow from their places.
const DECLARED: [&str; 5] = ["FIRM", "VENUE", "DESK7", "A", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-1"];
/// What a value may hold to mislead whoever searches.
const FAKES: [&str; 8] = [
    "\x01",
    "43=Y\x01",
    "\x0143=Y\x01",
    "\x011373=3\x01",
    "\x0149=FIRM\x01",
    "\x0195=9\x0196=",
    "8=FIX.4.4\x019=5\x0135=D\x0110=181\x01",
    "=",
];

// The reference: a reader that has every message whole.

/// The fields of a body, and of its checksum.
fn fields(body: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let (mut rest, mut fields, mut data) = (body, Vec::new(), None);
    while !rest.is_empty() {
        let equals = rest.iter().position(|byte| *byte == b'=').expect("a field has a tag");
        let tag: u32 = std::str::from_utf8(&rest[..equals]).expect("text").parse().expect("a number");
        rest = &rest[equals + 1..];
        let end = data
            .take()
            .unwrap_or_else(|| rest.iter().position(|byte| *byte == 1).expect("a field ends in SOH"));
        assert_eq!(rest[end], 1);
        let value = rest[..end].to_vec();
        rest = &rest[end + 1..];
        if LENGTHS.contains(&tag) {
            data = std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|length| *length != 0);
        }
        fields.push((tag, value));
    }
    fields
}

/// What a stream of these messages, type and fields each, says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    messages: [u32; 8],
    replays: u32,
    ids: [u32; 4],
}

fn first(fields: &[(u32, Vec<u8>)], tag: u32) -> Option<&[u8]> {
    fields.iter().find(|(found, _)| *found == tag).map(|(_, value)| &value[..])
}

/// The number of a CompID.
fn number(value: &[u8]) -> u32 {
    let place = DECLARED.iter().position(|declared| declared.as_bytes() == value);
    place.map_or(identity::UNKNOWN, |place| identity::FIRST + place as u32)
}

/// The class of a type by the table.
fn listed(msg_type: &str) -> Class {
    TABLE.iter().find(|(name, _)| *name == msg_type).map_or(Class::Order, |(_, class)| *class)
}

fn reference_out(messages: &[(String, Vec<u8>)]) -> Found {
    let mut found = Found::default();
    for (msg_type, body) in messages {
        let fields = fields(body);
        let class = match (listed(msg_type), &msg_type[..], first(&fields, 1373)) {
            (_, "CA", Some(b"1" | b"3")) => Class::Cancel,
            (class, ..) => class,
        };
        found.messages[class as usize] += 1;
        found.replays += (class == Class::Order && first(&fields, 43) == Some(b"Y")) as u32;
    }
    for (tag, value) in messages.first().iter().flat_map(|(_, body)| fields(body)) {
        if let Some(place) = identity::TAGS.iter().position(|named| *named == tag)
            && found.ids[place] == 0
        {
            found.ids[place] = number(&value);
        }
    }
    found
}

fn reference_in(messages: &[(String, Vec<u8>)]) -> Found {
    let mut found = Found::default();
    for (msg_type, body) in messages {
        let fields = fields(body);
        let of = |tag| first(&fields, tag).and_then(|value| value.first()).copied();
        let kind = match &msg_type[..] {
            "3" | "j" | "9" => InboundClass::Reject,
            "8" => match (of(150), of(39)) {
                (Some(b'F' | b'1' | b'2'), _) | (None, Some(b'1' | b'2')) => InboundClass::Fill,
                (_, Some(b'8')) | (Some(b'8'), None) => InboundClass::Reject,
                _ => InboundClass::Other,
            },
            _ => InboundClass::Other,
        };
        found.messages[kind as usize] += 1;
    }
    found
}

// The walk under test.

/// The payload of a segment.
struct Bytes<'a>(&'a [u8]);

impl Payload for Bytes<'_> {
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk> {
        let length = length as usize;
        assert!((1..=CHUNK).contains(&length), "{length} bytes asked for");
        let mut window = [0; CHUNK];
        window[..length].copy_from_slice(&self.0[offset as usize..][..length]);
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| window[8 * i + j]));
        Some(std::array::from_fn(word))
    }

    fn find(&mut self, from: u32, to: u32) -> u32 {
        let bytes = &self.0[from as usize..to as usize];
        bytes.windows(5).position(|window| window == b"8=FIX").map_or(to, |at| from + at as u32)
    }

    fn comp_id(&mut self, value: &Chunk) -> u32 {
        let bytes = value.map(u64::to_le_bytes).concat();
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        number(&bytes[..length])
    }
}

/// Which way messages go, and what is looked for.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Outward, with what is looked for in every message.
    Out(u32),
    In,
}

impl Way {
    fn kind(self, msg_type: MsgType) -> MessageKind {
        match self {
            Self::Out(any) => {
                class::outbound_kind(msg_type, (class::default_class(msg_type), false), any, want::POSSDUP)
            }
            Self::In => class::inbound_kind(msg_type),
        }
    }
}

/// Shows the stream a segment. Fails where the walk makes no progress.
fn show(stream: &mut Inbound, way: Way, seq: u32, bytes: &[u8], counts: &mut SegmentCounts) {
    let Some(new) = stream.advance(seq, bytes.len() as u32, counts) else { return };
    let framing: &mut Framing = if new.late { &mut stream.gap.framing } else { &mut stream.framing };
    let NewBytes { from, to, .. } = new;
    let (mut payload, mut at, mut steps) = (Bytes(bytes), from, 0);
    while at < to {
        let next = match framing.sync {
            sync::IN_SYNC => {
                framing.step(&mut payload, (at, to), u32::MAX, |msg_type| way.kind(msg_type), counts)
            }
            _ => framing.resync(&mut payload, (at, to), u32::MAX, counts),
        };
        assert!((at..=to).contains(&next), "from {at} to {next}, outside the segment");
        at = next;
        steps += 1;
        // A field is a step, and its data one more and another to find where they begin.
        assert!(steps <= 3 * (to - from) + 3, "{steps} steps over {new:?}");
    }
}

/// What the walk finds in a stream that is cut at these places, and at how many it was lost.
fn walked(way: Way, bytes: &[u8], cuts: &[usize]) -> (Found, u32) {
    let (mut stream, mut counts, mut from) = (Inbound::at(7), SegmentCounts::default(), 0);
    for to in cuts.iter().copied().chain([bytes.len()]) {
        show(&mut stream, way, 7 + from as u32, &bytes[from..to], &mut counts);
        from = to;
    }
    assert_eq!(
        (stream.framing.field_state, stream.framing.field_values, stream.framing.data_remaining),
        (0, 0, 0),
        "something is left open"
    );
    (
        Found {
            messages: std::array::from_fn(|class| counts.messages[class]),
            replays: counts.replays,
            ids: counts.comp_ids,
        },
        counts.desyncs,
    )
}

/// Cuts a stream of so many bytes in pieces of these sizes, in turn.
fn cuts(length: usize, sizes: &[usize]) -> Vec<usize> {
    let ends = sizes.iter().cycle().scan(0, |at, size| {
        *at += size;
        Some(*at)
    });
    ends.take_while(|end| *end < length).collect()
}

// Streams.

fn data() -> impl Strategy<Value = Vec<u8>> {
    let held = prop_oneof![
        vec(any::<u8>(), 1..70),
        vec(select(&FAKES[..]), 1..5).prop_map(|fakes| fakes.concat().into_bytes()),
    ];
    // Of no length at all, with an empty field behind it or with none.
    let empty = (select(LENGTHS), any::<bool>())
        .prop_map(|(tag, with)| format!("{tag}=0\x01{}", if with { "96=\x01" } else { "" }).into_bytes());
    let whole = (select(LENGTHS), 1..=7usize, held).prop_map(|(tag, figures, held)| {
        let data = data_of(tag);
        [format!("{tag}={:0figures$}\x01{data}=", held.len()).as_bytes(), &held, b"\x01"].concat()
    });
    prop_oneof![4 => whole, 1 => empty]
}

fn comp_id() -> impl Strategy<Value = String> {
    let value =
        prop_oneof![select(&DECLARED[..]).prop_map(str::to_owned), "[ -<>-~]{0,40}", Just("Z".repeat(29))];
    (select(&identity::TAGS[..]), value).prop_map(|(tag, value)| format!("{tag}={value}\x01"))
}

/// Fields of every kind that is looked for, of kinds that are not, and such as look alike.
fn some_fields() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["58=[ -~]{0,90}\x01", "[1-9][0-9]{0,4}=[ -~]{0,12}\x01"].prop_filter(
        "a length of what is not there",
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
    vec(one, 0..9).prop_map(|fields| fields.concat()).prop_filter("a field of a report twice", |body| {
        let all = fields(body);
        [150, 39].iter().all(|tag| all.iter().filter(|(found, _)| found == tag).count() < 2)
    })
}

/// Type, fields, and the message as it is sent.
fn message() -> impl Strategy<Value = (String, Vec<u8>)> {
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

fn sent(messages: &[(String, Vec<u8>)]) -> Vec<u8> {
    let one = |(place, (msg_type, body)): (usize, &(String, Vec<u8>))| {
        let begin = if place % 2 == 0 { "FIX.4.4" } else { "FIXT.1.1" };
        build(begin, 1 + place % 7, msg_type, body)
    };
    messages.iter().enumerate().flat_map(one).collect()
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        vec(1..8usize, 1..20),
        vec(1..60usize, 1..20),
        vec(1..400usize, 1..9),
        Just(vec![1 << 16])
    ]
}

/// What may be looked for in every message that goes out.
fn any_wants() -> impl Strategy<Value = u32> {
    select(&[0, want::IDENTITY, want::IDENTITY | want::OWNER][..])
}

/// What is not looked for is not found.
fn asked(any: u32, found: Found) -> Found {
    if any & want::IDENTITY == 0 { Found { ids: [0; 4], ..found } } else { found }
}

proptest! {
    #[test]
    fn any_cutting_of_what_goes_out_gives_what_the_reference_finds(
        messages in vec(message(), 1..7), sizes in sizes(), any in any_wants(),
    ) {
        let bytes = sent(&messages);
        let found = walked(Way::Out(any), &bytes, &cuts(bytes.len(), &sizes));
        prop_assert_eq!(found, (asked(any, reference_out(&messages)), 0));
    }

    #[test]
    fn any_cutting_of_what_comes_in_gives_what_the_reference_finds(messages in vec(message(), 1..7), sizes in sizes()) {
        let bytes = sent(&messages);
        let found = walked(Way::In, &bytes, &cuts(bytes.len(), &sizes));
        prop_assert_eq!(found, (reference_in(&messages), 0));
    }

    #[test]
    fn a_cut_anywhere_changes_nothing(messages in vec(message(), 1..3), any in any_wants()) {
        let bytes = sent(&messages);
        for cut in 1..bytes.len() {
            prop_assert_eq!(walked(Way::Out(any), &bytes, &[cut]), (asked(any, reference_out(&messages)), 0));
            prop_assert_eq!(walked(Way::In, &bytes, &[cut]), (reference_in(&messages), 0));
        }
    }

    #[test]
    fn a_gap_counts_each_message_once_whether_it_is_filled_or_not(
        messages in vec(message(), 1..4), gap in any::<(prop::sample::Index, prop::sample::Index)>(), fill in any::<bool>(),
        any in any_wants(),
    ) {
        let bytes = sent(&messages);
        let (a, b) = (gap.0.index(bytes.len()), gap.1.index(bytes.len()));
        let (from, to) = (a.min(b), a.max(b));
        let starts: Vec<_> = (0..messages.len()).map(|count| sent(&messages[..count]).len()).collect();
        let lookalike = (to..bytes.len()).any(|at| bytes[at..].starts_with(b"8=FIX") && !starts.contains(&at));
        prop_assume!(!lookalike, "a data field that looks like a message would be taken for one");
        let (mut stream, mut counts) = (Inbound::at(0), SegmentCounts::default());
        let way = Way::Out(any);
        show(&mut stream, way, 0, &bytes[..from], &mut counts);
        show(&mut stream, way, to as u32, &bytes[to..], &mut counts);
        if fill {
            show(&mut stream, way, from as u32, &bytes[from..to], &mut counts);
        }
        let total = counts.total() as usize;
        prop_assert!(total <= messages.len(), "{} messages of {}", total, messages.len());
        prop_assert!(total == messages.len() || counts.desyncs != 0, "{} messages of {}", total, messages.len());
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
        let way = if outward { Way::Out(any) } else { Way::In };
        let (mut stream, mut counts, mut at) = (Inbound::at(0), SegmentCounts::default(), 0u32);
        for (offset, bytes) in &segments {
            show(&mut stream, way, at.wrapping_add(*offset).wrapping_sub(100), bytes, &mut counts);
            at = stream.next_seq;
            show(&mut stream, way, at, bytes, &mut counts);
            at = stream.next_seq;
        }
    }
}

/// One message, by its type and its fields, `|` for SOH.
fn one(msg_type: &str, fields: &str) -> (String, Vec<u8>) {
    (msg_type.to_owned(), fields.replace('|', "\x01").into_bytes())
}

/// What the walk finds of one message, wherever that is cut in two.
fn always(way: Way, message: &(String, Vec<u8>)) -> Found {
    let bytes = sent(std::slice::from_ref(message));
    let (whole, lost) = walked(way, &bytes, &[]);
    assert_eq!(lost, 0);
    (1..bytes.len())
        .for_each(|cut| assert_eq!(walked(way, &bytes, &[cut]), (whole.clone(), 0), "cut at {cut}"));
    whole
}

#[test]
fn a_mass_action_that_cancels_is_no_replay() {
    for any in [0, want::IDENTITY | want::OWNER] {
        for (fields, class, replays) in [
            ("43=Y|1373=1|", Class::Cancel, 0),
            ("1373=3|43=Y|", Class::Cancel, 0),
            ("43=Y|1373=2|", Class::Order, 1),
            ("1373=2|43=Y|", Class::Order, 1),
            ("43=Y|11=x|", Class::Order, 1),
            ("43=N|1373=2|43=Y|", Class::Order, 0),
        ] {
            let found = always(Way::Out(any), &one("CA", fields));
            assert_eq!((found.messages[class as usize], found.replays), (1, replays), "{fields}");
        }
    }
}

#[test]
fn of_a_message_whose_owner_is_asked_nothing_is_told_before_its_end() {
    for (msg_type, fields) in
        [("D", "43=Y|49=FIRM|11=x|"), ("CA", "43=Y|49=FIRM|1373=2|11=x|"), ("A", "49=FIRM|")]
    {
        let bytes = sent(&[one(msg_type, fields)]);
        let way = Way::Out(want::IDENTITY | want::OWNER);
        let (mut stream, mut counts) = (Inbound::at(0), SegmentCounts::default());
        show(&mut stream, way, 0, &bytes[..bytes.len() - 1], &mut counts);
        assert_eq!((counts.total(), counts.replays, counts.identity_complete), (0, 0, 0), "{msg_type}");
        show(&mut stream, way, bytes.len() as u32 - 1, &bytes[bytes.len() - 1..], &mut counts);
        assert_eq!(
            (counts.total(), counts.replays, counts.identity_complete),
            (1, u32::from(msg_type != "A"), 1),
            "{msg_type}"
        );
    }
}

#[test]
fn a_value_of_28_bytes_is_read_whole_and_a_longer_one_is_nobodys() {
    let longest = DECLARED[4];
    assert_eq!(longest.len(), 28);
    for (place, tag) in identity::TAGS.into_iter().enumerate() {
        let id = |value: &str| {
            always(Way::Out(want::IDENTITY), &one("A", &format!("98=0|{tag}={value}|108=30|"))).ids[place]
        };
        assert_eq!(id(longest), identity::FIRST + 4);
        assert_eq!(id(&format!("{longest}2")), identity::UNKNOWN);
        assert_eq!(id(&longest.repeat(9)), identity::UNKNOWN);
        assert_eq!(
            (id("FIRM"), id("FIRM "), id("")),
            (identity::FIRST, identity::UNKNOWN, identity::UNKNOWN)
        );
    }
}

#[test]
fn only_the_first_message_is_asked_who_sent_it() {
    let messages = [one("A", "49=FIRM|56=VENUE|"), one("D", "49=A|50=DESK7|43=Y|")];
    let bytes = sent(&messages);
    for cut in 1..bytes.len() {
        let (found, _) = walked(Way::Out(want::IDENTITY | want::OWNER), &bytes, &[cut]);
        assert_eq!((found.ids, found.replays), ([2, 3, 0, 0], 1), "cut at {cut}");
    }
}

#[test]
fn a_report_is_what_both_of_its_fields_make_of_it() {
    for (fields, kind) in [
        ("150=F|39=1|", InboundClass::Fill),
        ("39=2|150=F|", InboundClass::Fill),
        ("150=2|39=2|", InboundClass::Fill),
        ("39=1|", InboundClass::Fill),
        ("150=8|39=8|", InboundClass::Reject),
        ("39=8|150=0|", InboundClass::Reject),
        ("150=8|", InboundClass::Reject),
        ("150=0|39=0|", InboundClass::Other),
        ("150=0|39=2|", InboundClass::Other),
        ("", InboundClass::Other),
        ("354=8|355=x|39=8|x|150=0|39=0|", InboundClass::Other),
        ("58=39=8|150=0|39=0|", InboundClass::Other),
    ] {
        let found = always(Way::In, &one("8", fields));
        assert_eq!(found.messages[kind as usize], 1, "{fields}");
    }
}

// The dictionaries.

/// Numbers of the fields that give a length, and of the data behind them.
fn list() -> BTreeMap<u32, Option<u32>> {
    let line = |line: &'static str| {
        let [number, _, data, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("four words: {line}")
        };
        (number.parse().expect("a number"), data.parse().ok())
    };
    LIST.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// The number of the data field whose length this one gives.
fn data_of(length: u32) -> u32 {
    list().get(&length).copied().flatten().expect("a length of data")
}

#[test]
fn lengths_of_data_are_those_of_the_dictionaries() {
    let listed: BTreeSet<_> = list().into_iter().filter_map(|(number, data)| data.map(|_| number)).collect();
    assert_eq!(LENGTHS.iter().copied().collect::<BTreeSet<_>>(), listed);
    assert_eq!(LENGTHS.len(), listed.len(), "one is there twice");
    // What no data follow would take the next field for its own.
    let others: Vec<_> =
        list().into_iter().filter_map(|(number, data)| data.is_none().then_some(number)).collect();
    assert_eq!(others, [9, 383]);
}

/// The names that a macro of this name defines in a header.
fn defined<'a>(header: &'a str, name: &str) -> BTreeSet<&'a str> {
    let of = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix('(')?.strip_suffix(");");
    header.lines().filter_map(of).collect()
}

#[test]
fn the_list_of_lengths_is_that_of_the_headers() {
    if !Path::new(HEADERS).exists() {
        // Past the capture of the test's output: a skip is to be seen.
        writeln!(std::io::stderr(), "skipped: no FIX dictionaries in {HEADERS} (Debian: libquickfix-dev)")
            .expect("stderr");
        return;
    }
    let read = |name: &str| fs::read_to_string(Path::new(HEADERS).join(name)).expect("a header");
    let (kinds, numbers) = (read("FixFields.h"), read("FixFieldNumbers.h"));
    let number = |name: &str| -> u32 {
        let start = format!("const int {name} = ");
        let found = numbers.lines().find_map(|line| line.trim().strip_prefix(&start)?.strip_suffix(';'));
        found.expect("a number").parse().expect("digits")
    };
    let mut unpaired = &defined(&kinds, "DEFINE_DATA") | &defined(&kinds, "DEFINE_XMLDATA");
    let mut lengths: Vec<_> =
        defined(&kinds, "DEFINE_LENGTH").into_iter().map(|name| (number(name), name)).collect();
    lengths.sort_unstable();
    let mut list = format!(
        "# Lengths in the FIX dictionaries and the data they are of, by the headers in {HEADERS}: {RENEW}=1 cargo test -p breaker-common --test fields\n"
    );
    for (place, name) in lengths {
        // The data field is named like its length, without that.
        let data = ["Length", "Len"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|data| unpaired.remove(data));
        match data {
            Some(data) => writeln!(list, "{place} {name} {} {data}", number(data)),
            None => writeln!(list, "{place} {name} - -"),
        }
        .expect("a string takes all");
    }
    assert!(unpaired.is_empty(), "data without a length: {unpaired:?}");
    if env::var_os(RENEW).is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lengths.txt");
        fs::write(&path, list).expect("writing the list");
    } else {
        assert_eq!(LIST, list, "renew it by {RENEW}=1");
    }
}
