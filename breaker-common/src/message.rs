//! Classes of messages, and the fields that decide a class.

/// Class of an outbound message: its effect on the risk of the sending firm.
///
/// The codes index counters and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Adds risk: new orders, replacements, and every MsgType that is in no dictionary.
    Order = 0,
    /// Reduces risk: cancels.
    Cancel = 1,
    /// Announces an interest that a counterparty may act on.
    Interest = 2,
    /// Requests or reports information.
    Query = 3,
    /// Session level: Logon, Heartbeat, ResendRequest.
    Admin = 4,
}

impl Class {
    /// All classes, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::Order, Self::Cancel, Self::Interest, Self::Query, Self::Admin];

    /// Returns the class with this code. An unknown code is an order, like an unknown MsgType.
    pub const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Cancel,
            2 => Self::Interest,
            3 => Self::Query,
            4 => Self::Admin,
            _ => Self::Order,
        }
    }

    /// Returns the name in the configuration, the metrics and the events.
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

/// Messages that a limit counts. The codes are those of [`crate::abi::Limit::class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LimitClass {
    /// Messages of the class order.
    Order = 0,
    /// Messages of the class cancel.
    Cancel = 1,
    /// Outbound messages of all classes.
    Message = 2,
    /// Inbound fills: ExecutionReport (8) with ExecType(150)=F; before FIX 4.3 with 1 or 2.
    Fill = 3,
    /// Inbound rejects: MsgType 3, j or 9, and ExecutionReport (8) with OrdStatus(39)=8.
    Reject = 4,
}

impl LimitClass {
    /// All classes, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::Order, Self::Cancel, Self::Message, Self::Fill, Self::Reject];

    /// Returns the name in the configuration, the metrics and the events.
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

/// Class of an inbound message.
///
/// The codes continue those of [`Class`]: both index [`crate::counts::SegmentCounts::messages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum InboundClass {
    /// A fill: ExecutionReport (8) with ExecType(150)=F; before FIX 4.3 with 1 or 2.
    Fill = 5,
    /// A reject: Reject (3), BusinessMessageReject (j), OrderCancelReject (9), or ExecutionReport with
    /// OrdStatus(39)=8.
    Reject = 6,
    /// Any other message.
    Other = 7,
}

impl InboundClass {
    /// All classes, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Fill, Self::Reject, Self::Other];

    /// Returns the name in the metrics and in `status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Reject => "reject",
            Self::Other => "other",
        }
    }
}

/// Index of the total of all outbound messages in [`crate::counts::SegmentCounts::messages`].
pub const TOTAL: usize = 8;

/// Class of a message whose header was read, and the fields to find in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKind {
    /// Class: an index in [`crate::counts::SegmentCounts::messages`].
    pub class: usize,
    /// Fields to find: [`want`] bits.
    pub want: u32,
}

/// Fields to find in a message: bits of [`crate::abi::Framing::field_state`].
pub mod want {
    /// PossDupFlag(43): the message is a possible duplicate.
    pub const POSSDUP: u32 = 1 << 0;
    /// MassActionType(1373): the message adds or reduces risk. The message is counted when the field is
    /// found.
    pub const ACTION: u32 = 1 << 1;
    /// CompIDs and SubIDs: the session of the message.
    pub const IDENTITY: u32 = 1 << 2;
    /// ExecType(150) and OrdStatus(39): the class of an execution report. The message is counted when both
    /// are found.
    pub const REPORT: u32 = 1 << 3;
    /// The CompIDs have to identify the session. The message is counted at its end.
    pub const OWNER: u32 = 1 << 4;
    /// All bits.
    pub const ALL: u32 = POSSDUP | ACTION | IDENTITY | REPORT | OWNER;
}
