//! MsgType(35) → message class: what a message does to the risk of the firm.
//!
//! Types and names are those of the FIX dictionaries 4.0 to 5.0SP2; the table is tested against them.

use crate::fields::want;
use crate::fix::MsgType;
use crate::stream::MessageKind;

/// What a message does to the risk of the firm that sends it. The codes index counters and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Adds risk: new orders, replacements, and every type that no dictionary knows.
    Order = 0,
    /// Reduces risk: cancels.
    Cancel = 1,
    /// Shows an interest that a counterparty may take up.
    Interest = 2,
    /// Asks or reports.
    Query = 3,
    /// Session level: logon, heartbeat, resend.
    Admin = 4,
}

impl Class {
    /// All classes, by code.
    pub const ALL: [Self; 5] = [Self::Order, Self::Cancel, Self::Interest, Self::Query, Self::Admin];

    /// The class with this code; anything else is an order, as an unknown type is.
    pub const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Cancel,
            2 => Self::Interest,
            3 => Self::Query,
            4 => Self::Admin,
            _ => Self::Order,
        }
    }

    /// The name in the configuration, the metrics and the events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Cancel => "cancel",
            Self::Interest => "interest",
            Self::Query => "query",
            Self::Admin => "admin",
        }
    }
}

/// Which messages a limit counts. The codes are those of `Limit::class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LimitClass {
    /// Class order.
    Order = 0,
    /// Class cancel.
    Cancel = 1,
    /// Every message of every class that goes out.
    Message = 2,
    /// Executions that come in: ExecutionReport (8) with ExecType(150)=F, before FIX 4.3 with 1 or 2.
    Fill = 3,
    /// Rejections that come in: MsgType 3, j or 9, and ExecutionReport (8) with OrdStatus(39)=8.
    Reject = 4,
}

impl LimitClass {
    /// All of them, by code.
    pub const ALL: [Self; 5] = [Self::Order, Self::Cancel, Self::Message, Self::Fill, Self::Reject];

    /// The name in the configuration, the metrics and the events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Cancel => "cancel",
            Self::Message => "message",
            Self::Fill => "fill",
            Self::Reject => "reject",
        }
    }
}

/// Declares the table once: for the kernel a comparison of packed types, for everyone else a list.
macro_rules! table {
    ($($class:ident: $($name:literal)+;)+) => {
        /// Every MsgType that has a class of its own; all others are orders.
        pub const TABLE: &[(&str, Class)] = &[$($(($name, Class::$class),)+)+];

        /// The class of a message of this type.
        #[inline(always)]
        pub const fn of(msg_type: MsgType) -> Class {
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

/// The class of a message whose type has one character: [`of`], from a table.
#[inline(always)]
pub fn of_single_char(msg_type: MsgType) -> Class {
    // All that have one are among these; the kernel's verifier is shown it.
    static CLASSES: [Class; 128] = {
        let mut classes = [Class::Order; 128];
        let mut byte = 1;
        while byte < 128 {
            classes[byte] = of(MsgType(byte as u64));
            byte += 1;
        }
        classes
    };
    if msg_type.0 < 128 { CLASSES[msg_type.0 as usize] } else { Class::Order }
}

/// OrderMassActionRequest: an order or a cancel, by MassActionType(1373).
pub const MASS_ACTION: MsgType = MsgType(packed("CA"));

/// What comes in. The codes follow those of [`Class`], as positions of `SegmentCounts::messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum InboundClass {
    /// ExecutionReport (8) of a fill: ExecType(150) is F, or 1 or 2 before FIX 4.3.
    Fill = 5,
    /// A reject: Reject (3), BusinessMessageReject (j), OrderCancelReject (9), or ExecutionReport with OrdStatus(39)=8.
    Reject = 6,
    /// Anything else.
    Other = 7,
}

impl InboundClass {
    /// All of them, by code.
    pub const ALL: [Self; 3] = [Self::Fill, Self::Reject, Self::Other];

    /// The name in the metrics and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Reject => "reject",
            Self::Other => "other",
        }
    }
}

/// All that goes out, of whatever class: behind those of [`Class`] and [`InboundClass`] in `SegmentCounts::messages`.
pub const TOTAL: usize = 8;

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
