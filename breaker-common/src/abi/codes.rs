//! Codes and bits with their names. They are never renumbered.

/// Why a scope is tripped: a bit each, each cleared by `reset` alone.
pub mod cause {
    /// A person threw the switch.
    pub const MANUAL: u64 = 1 << 0;
    /// A limit was passed.
    pub const RATE: u64 = 1 << 1;
    /// The agent's heartbeat is too old.
    pub const DEADMAN: u64 = 1 << 2;
    /// A stream could not be followed, and the policy says to trip then.
    pub const DESYNC: u64 = 1 << 3;
    /// An order with PossDupFlag(43)=Y after a trip.
    pub const REPLAY: u64 = 1 << 4;
    /// FIX to a place that no session declares, and the policy says to block it.
    pub const UNDECLARED: u64 = 1 << 5;
    /// Another host of the fleet tripped.
    pub const FLEET: u64 = 1 << 6;
    /// Every cause with the name it has in the CLI, the metrics and the events.
    pub const NAMES: [(u64, &str); 7] = [
        (MANUAL, "manual"),
        (RATE, "rate"),
        (DEADMAN, "deadman"),
        (DESYNC, "desync"),
        (REPLAY, "replay"),
        (UNDECLARED, "undeclared"),
        (FLEET, "fleet"),
    ];
}

/// Yes/no settings, as bits of `Policy::flags` and `Session::flags`.
pub mod flag {
    /// Withheld segments vanish; otherwise they become a reset for both ends.
    pub const DROP: u32 = 1 << 0;
    /// A stream that cannot be followed trips its session.
    pub const DESYNC_TRIPS: u32 = 1 << 1;
    /// Each payload segment counts as one order: nothing in it is read.
    pub const OPAQUE: u32 = 1 << 2;
    /// A connection that finds no room in the table passes uncounted; otherwise it is withheld.
    pub const PASS_WHEN_FULL: u32 = 1 << 3;
    /// Orders with PossDupFlag(43)=Y pass even after a trip.
    pub const REPLAYS_PASS: u32 = 1 << 4;
    /// An agent that falls silent trips the host; otherwise it is only told of.
    pub const HEARTBEAT_LOSS_TRIPS: u32 = 1 << 5;
    /// The policy minds the agent's silence: a session's messages are to ask after it.
    pub const WATCHES_HEARTBEAT: u32 = 1 << 6;
    /// Bytes that cannot be read are told and not counted; otherwise they count as orders ([`crate::blind`]).
    pub const BLIND_UNCOUNTED: u32 = 1 << 7;
    /// Only sockets of the account [`super::Session::uid`] are the session's.
    pub const MATCH_UID: u32 = 1 << 8;
}

/// What may pass on a new connection of a tripped scope: values of `Session::while_tripped`.
pub mod while_tripped {
    /// Messages that add no risk: classes admin, query and cancel.
    pub const REDUCE_ONLY: u32 = 0;
    /// Class admin.
    pub const ADMIN_ONLY: u32 = 1;
    /// Nothing, the SYN included.
    pub const ISOLATE: u32 = 2;
}

/// What happens to FIX sent to a place that no session declares: values of `Meta::undeclared`.
pub mod undeclared {
    /// Nothing: it is not looked at.
    pub const IGNORE: u32 = 0;
    /// It counts, for the pseudo-session and for the host's limits.
    pub const WATCH: u32 = 1;
    /// Its connection is fenced at its first FIX byte.
    pub const BLOCK: u32 = 2;
}

/// In which direction packets pass the program that decides: values of `Meta::mode`.
pub mod mode {
    /// Outward from the trading host itself: tc egress.
    pub const EGRESS: u32 = 0;
    /// Inward from a trading host into a gateway: XDP.
    pub const INLINE: u32 = 1;
}

/// How a program hangs on an interface: values of `Interface::hook`.
pub mod hook {
    /// tcx egress, by a pinned link (Linux 6.6 and newer).
    pub const TCX: u32 = 1;
    /// A filter of the clsact qdisc's egress.
    pub const CLSACT: u32 = 2;
    /// XDP in the driver, by a pinned link.
    pub const XDP_NATIVE: u32 = 3;
    /// XDP in the stack, by a pinned link.
    pub const XDP_GENERIC: u32 = 4;
}

