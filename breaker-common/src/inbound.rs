//! What comes in on a connection. Nothing of it is withheld, so a gap is jumped over, and the latest one may be filled late.

use core::hint::cold_path;

use bytemuck::Zeroable;

use crate::abi::{Framing, Gap, Inbound, sync};
use crate::counts::SegmentCounts;
use crate::message::want;
use crate::sequence::MAX_REPEATED;

/// The new bytes of a segment's payload: from `from` up to `to`, and whether they belong into the gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBytes {
    /// Offset in the payload of the first new byte.
    pub from: u32,
    /// Offset behind the last.
    pub to: u32,
    /// They fill the beginning of the gap.
    pub late: bool,
}

/// Bytes ahead of the next one that a peer may send without an answer. What is further ahead is forged: the socket drops it (RFC 9293,
/// 3.10.7.4), for no receive window of Linux is larger by default (`tcp_rmem`).
pub const MAX_AHEAD: u32 = 1 << 23;

impl Inbound {
    /// A connection whose first payload byte will have this sequence number.
    pub fn at(next_seq: u32) -> Self {
        Self { next_seq, ..Self::zeroed() }
    }

    /// A connection first seen in mid-stream, at a segment with this sequence number.
    pub fn joined(next_seq: u32) -> Self {
        let mut inbound = Self::at(next_seq);
        inbound.framing.sync = sync::BLIND;
        inbound
    }

    /// Takes note of a segment of `length` payload bytes at `seq` and says which of them are new.
    #[inline(always)]
    pub fn advance(&mut self, seq: u32, length: u32, counts: &mut SegmentCounts) -> Option<NewBytes> {
        let behind = self.next_seq.wrapping_sub(seq) as i32;
        if behind < 0 {
            cold_path();
            let gap = behind.wrapping_neg() as u32;
            if gap > MAX_AHEAD {
                return None;
            }
            self.jump(seq, gap, counts);
        } else if behind > 0 {
            cold_path();
            counts.repeated = 1;
            if behind as u32 >= length {
                return self.fill(seq, length, counts);
            }
            // It may hold late bytes and new ones. Only the new ones can be walked: the late ones are lost.
            counts.desyncs = counts.desyncs.wrapping_add(self.misses(seq, length));
        }
        let from = if behind > 0 { behind as u32 } else { 0 };
        self.next_seq = seq.wrapping_add(length);
        if self.next_seq.wrapping_sub(self.gap.end) > MAX_REPEATED {
            cold_path();
            self.gap.start = self.gap.end;
        }
        Some(NewBytes { from, to: length, late: false })
    }

    /// 1 where a segment has bytes of the gap.
    #[inline(always)]
    fn misses(&self, seq: u32, length: u32) -> u32 {
        let before_end = (self.gap.end.wrapping_sub(seq) as i32) > 0;
        let behind_start = (seq.wrapping_add(length).wrapping_sub(self.gap.start) as i32) > 0;
        (self.gap.start != self.gap.end && before_end && behind_start) as u32
    }

    /// Goes on behind `gap` missing bytes. Inside a message that changes nothing; anywhere else the stream is lost.
    #[inline(always)]
    fn jump(&mut self, seq: u32, gap: u32, counts: &mut SegmentCounts) {
        if self.framing.field_state & (want::ACTION | want::REPORT | want::OWNER) != 0 {
            // The field that would tell may be among the missing.
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

    /// The part of an old segment that fills the beginning of the gap, if any. Late bytes from further on in it cannot be walked, for
    /// what is before them is not known: the stream is lost there.
    #[inline(always)]
    fn fill(&mut self, seq: u32, length: u32, counts: &mut SegmentCounts) -> Option<NewBytes> {
        let room = self.gap.end.wrapping_sub(self.gap.start);
        let from = self.gap.start.wrapping_sub(seq);
        if room == 0 || from >= length {
            counts.desyncs = counts.desyncs.wrapping_add(self.misses(seq, length));
            return None;
        }
        let bytes = if length - from < room { length - from } else { room };
        self.gap.start = self.gap.start.wrapping_add(bytes);
        Some(NewBytes { from, to: from + bytes, late: true })
    }
}
