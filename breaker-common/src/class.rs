//! MsgType(35) → message class: what a message does to the risk of the firm.
//!
//! Types and names are those of the FIX dictionaries 4.0 to 5.0SP2; the table is tested against them.

use crate::abi::{OVERRIDES_PER_SESSION, Session};
use crate::fix::MsgType;
use crate::message::{Class, InboundClass, MessageKind, want};

/// Declares the table once: for the kernel a comparison of packed types, for everyone else a list.
macro_rules! table {
    ($($class:ident: $($name:literal)+;)+) => {
        /// Every MsgType that has a class of its own; all others are orders.
        pub const TABLE: &[(&str, Class)] = &[$($(($name, Class::$class),)+)+];

        /// The class of a message of this type.
        #[inline(always)]
        pub const fn default_class(msg_type: MsgType) -> Class {
            $(if $(msg_type.0 == const { packed($name) })||+ {
                return Class::$class;
            })+
            Class::Order
        }
    };
}

/// A type of the table as [`MsgType`] packs it.
const fn packed(name: &str) -> u64 {
    match MsgType::new(name) {
        Some(msg_type) => msg_type.0,
        None => panic!("a MsgType of the table has 1 to 8 bytes"),
    }
}

table! {
    // What OrderMassActionRequest (CA) asks for stands in its body ([`MASS_ACTION`]).
    // XML_non_FIX (n) may carry any application message, orders among them, in XmlData(213).
    Order: "D" "E" "G" "L" "S" "i" "s" "t" "n" "AB" "AC" "AJ" "CA" "DJ";
    Cancel: "F" "K" "Z" "q" "u";
    Interest: "R" "AH" "DS" "k" "6" "AE";
    Query: "H" "AF" "a" "c" "V" "e" "g" "x" "AD" "AN" "BE"
        "7" "8" "9" "B" "C" "J" "M" "N" "P" "Q" "T" "W" "X" "Y"
        "b" "d" "f" "h" "j" "l" "m" "o" "p" "r" "v" "w" "y" "z"
        "AA" "AG" "AI" "AK" "AL" "AM" "AO" "AP" "AQ" "AR" "AS" "AT" "AU" "AV" "AW" "AX" "AY" "AZ"
        "BA" "BB" "BC" "BD" "BF" "BG" "BH" "BI" "BJ" "BK" "BL" "BM" "BN" "BO" "BP" "BQ" "BR" "BS" "BT" "BU" "BV" "BW" "BX" "BY" "BZ"
        "CB" "CC" "CD" "CE";
    Admin: "0" "1" "2" "3" "4" "5" "A";
}

/// The class of a message whose type has one character: [`default_class`], from a table.
#[inline(always)]
pub fn single_char_class(msg_type: MsgType) -> Class {
    // All that have one are among these; the kernel's verifier is shown it.
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

/// OrderMassActionRequest: an order or a cancel, by MassActionType(1373).
pub const MASS_ACTION: MsgType = MsgType(packed("CA"));

/// What becomes of an incoming message of this type.
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

/// The class of a type in a session that has this many overrides, and whether it is the session's own opinion.
#[inline(always)]
pub fn session_class(session: &Session, msg_type: MsgType) -> (Class, bool) {
    match override_of(session, msg_type) {
        Some(code) => (Class::from_code(code), true),
        None => (default_class(msg_type), false),
    }
}

/// What becomes of an outgoing message of this type and class: `any` and `orders` are [`want`] bits for all and for orders.
#[inline(always)]
pub fn outbound_kind(msg_type: MsgType, (class, own): (Class, bool), any: u32, orders: u32) -> MessageKind {
    let mut want = any;
    if matches!(class, Class::Order) {
        want |= orders;
        if !own && msg_type.0 == MASS_ACTION.0 {
            want |= want::ACTION;
        }
    }
    MessageKind { class: class as usize, want }
}

/// The class code that the session gives to this type; `None` where it gives none.
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
