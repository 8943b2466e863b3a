//! Which bytes of a segment that goes out are new, by TCP sequence number (RFC 9293).
//!
//! Only bytes behind `next_seq` are new, and only bytes that were let through can come again. What lies before the first byte of a
//! connection is of another one, and what lies ahead of a gap is withheld until the gap is filled: TCP sends both again. So every byte
//! is read in its order, and a stream is lost to a gap only where the gap stays, because its bytes took another way.

use core::hint::cold_path;

use bytemuck::Zeroable;

use crate::abi::{Framing, Stream, sync};
use crate::counts::SegmentCounts;

/// No TCP window is larger (RFC 7323, 2.3), so nothing older comes again.
pub const MAX_REPEATED: u32 = 1 << 30;
/// A segment ahead of a gap that comes so often is what TCP sends first: its peer has the bytes of the gap by another way. A tail loss
/// probe alone (RFC 8985, 7) sends one again once.
const MAX_AHEAD: u32 = 4;

/// What of a segment is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing.
    Repeated,
    /// The payload from this offset on.
    New(u32),
    /// It lies ahead of a gap, and is to be withheld until that is filled.
    Ahead,
    /// It lies before the first byte of the connection: it is of another one with the same addresses.
    Foreign,
}

impl Stream {
    /// A connection whose first payload byte will have this sequence number.
    pub fn at(next_seq: u32) -> Self {
        Self { next_seq, ..Self::zeroed() }
    }

    /// A connection first seen in mid-stream, at a segment with this sequence number.
    pub fn joined(next_seq: u32) -> Self {
        let mut stream = Self::at(next_seq);
        stream.framing.sync = sync::BLIND;
        stream
    }

    /// Whether a segment neither goes on where the stream is nor repeats what was sent, so that it may be one to withhold.
    #[inline(always)]
    pub fn is_out_of_order(&self, seq: u32) -> bool {
        self.next_seq.wrapping_sub(seq) > self.sent
    }

    /// Takes note of a segment of `length` payload bytes at `seq` and says which of them are new. `opened`: the connection's SYN was
    /// seen; `withholds`: one that is out of place may be withheld.
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
            if withholds && self.waits(seq, opened) {
                return Arrival::Ahead;
            }
            self.jump(seq, counts);
        } else if behind > 0 {
            cold_path();
            let behind = behind as u32;
            if behind > self.sent && opened {
                // A keepalive probe may hold a byte before the first one (RFC 9293, 3.8.4). Unless a segment may be withheld, it is told.
                if behind == self.sent + 1 && length == 1 {
                    return Arrival::Repeated;
                }
                if withholds {
                    return Arrival::Foreign;
                }
            }
            self.repeat(seq, behind, length, counts);
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

    /// Counts the bytes of a repeated segment that were never let through here: those before a connection was joined, and those of a gap.
    #[inline(always)]
    fn repeat(&mut self, seq: u32, behind: u32, length: u32, counts: &mut SegmentCounts) {
        counts.repeated = 1;
        if behind <= self.sent && self.gap_start == self.gap_end {
            return;
        }
        cold_path();
        let end = if behind < length { behind } else { length };
        let unknown = behind.saturating_sub(self.sent);
        let unknown = if unknown < end { unknown } else { end };
        // The part of the segment that lies in the gap, by offset.
        let room = self.gap_end.wrapping_sub(self.gap_start);
        let lacking = self.gap_start.wrapping_sub(seq) as i32;
        let (first, last) = (lacking as i64, lacking as i64 + room as i64);
        let (first, last) =
            (if first < 0 { 0 } else { first }, if last > end as i64 { end as i64 } else { last });
        let missed = if room != 0 && last > first { (last - first) as u32 } else { 0 };
        let unread = if unknown > missed { unknown } else { missed };
        counts.blind_bytes = counts.blind_bytes.wrapping_add(unread);
        counts.desyncs = counts.desyncs.wrapping_add((unread != 0) as u32);
    }

    /// Whether a segment ahead of a gap is to wait until that is filled. The first byte of a connection is always waited for.
    #[inline(always)]
    fn waits(&mut self, seq: u32, opened: bool) -> bool {
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

    /// Goes on behind bytes that took another way: the stream is blind from here.
    #[inline(always)]
    fn jump(&mut self, seq: u32, counts: &mut SegmentCounts) {
        counts.desyncs = counts.desyncs.wrapping_add((self.framing.sync == sync::IN_SYNC) as u32);
        self.framing.finish_message(counts);
        self.framing = Framing { sync: sync::BLIND, ..Framing::zeroed() };
        if self.gap_start == self.gap_end {
            self.gap_start = self.next_seq;
        }
        self.gap_end = seq;
        let gap = seq.wrapping_sub(self.next_seq);
        let sent = self.sent.wrapping_add(gap);
        // What lies in the gap may come again too, and is counted then.
        self.sent = if sent > MAX_REPEATED || gap > MAX_REPEATED { MAX_REPEATED } else { sent };
    }
}
