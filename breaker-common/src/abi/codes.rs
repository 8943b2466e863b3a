//! Codes and bits with their names. Codes are never renumbered.

/// Causes of a trip, one bit each. Only `reset` clears a cause.
pub mod cause {
    /// A person tripped the scope.
    pub const MANUAL: u64 = 1 << 0;
    /// A limit was exceeded.
    pub const RATE: u64 = 1 << 1;
    /// The agent's heartbeat is too old.
    pub const DEADMAN: u64 = 1 << 2;
    /// The framing of a stream was lost, and the policy trips on a desync.
    pub const DESYNC: u64 = 1 << 3;
    /// An order with PossDupFlag(43)=Y was sent after a trip.
    pub const REPLAY: u64 = 1 << 4;
    /// FIX was sent to an undeclared endpoint, and the policy blocks undeclared flows.
    pub const UNDECLARED: u64 = 1 << 5;
    /// Another host of the fleet tripped.
    pub const FLEET: u64 = 1 << 6;
    /// The state file was damaged or missing at the load, so that a trip may be missing.
    pub const STATE: u64 = 1 << 7;
    /// Every cause with its name in the CLI, the metrics and the events.
    pub const NAMES: [(u64, &str); 8] = [
        (MANUAL, "manual"),
        (RATE, "rate"),
        (DEADMAN, "deadman"),
        (DESYNC, "desync"),
        (REPLAY, "replay"),
        (UNDECLARED, "undeclared"),
        (FLEET, "fleet"),
        (STATE, "state"),
    ];
}

/// Boolean settings, as bits of `Policy::flags` and `Session::flags`.
pub mod flag {
    /// Drops withheld segments. Without this flag, a withheld segment becomes a TCP reset for both ends.
    pub const DROP: u32 = 1 << 0;
    /// A desync trips the session.
    pub const DESYNC_TRIPS: u32 = 1 << 1;
    /// Counts each segment with payload as one order and reads no payload.
    pub const OPAQUE: u32 = 1 << 2;
    /// Passes connections uncounted while the connection table is full. Without this flag, they are withheld.
    pub const PASS_WHEN_FULL: u32 = 1 << 3;
    /// Passes orders with PossDupFlag(43)=Y even after a trip.
    pub const REPLAYS_PASS: u32 = 1 << 4;
    /// A lost heartbeat trips the host. Without this flag, it only causes an event.
    pub const HEARTBEAT_LOSS_TRIPS: u32 = 1 << 5;
    /// The messages of the session check the age of the agent's heartbeat.
    pub const WATCHES_HEARTBEAT: u32 = 1 << 6;
    /// Reports unread bytes without counting them. Without this flag, they count as orders
    /// ([`crate::blind`]).
    pub const BLIND_UNCOUNTED: u32 = 1 << 7;
    /// Only sockets of the user [`crate::abi::Session::uid`] belong to the session.
    pub const MATCH_UID: u32 = 1 << 8;
    /// The venue cancels all orders of the session when its connection ends. Only user space reads this bit
    /// and the next three.
    pub const VENUE_CANCELS_ALL: u32 = 1 << 9;
    /// The venue cancels the day orders of the session when its connection ends.
    pub const VENUE_CANCELS_DAY: u32 = 1 << 10;
    /// The venue cancels no order of the session when its connection ends.
    pub const VENUE_CANCELS_NONE: u32 = 1 << 11;
    /// `drill --live` may trip the session.
    pub const DRILL: u32 = 1 << 12;
}

/// Messages that pass on a new connection of a tripped scope: values of `Session::while_tripped`.
pub mod while_tripped {
    /// Messages that add no risk: the classes admin, query and cancel.
    pub const REDUCE_ONLY: u32 = 0;
    /// Messages of the class admin.
    pub const ADMIN_ONLY: u32 = 1;
    /// No message, and no SYN.
    pub const ISOLATE: u32 = 2;
}

/// Treatment of FIX to an undeclared endpoint: values of `Policy::undeclared`.
pub mod undeclared {
    /// Undeclared flows pass uncounted.
    pub const IGNORE: u32 = 0;
    /// Undeclared flows count for the pseudo-session and for the host's limits.
    pub const WATCH: u32 = 1;
    /// An undeclared connection is fenced at its first FIX byte.
    pub const BLOCK: u32 = 2;
}

/// Place of the deciding program in the packet path: values of `Meta::mode`.
pub mod mode {
    /// On the trading host, outbound: tc egress.
    pub const EGRESS: u32 = 0;
    /// On a gateway, inbound from a trading host: XDP.
    pub const INLINE: u32 = 1;
}

