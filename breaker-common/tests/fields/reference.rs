//! The reference: a reader of whole messages.

use breaker_common::abi::identity;
use breaker_common::class::TABLE;
use breaker_common::fields::LENGTHS;
use breaker_common::message::{Class, InboundClass};

/// Declared CompIDs. Their numbers start at [`identity::FIRST`].
pub const DECLARED: [&str; 5] = ["FIRM", "VENUE", "DESK7", "A", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-1"];
/// Returns the fields of a body: tag and value.
pub fn fields(body: &[u8]) -> Vec<(u32, Vec<u8>)> {
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

/// Findings in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Messages by class.
    pub messages: [u32; 8],
    /// Orders with PossDupFlag(43)=Y.
    pub replays: u32,
    /// Numbers of the CompIDs and SubIDs of the first message.
    pub comp_ids: [u32; 4],
}

fn first(fields: &[(u32, Vec<u8>)], tag: u32) -> Option<&[u8]> {
    fields.iter().find(|(found, _)| *found == tag).map(|(_, value)| &value[..])
}

/// Returns the number of a CompID.
fn number(value: &[u8]) -> u32 {
    let position = DECLARED.iter().position(|declared| declared.as_bytes() == value);
    position.map_or(identity::UNKNOWN, |at| identity::FIRST + at as u32)
}

/// Returns the class of a MsgType by the table.
fn listed(msg_type: &str) -> Class {
    TABLE.iter().find(|(name, _)| *name == msg_type).map_or(Class::Order, |(_, class)| *class)
}

/// Reads outbound messages, each given as MsgType and fields.
pub fn reference_out(messages: &[(String, Vec<u8>)]) -> Found {
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
        if let Some(position) = identity::TAGS.iter().position(|known| *known == tag)
            && found.comp_ids[position] == 0
        {
            found.comp_ids[position] = number(&value);
        }
    }
    found
}

/// Reads inbound messages, each given as MsgType and fields.
pub fn reference_in(messages: &[(String, Vec<u8>)]) -> Found {
    let mut found = Found::default();
    for (msg_type, body) in messages {
        let fields = fields(body);
        let first_byte = |tag| first(&fields, tag).and_then(|value| value.first()).copied();
        let kind = match &msg_type[..] {
            "3" | "j" | "9" => InboundClass::Reject,
            "8" => match (first_byte(150), first_byte(39)) {
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
