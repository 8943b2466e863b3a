//! The walk over a segment, as the kernel program calls it.

use breaker_common::abi::{Framing, sync};
use breaker_common::blind::MAX_EMBEDDED;
use breaker_common::class;
use breaker_common::counts::SegmentCounts;
use breaker_common::fix::MsgType;
use breaker_common::message::MessageKind;

use super::payload::Bytes;

/// Length of the shortest message, `8=FIX.4.4|9=5|35=0|10=000|`. It bounds the number of messages in a
/// segment.
const MIN_MESSAGE_BYTES: u32 = 26;

/// Settings of a walk.
pub struct Walk<K> {
    /// Maximum length of a message in bytes.
    pub longest: u32,
    /// Returns the kind of a message by its MsgType.
    pub kind_of: K,
    /// True if the walk skips messages with a common header at once. The kernel does so if no field is
    /// inspected.
    pub skips_common: bool,
}

impl<K: Fn(MsgType) -> MessageKind> Walk<K> {
    /// Counts the messages that start in the bytes `from..to` of a segment. A debug
    /// build panics if a step makes no progress.
    pub fn segment(
        &self,
        framing: &mut Framing,
        mut payload: Bytes<'_>,
        (from, to): (u32, u32),
        counts: &mut SegmentCounts,
    ) {
        let mut at = self.steps(framing, &mut payload, (from, to), counts);
        if framing.claims_more() {
            at = self.find_embedded(framing, &mut payload, (from, to), counts);
            let first = at;
            at = self.steps(framing, &mut payload, (at, to), counts);
            if framing.claims_more() && first < to {
                at = self.find_embedded(framing, &mut payload, (first, to), counts);
            }
        }
        if at < to {
            framing.mark_blind((at, to), counts);
        }
    }

    /// Searches for a message inside the last message: returns its offset, or `to` if there is none.
    fn find_embedded(
        &self,
        framing: &mut Framing,
        payload: &mut Bytes<'_>,
        (from, to): (u32, u32),
        counts: &mut SegmentCounts,
    ) -> u32 {
        let mut at = from;
        for _ in 0..MAX_EMBEDDED {
            let next = framing.try_embedded(payload, (at, to), self.longest, counts);
            debug_assert!((at..=to).contains(&next), "from {at} to {next}, outside the segment");
            at = next;
            if at == to || !framing.claims_more() {
                return at;
            }
        }
        framing.lose_sync(counts);
        to
    }

    fn steps(
        &self,
        framing: &mut Framing,
        payload: &mut Bytes<'_>,
        (from, to): (u32, u32),
        counts: &mut SegmentCounts,
    ) -> u32 {
        let (mut at, mut steps, mut inspected) = (from, 0, framing.field_state != 0);
        let mut blind_steps = 0;
        while at < to {
            if self.skips_common {
                let limits = (16, self.longest);
                let next = framing.skip_common(payload, (at, to), limits, class::single_char_class, counts);
                debug_assert!(
                    (at..=to).contains(&next),
                    "skip_common from {at} to {next}, outside the segment"
                );
                at = next;
            }
            if at == to {
                break;
            }
            let in_sync = framing.sync == sync::IN_SYNC;
            let next = match in_sync {
                true => framing.step(payload, (at, to), self.longest, &self.kind_of, counts),
                false => framing.resync(payload, (at, to), self.longest, counts),
            };
            debug_assert!((at..=to).contains(&next), "from {at} to {next}, outside the segment");
            blind_steps += u32::from(framing.sync != sync::IN_SYNC || !in_sync);
            at = next;
            steps += 1;
            // An inspected field takes one or two steps and has at least two bytes.
            let bytes_per_step = if framing.field_state == 0 && !inspected { MIN_MESSAGE_BYTES } else { 1 };
            let max_steps = (to - from) / bytes_per_step + 2;
            debug_assert!(steps <= max_steps + blind_steps, "{steps} steps over {from}..{to}");
            inspected |= framing.field_state != 0;
        }
        at
    }
}