/// Type of the attachment to an interface: values of `Interface::hook`.
pub mod hook {
    /// tcx egress, with a pinned link (Linux 6.6 and newer).
    pub const TCX: u32 = 1;
    /// A filter at the egress of the clsact qdisc.
    pub const CLSACT: u32 = 2;
    /// XDP in the driver, with a pinned link.
    pub const XDP_NATIVE: u32 = 3;
    /// Generic XDP, with a pinned link.
    pub const XDP_GENERIC: u32 = 4;
}

/// Type of a scope: values of `Label::kind`.
pub mod label {
    /// The scope number is unused.
    pub const FREE: u32 = 0;
    /// The host.
    pub const HOST: u32 = 1;
    /// A group.
    pub const GROUP: u32 = 2;
    /// A session.
    pub const SESSION: u32 = 3;
}

/// Fields that identify a session at a shared endpoint.
///
/// Each field has a position in `comp_ids` arrays and a bit in the mask of [`super::Target::Shared`].
pub mod identity {
    /// Tags of the fields, by position: SenderCompID, TargetCompID, SenderSubID, TargetSubID.
    pub const TAGS: [u32; 4] = [49, 56, 50, 57];
    /// Number of every undeclared value.
    pub const UNKNOWN: u32 = 1;
    /// Lowest number of a declared value.
    pub const FIRST: u32 = 2;
    /// Marks a list key: with this value in the first field, the second field is a position in the endpoint's
    /// session list.
    pub const LISTED: u32 = u32::MAX;
    /// Maximum number of sessions at a shared endpoint.
    pub const MAX_SESSIONS_PER_ENDPOINT: u32 = 128;
}

/// Outcome of a packet: an index in the per-CPU reason counters.
pub mod reason {
    /// Passed: not IP, not TCP, or to an undeclared address and port.
    pub const NOT_OURS: u32 = 0;
    /// Passed: truncated or contradictory headers.
    pub const MALFORMED: u32 = 1;
    /// Passed: an IP fragment other than the first. If the packet must not pass, its first fragment is
    /// withheld.
    pub const FRAGMENT: u32 = 2;
    /// Passed: a session's segment without payload.
    pub const CONTROL: u32 = 3;
    /// Passed: a session's segment with payload.
    pub const PASSED: u32 = 4;
    /// Withheld: the connection is fenced.
    pub const FENCED: u32 = 5;
    /// Withheld: the segment would exceed a limit.
    pub const LIMIT: u32 = 6;
    /// Withheld: a scope is tripped, and the policy does not pass such a message.
    pub const TRIPPED: u32 = 7;
    /// Withheld: a SYN of an isolated session.
    pub const ISOLATED: u32 = 8;
    /// Withheld: the framing was lost, and the policy trips on a desync.
    pub const DESYNC: u32 = 9;
    /// The connection table was full.
    pub const TABLE_FULL: u32 = 10;
    /// Dropped: a withheld segment could not be rewritten as a TCP reset.
    pub const RESET_FAILED: u32 = 11;
    /// An event was lost because the event ring was full.
    pub const EVENT_LOST: u32 = 12;
    /// Passed: a required map entry was missing.
    pub const NOT_CONFIGURED: u32 = 13;
    /// Withheld: an order with PossDupFlag(43)=Y after a trip.
    pub const REPLAY: u32 = 14;
    /// Withheld: the agent's heartbeat is too old, and the policy trips on its loss.
    pub const DEADMAN: u32 = 15;
    /// Withheld: the Logon matches no declared session, and the policy blocks undeclared flows.
    pub const UNDECLARED: u32 = 16;
    /// Withheld until TCP sends it again: the segment is ahead of a gap, or an upgrade copies the maps.
    pub const AHEAD: u32 = 17;
    /// Withheld: the segment belongs to another connection with the same addresses and ports.
    pub const FOREIGN: u32 = 18;
    /// Withheld: the first fragment of a session's segment, or a fragment that hides a TCP header (RFC 3128).
    pub const FRAGMENTED: u32 = 19;
    /// Withheld: a further subflow of a Multipath TCP connection (RFC 8684, 3.2) to a session's endpoint.
    pub const MULTIPATH: u32 = 20;
    /// Withheld: no TCP header was found behind the IPv6 extension headers of a packet to a session's
    /// address.
    pub const EXTENSIONS: u32 = 21;
    /// Passed unread: the link or network headers are not parsed. The map `UNSEEN` counts by interface and
    /// kind.
    pub const UNSEEN: u32 = 22;
    /// An event was suppressed because there were too many of its kind.
    pub const EVENT_LEFT_OUT: u32 = 23;
    /// Withheld inline: the peer would not accept the segment. Its checksum is wrong, or its TTL is below
    /// that of the SYN.
    pub const UNDELIVERABLE: u32 = 24;
    /// Dropped: a probe frame of the agent. The map `PROBES` has its stamp.
    pub const PROBE: u32 = 25;
    /// Names, in numeric order.
    pub const NAMES: [&str; 26] = [
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
        "probe",
    ];
}

