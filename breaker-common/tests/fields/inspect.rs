//! The walk under test, over fields of inspected messages.

use breaker_common::abi::{Framing, Inbound, sync};
use breaker_common::class;
use breaker_common::counts::SegmentCounts;
use breaker_common::fix::MsgType;
use breaker_common::inbound::NewBytes;
use breaker_common::message::{MessageKind, want};

use super::reference::{DECLARED, Found};
use breaker_replay::model::chunk::chunk;
use breaker_replay::model::payload::Bytes;

/// Direction of a stream, with the fields to find.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// Outbound, with the [`want`] bits for every message.
    Out(u32),
    /// Inbound.
    In,
}

impl Direction {
    fn kind(self, msg_type: MsgType) -> MessageKind {
        match self {
            Self::Out(any) => {
                class::outbound_kind(msg_type, (class::default_class(msg_type), false), any, want::POSSDUP)
            }
            Self::In => class::inbound_kind(msg_type),
        }
    }
}

/// Processes a segment. Panics if the walk makes no progress.
pub fn process(
    stream: &mut Inbound,
    direction: Direction,
    seq: u32,
    bytes: &[u8],
    counts: &mut SegmentCounts,
) {
    let Some(new) = stream.advance(seq, bytes.len() as u32, counts) else { return };
    let framing: &mut Framing = if new.late { &mut stream.gap.framing } else { &mut stream.framing };
    let NewBytes { from, to, .. } = new;
    let declared = DECLARED.map(|value| chunk(value.as_bytes()));
    let (mut payload, mut at, mut steps) = (Bytes(bytes, &declared), from, 0);
    while at < to {
        let next = match framing.sync {
            sync::IN_SYNC => {
                framing.step(&mut payload, (at, to), u32::MAX, |msg_type| direction.kind(msg_type), counts)
            }
            _ => framing.resync(&mut payload, (at, to), u32::MAX, counts),
        };
        assert!((at..=to).contains(&next), "from {at} to {next}, outside the segment");
        at = next;
        steps += 1;
        // A field takes one step, and a data field two more.
        assert!(steps <= 3 * (to - from) + 3, "{steps} steps over {new:?}");
    }
}

/// Returns the findings in a stream with these cuts, and the number of desyncs.
pub fn walked(direction: Direction, bytes: &[u8], cuts: &[usize]) -> (Found, u32) {
    let (mut stream, mut counts, mut from) = (Inbound::at(7), SegmentCounts::default(), 0);
    for to in cuts.iter().copied().chain([bytes.len()]) {
        process(&mut stream, direction, 7 + from as u32, &bytes[from..to], &mut counts);
        from = to;
    }
    assert_eq!(
        (stream.framing.field_state, stream.framing.field_values, stream.framing.data_remaining),
        (0, 0, 0),
        "the last message is not finished"
    );
    (
        Found {
            messages: std::array::from_fn(|class| counts.messages[class]),
            replays: counts.replays,
            comp_ids: counts.comp_ids,
        },
        counts.desyncs,
    )
}
