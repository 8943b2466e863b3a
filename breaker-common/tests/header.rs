//! The header of a message in a chunk of 1 to 32 bytes: complete, partial or implausible.

mod messages;
#[path = "messages/versions.rs"]
mod versions;

use breaker_common::fix::{CHUNK, Header, MsgType, common_header, header};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use breaker_replay::model::chunk::chunk;
use messages::build;
use versions::VERSIONS;

fn read(bytes: &[u8]) -> Header {
    header(&chunk(bytes), bytes.len() as u32)
}

// The reference parser reads byte by byte.

/// Takes `pattern` off the front; `?` is any byte. `Err` is the result of the parser.
fn expect(rest: &mut &[u8], pattern: &str) -> Result<(), Header> {
    for wanted in pattern.bytes() {
        let (byte, behind) = rest.split_first().ok_or(Header::Partial)?;
        if wanted != b'?' && *byte != wanted {
            return Err(Header::Implausible);
        }
        *rest = behind;
    }
    Ok(())
}

/// Takes 1 to `max` bytes and the SOH behind them off the front.
fn value<'a>(rest: &mut &'a [u8], max: usize) -> Result<&'a [u8], Header> {
    match rest.iter().position(|byte| *byte == 1) {
        Some(length) if (1..=max).contains(&length) => {
            let value = &rest[..length];
            *rest = &rest[length + 1..];
            Ok(value)
        }
        None if rest.len() <= max => Err(Header::Partial),
        _ => Err(Header::Implausible),
    }
}

fn message(bytes: &[u8]) -> Result<Header, Header> {
    let mut rest = bytes;
    // BeginString, by its sixth, seventh and tenth byte.
    match (bytes.get(5), bytes.get(6), bytes.get(9)) {
        (Some(b'T'), ..) => expect(&mut rest, "8=FIXT.1.?\x019=")?,
        (_, Some(b'5'), Some(b'S')) => expect(&mut rest, "8=FIX.5.0SP?\x019=")?,
        (_, Some(b'5'), _) => expect(&mut rest, "8=FIX.5.0\x019=")?,
        _ => expect(&mut rest, "8=FIX.4.?\x019=")?,
    }
    let zeros = rest.iter().take_while(|byte| **byte == b'0').count();
    rest = &rest[zeros..];
    let digits = value(&mut rest, 7)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Header::Implausible);
    }
    let body = digits.iter().fold(0, |number, digit| 10 * number + (digit - b'0') as usize);
    let before_body = bytes.len() - rest.len();
    expect(&mut rest, "35=")?;
    // The first eight bytes of a type are enough.
    let seen = &rest[..rest.len().min(8)];
    let msg_type = match seen.iter().position(|byte| *byte == 1) {
        Some(0) => return Err(Header::Implausible),
        Some(length) => &seen[..length],
        None if seen.len() < 8 => return Err(Header::Partial),
        None => seen,
    };
    if body < "35=".len() + msg_type.len() + 1 {
        return Err(Header::Implausible);
    }
    let packed = msg_type.iter().rev().fold(0, |packed, byte| packed << 8 | *byte as u64);
    let length = before_body + body + "10=nnn|".len();
    let fields = before_body + "35=".len() + msg_type.len() + usize::from(msg_type.len() < 8);
    Ok(Header::Message { msg_type: MsgType(packed), length: length as u32, body_offset: fields as u32 })
}

fn reference(bytes: &[u8]) -> Header {
    match message(bytes).unwrap_or_else(|found| found) {
        // A header longer than a chunk is implausible.
        Header::Partial if bytes.len() == CHUNK => Header::Implausible,
        found => found,
    }
}

