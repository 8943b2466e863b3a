//! What comes of it, and how that is counted.

use core::hint::cold_path;

use crate::abi::{Counters, reason};
use crate::counts::SegmentCounts;
use crate::message::InboundClass;

/// What becomes of a segment, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no payload and passes.
    Control,
    /// Its payload passes.
    Passed,
    /// Withheld: its connection is older than the last trip or reset, or something of it was withheld before.
    Fenced,
    /// Withheld: with it a limit would be passed. Its scope has tripped.
    Limit,
    /// Withheld: a scope is tripped, and the policy lets no such message pass meanwhile.
    Tripped,
    /// Withheld: SYN of a session that is cut off altogether while tripped.
    Isolated,
    /// Withheld: the stream cannot be followed, and the policy says to trip then.
    Desync,
    /// Withheld: it holds an order that a session repeats after a trip.
    Replay,
    /// Withheld: the agent is silent, and the policy says to trip then.
    Deadman,
    /// Withheld: its Logon is of no declared session, and the policy says to block that.
    Undeclared,
    /// Withheld until what comes before it was let through: it lies ahead of a gap.
    Ahead,
    /// Withheld: it is of another connection with the same addresses.
    Foreign,
    /// Withheld: a fragment of a session's segment.
    Fragmented,
    /// It passes: its Logon is of no declared session, and the policy says not to look at that.
    Ignored,
    /// It passes: the maps do not say whose it is.
    Unconfigured,
}

impl Verdict {
    /// True where the segment must not leave.
    pub fn withheld(self) -> bool {
        match self {
            Self::Control | Self::Passed | Self::Ignored | Self::Unconfigured => false,
            Self::Fenced
            | Self::Limit
            | Self::Tripped
            | Self::Isolated
            | Self::Desync
            | Self::Replay
            | Self::Deadman
            | Self::Undeclared
            | Self::Ahead
            | Self::Foreign
            | Self::Fragmented => true,
        }
    }

    /// True where what is withheld says nothing against its connection, which goes on.
    pub fn spares_connection(self) -> bool {
        matches!(self, Self::Isolated | Self::Ahead | Self::Foreign | Self::Fragmented)
    }

    /// The counter of packets that ended this way.
    pub fn reason(self) -> u32 {
        match self {
            Self::Control => reason::CONTROL,
            Self::Passed => reason::PASSED,
            Self::Fenced => reason::FENCED,
            Self::Limit => reason::LIMIT,
            Self::Tripped => reason::TRIPPED,
            Self::Isolated => reason::ISOLATED,
            Self::Desync => reason::DESYNC,
            Self::Replay => reason::REPLAY,
            Self::Deadman => reason::DEADMAN,
            Self::Undeclared => reason::UNDECLARED,
            Self::Ahead => reason::AHEAD,
            Self::Foreign => reason::FOREIGN,
            Self::Fragmented => reason::FRAGMENTED,
            Self::Ignored => reason::NOT_OURS,
            Self::Unconfigured => reason::NOT_CONFIGURED,
        }
    }
}

impl Counters {
    /// Counts what came in.
    #[inline(always)]
    pub fn count_inbound(&mut self, counts: &SegmentCounts) {
        self.inbound_desyncs += counts.desyncs as u64;
        let mut i = 0;
        while i < self.inbound.len() {
            self.inbound[i] += counts.messages[InboundClass::Fill as usize + i] as u64;
            i += 1;
        }
    }

    /// Counts a segment and what it held.
    #[inline(always)]
    pub fn count(&mut self, verdict: Verdict, counts: &SegmentCounts) {
        if matches!(verdict, Verdict::Control | Verdict::Ignored | Verdict::Unconfigured) {
            return;
        }
        self.retransmitted += counts.repeated as u64;
        self.desyncs += counts.desyncs as u64;
        if counts.unread != 0 {
            cold_path();
            self.unread += 1;
            self.blind_orders += counts.blind_orders() as u64;
        }
        let withheld = verdict.withheld();
        if withheld {
            self.packets_withheld += 1;
        } else {
            self.packets_passed += 1;
        }
        let messages = if withheld { &mut self.withheld } else { &mut self.passed };
        let mut i = 0;
        while i < messages.len() {
            messages[i] += counts.messages[i] as u64;
            i += 1;
        }
    }
}
