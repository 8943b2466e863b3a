//! Payload in memory, and the walk over a segment of it: what breaker-ebpf does in `payload` and `work::walk`.

use breaker_common::abi::identity;
use breaker_common::abi::{Framing, sync};
use breaker_common::class;
use breaker_common::counts::SegmentCounts;
use breaker_common::fix::{CHUNK, Chunk, MsgType};
use breaker_common::message::MessageKind;
use breaker_common::payload::Payload;

/// `8=FIX.4.4|9=5|35=0|10=000|`: no message is shorter, so no segment holds more messages than its length tells.
const SHORTEST: u32 = 26;

/// The payload of a segment, and the CompIDs that are declared, by number from [`identity::FIRST`] on.
pub struct Bytes<'a>(pub &'a [u8], pub &'a [Chunk]);

impl Payload for Bytes<'_> {
    fn chunk(&mut self, offset: u32, length: u32) -> Option<Chunk> {
        let length = length as usize;
        assert!((1..=CHUNK).contains(&length), "{length} bytes asked for");
        let bytes = &self.0[offset as usize..][..length];
        let mut window = [0; CHUNK];
        window[..length].copy_from_slice(bytes);
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| window[8 * i + j]));
        Some(std::array::from_fn(word))
    }

    fn find(&mut self, from: u32, to: u32) -> u32 {
        let bytes = &self.0[from as usize..to as usize];
        bytes.windows(5).position(|window| window == b"8=FIX").map_or(to, |at| from + at as u32)
    }

    fn comp_id(&mut self, value: &Chunk) -> u32 {
        self.1
            .iter()
            .position(|known| known == value)
            .map_or(identity::UNKNOWN, |at| identity::FIRST + at as u32)
    }
}

/// Counts the messages that start in the bytes `from..to` of a segment; with `hops` as where nothing is looked at. Fails where a step
/// makes no progress.
pub fn walk(
    framing: &mut Framing,
    mut payload: Bytes<'_>,
    (from, to): (u32, u32),
    longest: u32,
    kind_of: impl Fn(MsgType) -> MessageKind,
    hops: bool,
    counts: &mut SegmentCounts,
) {
    let mut at = steps(framing, &mut payload, (from, to), longest, &kind_of, hops, counts);
    if framing.body_remaining != 0 && framing.sync == sync::IN_SYNC {
        at = framing.find_embedded(&mut payload, (from, to), longest, counts);
        assert!((from..=to).contains(&at), "find_embedded from {from} to {at}, outside the segment");
        at = steps(framing, &mut payload, (at, to), longest, &kind_of, hops, counts);
    }
    assert_eq!(at, to);
}

fn steps(
    framing: &mut Framing,
    payload: &mut Bytes<'_>,
    (from, to): (u32, u32),
    longest: u32,
    kind_of: impl Fn(MsgType) -> MessageKind,
    hops: bool,
    counts: &mut SegmentCounts,
) -> u32 {
    let (mut at, mut steps, mut looked_at) = (from, 0, framing.field_state != 0);
    let mut lost = 0;
    while at < to {
        if hops {
            let next =
                framing.skip_common(payload, (at, to), (16, longest), class::single_char_class, counts);
            assert!((at..=to).contains(&next), "hopped from {at} to {next}, outside the segment");
            at = next;
        }
        if at == to {
            break;
        }
        let follows = framing.sync == sync::IN_SYNC;
        let next = match follows {
            true => framing.step(payload, (at, to), longest, &kind_of, counts),
            false => framing.resync(payload, (at, to), longest, counts),
        };
        assert!((at..=to).contains(&next), "from {at} to {next}, outside the segment");
        lost += u32::from(framing.sync != sync::IN_SYNC || !follows);
        at = next;
        steps += 1;
        // A field that is looked at takes a step or two, and has two bytes at least.
        let most = (to - from) / if framing.field_state == 0 && !looked_at { SHORTEST } else { 1 } + 2;
        assert!(steps <= most + lost, "{steps} steps over {from}..{to}");
        looked_at |= framing.field_state != 0;
    }
    at
}