/// Probe frames, by which the agent checks that the program sees the packets of an interface.
///
/// A probe frame has an EtherType that no protocol uses and a mark that no frame from a wire has. The program
/// stamps `Meta::generation` and the time into the map `PROBES`, by interface number, and drops the frame.
pub mod probe {
    /// EtherType of a probe frame: local experimental (IEEE 802).
    pub const ETHERTYPE: u16 = 0x88b5;
    /// Mark of a probe frame (kernel `sk_buff.mark`).
    pub const MARK: u32 = 0x6272_6b72;
    /// In place of the generation: the agent got no stamp. The next stamp replaces it.
    pub const FAILED: u64 = u64::MAX;
    /// In place of an interface number: the agent's comparison of the policy maps with their content at
    /// the last load or reload. Only the agent writes this entry.
    pub const POLICY_MAPS: u32 = 0;
}

/// Packets that pass unread because of their headers but may contain TCP: values of
/// [`super::UnseenKey::kind`].
pub mod unseen {
    /// More VLAN tags than the program parses.
    pub const VLAN: u32 = 0;
    /// MPLS with more labels than the program parses, or without IP behind the labels.
    pub const MPLS: u32 = 1;
    /// PPPoE without IP.
    pub const PPPOE: u32 = 2;
    /// IP or IPv6 in IP (protocols 4 and 41).
    pub const IP_IN_IP: u32 = 3;
    /// GRE (protocol 47).
    pub const GRE: u32 = 4;
    /// ESP (protocol 50): encrypted.
    pub const ESP: u32 = 5;
    /// VXLAN (UDP port 4789).
    pub const VXLAN: u32 = 6;
    /// Ethernet with a length instead of an EtherType (802.2).
    pub const LLC: u32 = 7;
    /// More or longer IPv6 extension headers than the program parses.
    pub const EXTENSIONS: u32 = 8;
    /// Truncated or contradictory headers.
    pub const MALFORMED: u32 = 9;
    /// Names, in numeric order.
    pub const NAMES: [&str; 10] =
        ["vlan", "mpls", "pppoe", "ip_in_ip", "gre", "esp", "vxlan", "llc", "extensions", "malformed"];
}

/// Kinds of events. An event is a change of state, never a single message.
pub mod kind {
    /// A scope tripped.
    pub const TRIPPED: u32 = 1;
    /// A disarmed scope would have tripped.
    pub const WOULD_TRIP: u32 = 2;
    /// A warning level was reached.
    pub const WARNED: u32 = 3;
    /// A connection was fenced.
    pub const FENCED: u32 = 4;
    /// The framing of a stream was lost.
    pub const DESYNCED: u32 = 5;
    /// The connection table was full.
    pub const TABLE_FULL: u32 = 6;
    /// An undeclared FIX flow was seen.
    pub const UNDECLARED: u32 = 7;
    /// An order with PossDupFlag(43)=Y was sent after a trip.
    pub const REPLAYED: u32 = 8;
    /// The agent's heartbeat is too old.
    pub const HEARTBEAT_LOST: u32 = 9;
    /// A tripped session was isolated until its reset, because it reconnected too often.
    pub const ISOLATED: u32 = 10;
    /// A Logon at a session's own endpoint had other CompIDs than declared.
    pub const MISMATCHED: u32 = 11;
    /// A connection became blind: its bytes count as orders.
    pub const BLIND: u32 = 12;
    /// A blind connection is in sync again.
    pub const SIGHTED: u32 = 13;
}

/// Placeholders in the kernel program's instructions. User space replaces each with a number of the running
/// kernel.
pub mod relocation {
    /// BTF id of the function `bpf_cast_to_kern_ctx`.
    pub const CAST: u32 = 0x7fe1_a001;
    /// BTF id of the function `bpf_rdonly_cast`.
    pub const READ: u32 = 0x7fe1_a002;
    /// BTF id of the type `struct skb_shared_info`.
    pub const INFO: u32 = 0x7fe1_a003;
    /// Offset of `end` in `struct sk_buff`.
    pub const END: u16 = 0x7ea1;
    /// Offset of `head` in `struct sk_buff`.
    pub const HEAD: u16 = 0x7ea2;
    /// Offset of `flags` in `struct skb_shared_info`.
    pub const FLAGS: u16 = 0x7ea3;
}
