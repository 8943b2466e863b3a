//! Classification of messages: MsgType(35) to class.
//!
//! The MsgTypes are those of the FIX dictionaries 4.0 to 5.0SP2. A test compares the table with the
//! dictionaries.

use crate::abi::{OVERRIDES_PER_SESSION, Session};
use crate::fix::MsgType;
use crate::message::{Class, InboundClass, MessageKind, want};

/// Declares the table once and expands it twice: as comparisons of packed types for the kernel, and as a
/// list.
macro_rules! table {
    ($($class:ident: $($name:literal)+;)+) => {
        /// Every MsgType with a listed class. All other types are orders.
        pub const TABLE: &[(&str, Class)] = &[$($(($name, Class::$class),)+)+];

        /// Returns the class of a MsgType that the session does not override.
        #[inline(always)]
        pub const fn default_class(msg_type: MsgType) -> Class {
            $(if $(msg_type.0 == const { packed($name) })||+ {
                return Class::$class;
            })+
            Class::Order
        }
    };
}

/// Packs a MsgType of the table.
const fn packed(name: &str) -> u64 {
    match MsgType::new(name) {
        Some(msg_type) => msg_type.0,
        None => panic!("a MsgType of the table has 1 to 8 bytes"),
    }
}

table! {
    // OrderMassActionRequest (CA) is an order or a cancel, see `MASS_ACTION`.
    // XML_non_FIX (n) may carry any application message, orders among them, in XmlData(213).
    Order: "D" "E" "G" "L" "S" "i" "s" "t" "n" "AB" "AC" "AJ" "CA" "DJ";
    Cancel: "F" "K" "Z" "q" "u";
    Interest: "R" "AH" "DS" "k" "6" "AE";
    Query: "H" "AF" "a" "c" "V" "e" "g" "x" "AD" "AN" "BE"
        "7" "8" "9" "B" "C" "J" "M" "N" "P" "Q" "T" "W" "X" "Y"
        "b" "d" "f" "h" "j" "l" "m" "o" "p" "r" "v" "w" "y" "z"
        "AA" "AG" "AI" "AK" "AL" "AM" "AO" "AP" "AQ" "AR" "AS" "AT" "AU" "AV" "AW" "AX" "AY" "AZ"
        "BA" "BB" "BC" "BD" "BF" "BG" "BH" "BI" "BJ" "BK" "BL" "BM" "BN" "BO" "BP" "BQ"
        "BR" "BS" "BT" "BU" "BV" "BW" "BX" "BY" "BZ"
        "CB" "CC" "CD" "CE";
    Admin: "0" "1" "2" "3" "4" "5" "A";
}

/// Returns [`default_class`] of a MsgType of one character, from an array.
#[inline(always)]
pub fn single_char_class(msg_type: MsgType) -> Class {
    static CLASSES: [Class; 128] = {
        let mut classes = [Class::Order; 128];
        let mut byte = 1;
        while byte < 128 {
            classes[byte] = default_class(MsgType(byte as u64));
            byte += 1;
        }
        classes
    };
    if msg_type.0 < 128 { CLASSES[msg_type.0 as usize] } else { Class::Order }
}

/// OrderMassActionRequest. MassActionType(1373) decides whether the message is an order or a cancel.
pub const MASS_ACTION: MsgType = MsgType(packed("CA"));

/// Returns the kind of an inbound message.
#[inline(always)]
pub fn inbound_kind(msg_type: MsgType) -> MessageKind {
    const REPORT: u64 = packed("8");
    const REJECTS: [u64; 3] = [packed("3"), packed("j"), packed("9")];
    match msg_type.0 {
        REPORT => MessageKind { class: InboundClass::Other as usize, want: want::REPORT },
        other if other == REJECTS[0] || other == REJECTS[1] || other == REJECTS[2] => {
            MessageKind { class: InboundClass::Reject as usize, want: 0 }
        }
        _ => MessageKind { class: InboundClass::Other as usize, want: 0 },
    }
}

/// Returns the class of a MsgType in a session, and true if the session overrides the default class.
#[inline(always)]
pub fn session_class(session: &Session, msg_type: MsgType) -> (Class, bool) {
    match override_of(session, msg_type) {
        Some(code) => (Class::from_code(code), true),
        None => (default_class(msg_type), false),
    }
}

/// Returns the kind of an outbound message with this class, as from [`session_class`].
///
/// `any` and `orders` are [`want`] bits for all messages and for orders.
#[inline(always)]
pub fn outbound_kind(
    msg_type: MsgType,
    (class, overridden): (Class, bool),
    any: u32,
    orders: u32,
) -> MessageKind {
    let mut want = any;
    if matches!(class, Class::Order) {
        want |= orders;
        if !overridden && msg_type.0 == MASS_ACTION.0 {
            want |= want::ACTION;
        }
    }
    MessageKind { class: class as usize, want }
}

/// Returns the class code with which the session overrides the class of this MsgType.
fn override_of(session: &Session, msg_type: MsgType) -> Option<u64> {
    let mut i = 0;
    while i < OVERRIDES_PER_SESSION {
        if i as u32 >= session.override_count {
            return None;
        }
        if session.overrides[i].msg_type == msg_type.0 {
            return Some(session.overrides[i].class);
        }
        i += 1;
    }
    None
}
