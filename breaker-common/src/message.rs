//! The classes of messages, and the fields that decide a class.

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

/// What becomes of a message whose header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKind {
    /// Its class: a position in `SegmentCounts::messages`.
    pub class: usize,
    /// What is looked for in its fields: [`want`] bits.
    pub want: u32,
}

/// What is looked for in a message: bits of `Framing::scan`.
pub mod want {
    /// Whether it is a possible duplicate: PossDupFlag(43).
    pub const POSSDUP: u32 = 1 << 0;
    /// What a mass action does: MassActionType(1373). Until that is known the message is not counted.
    pub const ACTION: u32 = 1 << 1;
    /// Who sends it to whom: CompIDs and SubIDs.
    pub const IDENTITY: u32 = 1 << 2;
    /// What an execution report reports: ExecType(150) and OrdStatus(39). Until that is known the message is not counted.
    pub const REPORT: u32 = 1 << 3;
    /// Whose it is, where its CompIDs must tell. Until that is known, at its end, the message is not counted.
    pub const OWNER: u32 = 1 << 4;
    /// All of them.
    pub const ALL: u32 = POSSDUP | ACTION | IDENTITY | REPORT | OWNER;
}