/// What a scope's number stands for: values of `Label::kind`.
pub mod label {
    /// Nothing.
    pub const FREE: u32 = 0;
    /// The host.
    pub const HOST: u32 = 1;
    /// A group.
    pub const GROUP: u32 = 2;
    /// A session.
    pub const SESSION: u32 = 3;
}

/// The fields that tell sessions at one endpoint apart: positions of their numbers in `ids` arrays, and bits of `Place`'s mask.
pub mod identity {
    /// Tags of the fields, by position: SenderCompID, TargetCompID, SenderSubID, TargetSubID.
    pub const TAGS: [u32; 4] = [49, 56, 50, 57];
    /// The number of a value that no session declares.
    pub const UNKNOWN: u32 = 1;
    /// The first number of a declared value.
    pub const FIRST: u32 = 2;
    /// In the first field of a key: it stands for the session at a position, which is in the second field, in the list of all at its place.
    pub const LISTED: u32 = u32::MAX;
    /// Sessions that one place may have.
    pub const MAX_SESSIONS_PER_ENDPOINT: u32 = 128;
}

/// Where a packet's way ended: positions of the per-CPU reason counters.
pub mod reason {
    /// Not IP, or not TCP, or to a port and address that no session has.
    pub const NOT_OURS: u32 = 0;
    /// Headers cut short or contradictory: passed.
    pub const MALFORMED: u32 = 1;
    /// IP fragment other than the first: passed, for its first one is withheld where it matters.
    pub const FRAGMENT: u32 = 2;
    /// Segment of a session without payload: passed.
    pub const CONTROL: u32 = 3;
    /// Segment of a session with payload: passed.
    pub const PASSED: u32 = 4;
    /// Withheld: its connection is fenced.
    pub const FENCED: u32 = 5;
    /// Withheld: a limit was passed.
    pub const LIMIT: u32 = 6;
    /// Withheld: its scope is tripped and the message adds risk.
    pub const TRIPPED: u32 = 7;
    /// Withheld: SYN of an isolated session.
    pub const ISOLATED: u32 = 8;
    /// Withheld: the stream was lost and the policy says to trip.
    pub const DESYNC: u32 = 9;
    /// The connection table had no room.
    pub const TABLE_FULL: u32 = 10;
    /// A withheld segment could not be turned into a reset and was dropped.
    pub const RESET_FAILED: u32 = 11;
    /// The event ring had no room: an event was lost.
    pub const EVENT_LOST: u32 = 12;
    /// Maps that must be there were not: passed.
    pub const NOT_CONFIGURED: u32 = 13;
    /// Withheld: an order with PossDupFlag(43)=Y after a trip.
    pub const REPLAY: u32 = 14;
    /// Withheld: the agent is silent, and the policy says to trip then.
    pub const DEADMAN: u32 = 15;
    /// Withheld: its Logon is of no declared session, and the policy says to block that.
    pub const UNDECLARED: u32 = 16;
    /// Withheld until TCP has sent what comes before it: the segment lies ahead of a gap.
    pub const AHEAD: u32 = 17;
    /// Withheld: the segment is of another connection with the same addresses, before or beside the one that is followed.
    pub const FOREIGN: u32 = 18;
    /// Withheld: the first fragment of a session's segment, or one that hides a TCP header (RFC 3128).
    pub const FRAGMENTED: u32 = 19;
    /// Withheld: a further path of a Multipath TCP connection (RFC 8684, 3.2) to a session's endpoint.
    pub const MULTIPATH: u32 = 20;
    /// Withheld: no TCP header found behind the extension headers of a packet to a session's address.
    pub const EXTENSIONS: u32 = 21;
    /// Passed unread: its link or network headers are of a kind that is not looked into (`UNSEEN` counts them by interface and kind).
    pub const UNSEEN: u32 = 22;
    /// Events that were left out, for there were too many of their kind.
    pub const EVENT_LEFT_OUT: u32 = 23;
    /// Withheld inline: its peer would not take it, for its checksum is wrong, or it has fewer hops left than the SYN had.
    pub const UNDELIVERABLE: u32 = 24;
    /// Names in the order of the numbers.
    pub const NAMES: [&str; 25] = [
        "not_ours",
        "malformed",
        "fragment",
        "control",
        "passed",
        "fenced",
        "limit",
        "tripped",
        "isolated",
        "desync",
        "table_full",
        "reset_failed",
        "event_lost",
        "not_configured",
        "replay",
        "deadman",
        "undeclared",
        "ahead",
        "foreign",
        "fragmented",
        "multipath",
        "extensions",
        "unseen",
        "event_left_out",
        "undeliverable",
    ];
}

