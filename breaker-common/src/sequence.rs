//! Sequencing of outbound segments: which bytes are new, by TCP sequence number (RFC 9293).
//!
//! Only bytes from `next_seq` on are new, and TCP repeats only bytes that have passed. A segment before the
//! first byte of a connection belongs to another connection. A segment ahead of a gap is withheld until the
//! gap is filled; TCP sends the segment again. Every byte is therefore read in order. A gap causes a desync
//! only if its bytes took another path and never arrive here.

use core::hint::cold_path;

use bytemuck::Zeroable;

use crate::abi::{Framing, Stream, sync};
use crate::counts::SegmentCounts;

/// Maximum number of bytes before `next_seq` that TCP may repeat: no TCP window is larger (RFC 7323, section
/// 2.3).
pub const MAX_REPEATED: u32 = 1 << 30;
/// Number of arrivals after which a segment ahead of a gap is read.
///
/// TCP repeats the first unacknowledged segment, so the peer has received the bytes of the gap by another
/// path. A tail loss probe (RFC 8985, section 7) alone repeats a segment ahead of a gap once.
const MAX_AHEAD: u32 = 4;

/// Position of a segment in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// No byte is new.
    Repeated,
    /// The payload is new from this offset on.
    New(u32),
    /// The segment is ahead of a gap and is withheld until the gap is filled.
    Ahead,
    /// The segment is before the first byte, so it belongs to another connection with the same addresses.
    Foreign,
}

impl Stream {
    /// Creates the state of a connection whose first payload byte has this sequence number.
    pub fn at(next_seq: u32) -> Self {
        Self { next_seq, ..Self::zeroed() }
    }

    /// Creates the state of a connection joined in mid-stream, at a segment with this sequence number.
    pub fn joined(next_seq: u32) -> Self {
        let mut stream = Self::at(next_seq);
        stream.framing.sync = sync::BLIND;
        stream
    }

    /// Returns true if a segment neither continues the stream nor repeats passed bytes. Such a segment may be
    /// withheld.
    #[inline(always)]
    pub fn is_out_of_order(&self, seq: u32) -> bool {
        self.next_seq.wrapping_sub(seq) > self.sent
    }

    /// Records a segment of `length` payload bytes at `seq` and returns its position in the stream.
    ///
    /// `opened`: the SYN of the connection was seen. `withholds`: an out-of-order segment may be withheld.
    #[inline(always)]
    pub fn advance(
        &mut self,
        seq: u32,
        length: u32,
        opened: bool,
        withholds: bool,
        counts: &mut SegmentCounts,
    ) -> Arrival {
        let behind = self.next_seq.wrapping_sub(seq) as i32;
        let mut from = 0;
        if behind < 0 {
            cold_path();
            if withholds && self.is_withheld_ahead(seq, opened) {
                return Arrival::Ahead;
            }
            self.skip_gap(seq, counts);
        } else if behind > 0 {
            cold_path();
            let behind = behind as u32;
            if behind > self.sent && opened {
                // A keepalive probe may have one byte before the first byte (RFC 9293, section 3.8.4).
                if behind == self.sent + 1 && length == 1 {
                    return Arrival::Repeated;
                }
                if withholds {
                    return Arrival::Foreign;
                }
            }
            self.count_repeated(seq, behind, length, counts);
            if behind >= length {
                return Arrival::Repeated;
            }
            from = behind;
        }
        self.next_seq = seq.wrapping_add(length);
        if self.ahead | self.gap_start ^ self.gap_end != 0 {
            cold_path();
            self.ahead = 0;
            if self.next_seq.wrapping_sub(self.gap_end) > MAX_REPEATED {
                self.gap_start = self.gap_end;
            }
        }
        let sent = self.sent.wrapping_add(length - from);
        self.sent = if sent > MAX_REPEATED { MAX_REPEATED } else { sent };
        Arrival::New(from)
    }

    /// Counts the bytes of a repeated segment that have never passed here.
    ///
    /// Such bytes are in a gap, or were sent before the connection was joined.
    #[inline(always)]
    fn count_repeated(&mut self, seq: u32, behind: u32, length: u32, counts: &mut SegmentCounts) {
        counts.repeated = 1;
        if behind <= self.sent && self.gap_start == self.gap_end {
            return;
        }
        cold_path();
        let end = if behind < length { behind } else { length };
        let unknown = behind.saturating_sub(self.sent);
        let unknown = if unknown < end { unknown } else { end };
        // The part of the segment in the gap, by offset.
        let gap_bytes = self.gap_end.wrapping_sub(self.gap_start);
        let gap_offset = self.gap_start.wrapping_sub(seq) as i32;
        let (first, last) = (gap_offset as i64, gap_offset as i64 + gap_bytes as i64);
        let (first, last) =
            (if first < 0 { 0 } else { first }, if last > end as i64 { end as i64 } else { last });
        let missed = if gap_bytes != 0 && last > first { (last - first) as u32 } else { 0 };
        let unread = if unknown > missed { unknown } else { missed };
        counts.blind_bytes = counts.blind_bytes.wrapping_add(unread);
        counts.desyncs = counts.desyncs.wrapping_add((unread != 0) as u32);
    }

    /// Returns true if a segment ahead of a gap is withheld. A gap at the first byte of a connection is never
    /// skipped.
    #[inline(always)]
    fn is_withheld_ahead(&mut self, seq: u32, opened: bool) -> bool {
        if self.ahead == 0 || (seq.wrapping_sub(self.ahead_seq) as i32) < 0 {
            (self.ahead, self.ahead_seq) = (1, seq);
            return true;
        }
        if seq != self.ahead_seq || opened && self.sent == 0 {
            return true;
        }
        self.ahead = self.ahead.wrapping_add(1);
        self.ahead < MAX_AHEAD
    }

    /// Skips the gap before `seq`. The stream is blind from `seq` on.
    #[inline(always)]
    fn skip_gap(&mut self, seq: u32, counts: &mut SegmentCounts) {
        counts.desyncs = counts.desyncs.wrapping_add((self.framing.sync == sync::IN_SYNC) as u32);
        self.framing.finish_message(counts);
        self.framing = Framing { sync: sync::BLIND, ..Framing::zeroed() };
        if self.gap_start == self.gap_end {
            self.gap_start = self.next_seq;
        }
        self.gap_end = seq;
        let gap = seq.wrapping_sub(self.next_seq);
        let sent = self.sent.wrapping_add(gap);
        // The bytes of the gap may still arrive, and are counted then.
        self.sent = if sent > MAX_REPEATED || gap > MAX_REPEATED { MAX_REPEATED } else { sent };
    }
}