#[test]
fn a_valid_header_is_partial_until_it_is_whole_and_a_message_from_then_on() {
    for version in VERSIONS {
        for digits in 1..=7 {
            for type_length in 1..=12 {
                let msg_type = &"DXYZabcdefgh"[..type_length];
                let bytes = build(version, digits, msg_type, b"58=some text\x01");
                let digits = digits.max(2);
                let whole = 2 + version.len() + 1 + 2 + digits + 1 + 3 + (type_length + 1).min(8);
                for available in 1..=CHUNK.min(bytes.len()) {
                    let expected = if available < whole && available == CHUNK {
                        Header::Implausible
                    } else if available < whole {
                        Header::Partial
                    } else {
                        let msg_type = MsgType::new(&msg_type[..type_length.min(8)]).expect("1 to 8 bytes");
                        let fields = 2
                            + version.len()
                            + 1
                            + 2
                            + digits
                            + 1
                            + 3
                            + type_length.min(8)
                            + usize::from(type_length < 8);
                        Header::Message { msg_type, length: bytes.len() as u32, body_offset: fields as u32 }
                    };
                    let found = read(&bytes[..available]);
                    assert_eq!(
                        found, expected,
                        "{version}, {digits} digits, type {msg_type}, {available} bytes"
                    );
                }
            }
        }
    }
}

#[test]
fn the_length_is_read_digit_by_digit() {
    for length in [5, 9, 10, 99, 100, 1_234, 56_789, 100_000, 987_654, 1_000_000, 9_999_999u32] {
        for width in 1..=7 {
            let digits = format!("{length:0width$}");
            let bytes = format!("8=FIX.4.2\x019={digits}\x0135=D\x0149=ABCDEF");
            let whole = 12 + digits.len() as u32 + 1 + length + 7;
            assert_eq!(
                read(&bytes.as_bytes()[..CHUNK.min(bytes.len())]),
                Header::Message { msg_type: MsgType(68), length: whole, body_offset: whole - 7 - length + 5 }
            );
        }
    }
}

#[test]
fn what_cannot_begin_a_message_is_implausible() {
    for text in [
        "x",
        "9",
        "8=FIX.6",
        "8=FIX.5.1",
        "8=FIX.5.0SX",
        "8=FIX.5.0SP22",
        "8=FIX,4.4",
        "8=fix.4.4",
        "8=FIXT.2",
        "8=FIXT.1,1",
        "8=FIX.4.44",
        "8=FIX.4.4\x018",
        "8=FIX.4.4\x019:",
        "8=FIXT.1.1\x0110",
        "8=FIXT.1.11",
        // BodyLength: none, eight digits, no digits.
        "8=FIX.4.4\x019=\x01",
        "8=FIX.4.4\x019=12345678",
        "8=FIX.4.4\x019=00000000\x0135=D\x01",
        "8=FIX.4.4\x019=00000000000000000000",
        "8=FIXT.1.1\x019=12345678",
        "8=FIX.4.4\x019=1a\x01",
        "8=FIX.4.4\x019=-1\x01",
        "8=FIX.4.4\x019= 12\x01",
        "8=FIX.4.4\x019=1:\x01",
        "8=FIX.4.4\x019=/1\x01",
        // MsgType: not next, empty, longer than the body says.
        "8=FIX.4.4\x019=12\x0149",
        "8=FIX.4.4\x019=12\x0134",
        "8=FIX.4.4\x019=12\x0135:",
        "8=FIX.4.4\x019=12\x0135=\x01",
        "8=FIX.4.4\x019=4\x0135=D\x01",
        "8=FIX.4.4\x019=0\x0135=D\x01",
        "8=FIX.4.4\x019=5\x0135=AB\x01",
        "8=FIX.4.4\x019=11\x0135=ABCDEFGH",
    ] {
        assert_eq!(read(text.as_bytes()), Header::Implausible, "{text:?}");
    }
}

#[test]
fn what_may_still_become_a_message_is_partial() {
    for text in [
        "8",
        "8=FIX",
        "8=FIX.",
        "8=FIXT",
        "8=FIX.4.",
        "8=FIX.4.4",
        "8=FIXT.1.1",
        "8=FIXT.1.1\x019",
        "8=FIX.4.4\x019=",
        "8=FIX.4.4\x019=0000012",
        "8=FIX.4.4\x019=000000000000012",
        "8=FIX.5.0",
        "8=FIX.5.0SP2",
        "8=FIX.4.4\x019=12\x01",
        "8=FIX.4.4\x019=12\x013",
        "8=FIX.4.4\x019=12\x0135=",
        "8=FIX.4.4\x019=12\x0135=D",
        "8=FIX.4.4\x019=12\x0135=ABCDEFG",
    ] {
        assert_eq!(read(text.as_bytes()), Header::Partial, "{text:?}");
    }
}