/// Packets that pass unread because of their headers, though TCP may be in them: positions in [`super::Unseen`].
pub mod unseen {
    /// More VLAN tags than are looked behind.
    pub const VLAN: u32 = 0;
    /// MPLS, more labels than are looked behind or no IP behind them.
    pub const MPLS: u32 = 1;
    /// PPPoE that holds no IP.
    pub const PPPOE: u32 = 2;
    /// IP or IPv6 in IP (protocols 4 and 41).
    pub const IP_IN_IP: u32 = 3;
    /// GRE (protocol 47).
    pub const GRE: u32 = 4;
    /// ESP (protocol 50): encrypted.
    pub const ESP: u32 = 5;
    /// VXLAN (UDP port 4789).
    pub const VXLAN: u32 = 6;
    /// Ethernet with a length in place of a type (802.2).
    pub const LLC: u32 = 7;
    /// IPv6 extension headers, more or longer ones than are looked behind.
    pub const EXTENSIONS: u32 = 8;
    /// Headers cut short or contradictory.
    pub const MALFORMED: u32 = 9;
    /// Names in the order of the numbers.
    pub const NAMES: [&str; 10] =
        ["vlan", "mpls", "pppoe", "ip_in_ip", "gre", "esp", "vxlan", "llc", "extensions", "malformed"];
}

/// What the kernel tells user space of: changes of state, never single messages.
pub mod kind {
    /// A scope tripped.
    pub const TRIPPED: u32 = 1;
    /// A disarmed scope would have tripped.
    pub const WOULD_TRIP: u32 = 2;
    /// A warning level was crossed.
    pub const WARNED: u32 = 3;
    /// A connection was fenced.
    pub const FENCED: u32 = 4;
    /// A stream was lost.
    pub const DESYNCED: u32 = 5;
    /// The connection table had no room.
    pub const TABLE_FULL: u32 = 6;
    /// A FIX flow that no session declares was seen.
    pub const UNDECLARED: u32 = 7;
    /// An order with PossDupFlag(43)=Y came after a trip.
    pub const REPLAYED: u32 = 8;
    /// The agent's heartbeat is too old.
    pub const HEARTBEAT_LOST: u32 = 9;
    /// Connections of a tripped session were fenced in quick succession: it is isolated until a reset.
    pub const ISOLATED: u32 = 10;
    /// A Logon at a session's own endpoint has other CompIDs than declared.
    pub const MISMATCHED: u32 = 11;
    /// A connection can no longer be followed: its bytes count as orders.
    pub const BLIND: u32 = 12;
    /// A connection is followed again.
    pub const SIGHTED: u32 = 13;
}

/// Marks in the kernel program's instructions: user space writes numbers of the running kernel in their place.
pub mod relocation {
    /// The function `bpf_cast_to_kern_ctx`,
    pub const CAST: u32 = 0x7fe1_a001;
    /// `bpf_rdonly_cast`,
    pub const READ: u32 = 0x7fe1_a002;
    /// and the type `struct skb_shared_info`.
    pub const INFO: u32 = 0x7fe1_a003;
    /// Offset in `struct sk_buff` of `end`,
    pub const END: u16 = 0x7ea1;
    /// and of `head`.
    pub const HEAD: u16 = 0x7ea2;
    /// Offset in `struct skb_shared_info` of `flags`.
    pub const FLAGS: u16 = 0x7ea3;
}
