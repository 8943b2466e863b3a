//! Sequencing of inbound segments. Inbound segments are never withheld.
//!
//! A gap is skipped. The bytes of the latest gap may arrive late and are read then.

use core::hint::cold_path;

use bytemuck::Zeroable;

use crate::abi::{Framing, Gap, Inbound, sync};
use crate::counts::SegmentCounts;
use crate::message::want;
use crate::sequence::MAX_REPEATED;

/// The new bytes of a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBytes {
    /// Offset of the first new byte.
    pub from: u32,
    /// Offset behind the last new byte.
    pub to: u32,
    /// True if the bytes fill the start of the gap.
    pub late: bool,
}

/// Maximum distance of an inbound segment ahead of the next byte.
///
/// A segment further ahead is forged. The socket drops such a segment (RFC 9293, section 3.10.7.4), because
/// no receive window of Linux is larger by default (`tcp_rmem`).
pub const MAX_AHEAD: u32 = 1 << 23;

impl Inbound {
    /// Creates the state of a connection whose first payload byte has this sequence number.
    pub fn at(next_seq: u32) -> Self {
        Self { next_seq, ..Self::zeroed() }
    }

    /// Creates the state of a connection joined in mid-stream, at a segment with this sequence number.
    pub fn joined(next_seq: u32) -> Self {
        let mut inbound = Self::at(next_seq);
        inbound.framing.sync = sync::BLIND;
        inbound
    }

    /// Records a segment of `length` payload bytes at `seq` and returns its new bytes.
    #[inline(always)]
    pub fn advance(&mut self, seq: u32, length: u32, counts: &mut SegmentCounts) -> Option<NewBytes> {
        let behind = self.next_seq.wrapping_sub(seq) as i32;
        if behind < 0 {
            cold_path();
            let gap = behind.wrapping_neg() as u32;
            if gap > MAX_AHEAD {
                return None;
            }
            self.skip_gap(seq, gap, counts);
        } else if behind > 0 {
            cold_path();
            counts.repeated = 1;
            if behind as u32 >= length {
                return self.fill_gap(seq, length, counts);
            }
            // The segment may have late bytes and new bytes. Only the new bytes can be read.
            counts.desyncs = counts.desyncs.wrapping_add(self.overlaps_gap(seq, length));
        }
        let from = if behind > 0 { behind as u32 } else { 0 };
        self.next_seq = seq.wrapping_add(length);
        if self.next_seq.wrapping_sub(self.gap.end) > MAX_REPEATED {
            cold_path();
            self.gap.start = self.gap.end;
        }
        Some(NewBytes { from, to: length, late: false })
    }

    /// Returns 1 if a segment has bytes of the gap.
    #[inline(always)]
    fn overlaps_gap(&self, seq: u32, length: u32) -> u32 {
        let before_end = (self.gap.end.wrapping_sub(seq) as i32) > 0;
        let behind_start = (seq.wrapping_add(length).wrapping_sub(self.gap.start) as i32) > 0;
        (self.gap.start != self.gap.end && before_end && behind_start) as u32
    }

    /// Skips `gap` missing bytes. The stream stays in sync if the gap is inside a message; otherwise it is
    /// blind.
    #[inline(always)]
    fn skip_gap(&mut self, seq: u32, gap: u32, counts: &mut SegmentCounts) {
        if self.framing.field_state & (want::ACTION | want::REPORT | want::OWNER) != 0 {
            // The deciding field may be among the missing bytes.
            self.framing.finish_message(counts);
        }
        self.gap = Gap { framing: self.framing, start: self.next_seq, end: seq };
        if self.framing.sync == sync::IN_SYNC && self.framing.body_remaining >= gap {
            self.framing.body_remaining -= gap;
            if self.framing.field_state != 0 {
                self.framing.lose_field_position();
                if self.framing.body_remaining == 0 {
                    self.framing.finish_message(counts);
                }
            }
            return;
        }
        if self.framing.sync == sync::IN_SYNC {
            counts.desyncs = counts.desyncs.wrapping_add(1);
        }
        self.framing = Framing { sync: sync::BLIND, ..Framing::zeroed() };
    }

    /// Returns the part of an old segment that fills the start of the gap.
    ///
    /// Late bytes from the middle of the gap cannot be read, because the framing before them is unknown. They
    /// cause a desync.
    #[inline(always)]
    fn fill_gap(&mut self, seq: u32, length: u32, counts: &mut SegmentCounts) -> Option<NewBytes> {
        let gap_bytes = self.gap.end.wrapping_sub(self.gap.start);
        let from = self.gap.start.wrapping_sub(seq);
        if gap_bytes == 0 || from >= length {
            counts.desyncs = counts.desyncs.wrapping_add(self.overlaps_gap(seq, length));
            return None;
        }
        let bytes = if length - from < gap_bytes { length - from } else { gap_bytes };
        self.gap.start = self.gap.start.wrapping_add(bytes);
        Some(NewBytes { from, to: from + bytes, late: true })
    }
}