/// Generates the start of a valid message with up to two mutations.
fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![0..20u32, 0..10_000_000u32];
    let valid = (select(&VERSIONS[..]), 1..9usize, lengths, "[0-9A-Za-z]{1,10}").prop_map(
        |(version, digits, length, msg_type)| {
            format!("8={version}\x019={length:0digits$}\x0135={msg_type}\x0149=SENDER\x0156=TARGET\x01")
                .into_bytes()
        },
    );
    let byte = prop_oneof![select(b"\x01\x00\xff=.0189:/358DFT".as_slice()), any::<u8>()];
    (valid, vec((any::<Index>(), byte, 0..3u8), 0..3)).prop_map(|(mut bytes, mutations)| {
        for (at, byte, how) in mutations {
            let at = at.index(CHUNK);
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes.truncate(CHUNK);
        bytes
    })
}

/// Returns true if a whole chunk has a common header, and compares the header with the reference.
fn is_common(bytes: &[u8]) -> bool {
    let found = common_header(&chunk(bytes));
    if let Some((msg_type, length)) = found {
        let Header::Message { msg_type: expected, length: whole, .. } = reference(bytes) else {
            panic!("{bytes:?} is no message")
        };
        assert_eq!((msg_type, length), (expected, whole), "{bytes:?}");
    }
    found.is_some()
}

#[test]
fn lengths_of_two_to_four_digits_and_types_of_one_character_are_common() {
    for version in VERSIONS {
        for (digits, msg_type) in
            (1..=7).flat_map(|digits| ["D", "8", "0", "AE", "ABCDEFGH"].map(|msg_type| (digits, msg_type)))
        {
            let bytes = build(version, digits, msg_type, b"58=some text\x01");
            let expected =
                !version.starts_with("FIX.5") && (2..=4).contains(&digits.max(2)) && msg_type.len() == 1;
            assert_eq!(is_common(&bytes[..CHUNK]), expected, "{version}, {digits} digits, type {msg_type}");
        }
    }
    assert!(!is_common(b"8=FIX.4.4\x019=04\x0135=D\x0149=ABCDEFGH\x01"), "the type is longer than the body");
    assert!(!is_common(b"8=FIX.4.4\x019=12\x0135=\x01\x0149=ABCDEFG\x01"), "no type");
}

const STARTS: &[&str] =
    &["", "8=FIX.4.", "8=FIXT.1.1\x019=", "8=FIX.4.4\x019=1", "8=FIX.4.4\x019=123\x0135="];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn nearly_valid_chunks_read_as_the_reference_reads_them(bytes in nearly_valid()) {
        for available in 1..=bytes.len() {
            prop_assert_eq!(read(&bytes[..available]), reference(&bytes[..available]), "{} bytes", available);
        }
        if bytes.len() == CHUNK {
            is_common(&bytes);
        }
    }

    #[test]
    fn any_chunk_reads_as_the_reference_reads_it(
        start in select(STARTS),
        tail in vec(prop_oneof![any::<u8>(), select(b"\x0189=.135D".as_slice())], 1..=CHUNK),
    ) {
        let mut bytes = [start.as_bytes(), &tail].concat();
        bytes.truncate(CHUNK);
        prop_assert_eq!(read(&bytes), reference(&bytes));
        if bytes.len() == CHUNK {
            is_common(&bytes);
        }
    }

    #[test]
    fn more_bytes_never_take_back_what_fewer_told(bytes in nearly_valid()) {
        let mut before = Header::Partial;
        for available in 1..=bytes.len() {
            let now = read(&bytes[..available]);
            let kept = before == Header::Partial || before == now;
            prop_assert!(kept, "{:?} became {:?} at {} bytes", before, now, available);
            before = now;
        }
    }
}
