//! Single messages, cut at every position.

use breaker_common::abi::{Inbound, identity};
use breaker_common::counts::SegmentCounts;
use breaker_common::message::{Class, InboundClass, want};

use super::inspect::{Direction, process, walked};
use super::reference::{DECLARED, Found};
use super::streams::sent;

/// Returns a message as MsgType and fields, with `|` for SOH.
fn message(msg_type: &str, fields: &str) -> (String, Vec<u8>) {
    (msg_type.to_owned(), fields.replace('|', "\x01").into_bytes())
}

/// Returns the findings in one message, and asserts that a cut at any position gives the same.
fn found_at_any_cut(direction: Direction, message: &(String, Vec<u8>)) -> Found {
    let bytes = sent(std::slice::from_ref(message));
    let (whole, desyncs) = walked(direction, &bytes, &[]);
    assert_eq!(desyncs, 0);
    (1..bytes.len())
        .for_each(|cut| assert_eq!(walked(direction, &bytes, &[cut]), (whole.clone(), 0), "cut at {cut}"));
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
            let found = found_at_any_cut(Direction::Out(any), &message("CA", fields));
            assert_eq!((found.messages[class as usize], found.replays), (1, replays), "{fields}");
        }
    }
}

#[test]
fn an_identifying_message_counts_only_at_its_end() {
    for (msg_type, fields) in
        [("D", "43=Y|49=FIRM|11=x|"), ("CA", "43=Y|49=FIRM|1373=2|11=x|"), ("A", "49=FIRM|")]
    {
        let bytes = sent(&[message(msg_type, fields)]);
        let direction = Direction::Out(want::IDENTITY | want::OWNER);
        let (mut stream, mut counts) = (Inbound::at(0), SegmentCounts::default());
        process(&mut stream, direction, 0, &bytes[..bytes.len() - 1], &mut counts);
        assert_eq!((counts.total(), counts.replays, counts.identity_complete), (0, 0, 0), "{msg_type}");
        process(&mut stream, direction, bytes.len() as u32 - 1, &bytes[bytes.len() - 1..], &mut counts);
        assert_eq!(
            (counts.total(), counts.replays, counts.identity_complete),
            (1, u32::from(msg_type != "A"), 1),
            "{msg_type}"
        );
    }
}

#[test]
fn a_value_of_28_bytes_is_read_whole_and_a_longer_one_is_unknown() {
    let longest = DECLARED[4];
    assert_eq!(longest.len(), 28);
    for (position, tag) in identity::TAGS.into_iter().enumerate() {
        let id = |value: &str| {
            found_at_any_cut(
                Direction::Out(want::IDENTITY),
                &message("A", &format!("98=0|{tag}={value}|108=30|")),
            )
            .comp_ids[position]
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
fn only_the_first_message_identifies_the_session() {
    let messages = [message("A", "49=FIRM|56=VENUE|"), message("D", "49=A|50=DESK7|43=Y|")];
    let bytes = sent(&messages);
    for cut in 1..bytes.len() {
        let (found, _) = walked(Direction::Out(want::IDENTITY | want::OWNER), &bytes, &[cut]);
        assert_eq!((found.comp_ids, found.replays), ([2, 3, 0, 0], 1), "cut at {cut}");
    }
}

#[test]
fn a_report_is_classified_by_both_of_its_fields() {
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
        let found = found_at_any_cut(Direction::In, &message("8", fields));
        assert_eq!(found.messages[kind as usize], 1, "{fields}");
    }
}
