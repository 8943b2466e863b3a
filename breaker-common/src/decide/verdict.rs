//! The verdict on a segment, and its counters.

use core::hint::cold_path;

use crate::abi::{Counters, reason};
use crate::counts::SegmentCounts;
use crate::message::InboundClass;

/// Verdict on a segment, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed: the segment has no payload.
    Control,
    /// Passed: the segment has payload.
    Passed,
    /// Withheld: the connection is fenced. It is older than the last trip or reset, or a segment was withheld
    /// before.
    Fenced,
    /// Withheld: the segment would exceed a limit. The scope of the limit has tripped.
    Limit,
    /// Withheld: a scope is tripped, and the policy does not pass such a message.
    Tripped,
    /// Withheld: a SYN of an isolated session.
    Isolated,
    /// Withheld: the framing was lost, and the policy trips on a desync.
    Desync,
    /// Withheld: the segment has an order with PossDupFlag(43)=Y after a trip.
    Replay,
    /// Withheld: the agent's heartbeat is too old, and the policy trips on its loss.
    Deadman,
    /// Withheld: the Logon matches no declared session, and the policy blocks undeclared flows.
    Undeclared,
    /// Withheld: the segment is ahead of a gap, until the gap is filled.
    Ahead,
    /// Withheld: the segment belongs to another connection with the same addresses.
    Foreign,
    /// Withheld: the first IP fragment of a session's segment.
    Fragmented,
    /// Passed: the Logon matches no declared session, and the policy ignores undeclared flows.
    Ignored,
    /// Passed: the maps have no entry of the session.
    Unconfigured,
}

impl Verdict {
    /// Returns true if the segment is withheld.
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

    /// Returns true if the connection stays alive although the segment is withheld.
    pub fn spares_connection(self) -> bool {
        matches!(self, Self::Isolated | Self::Ahead | Self::Foreign | Self::Fragmented)
    }

    /// Returns the reason: the index of the packet counter.
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
    /// Counts the messages of an inbound segment.
    #[inline(always)]
    pub fn count_inbound(&mut self, counts: &SegmentCounts) {
        self.inbound_desyncs += counts.desyncs as u64;
        let mut i = 0;
        while i < self.inbound.len() {
            self.inbound[i] += counts.messages[InboundClass::Fill as usize + i] as u64;
            i += 1;
        }
    }

    /// Counts an outbound segment and its messages.
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
