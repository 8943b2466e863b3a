//! Payload in memory, and the walk over a segment of it: what breaker-ebpf does in `payload` and `work::walk`.

use breaker_common::class::Class;
use breaker_common::fix::{MsgType, WINDOW, Words};
use breaker_common::stream::{Framing, Fresh, Payload, Tally};

/// `8=FIX.4.4|9=5|35=0|10=000|`: no message is shorter, so no segment holds more messages than its length tells.
const SHORTEST: u32 = 26;

/// The payload of a segment.
pub struct Bytes<'a>(pub &'a [u8]);

impl Payload for Bytes<'_> {
    fn window(&mut self, offset: u32, length: u32) -> Option<Words> {
        let length = length as usize;
        assert!((1..=WINDOW).contains(&length), "{length} bytes asked for");
        let bytes = &self.0[offset as usize..][..length];
        let mut window = [0; WINDOW];
        window[..length].copy_from_slice(bytes);
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| window[8 * i + j]));
        Some(std::array::from_fn(word))
    }
}

/// Counts the messages that start in the new bytes of a segment. Fails where a step makes no progress.
pub fn walk(
    framing: &mut Framing,
    payload: &[u8],
    fresh: &Fresh,
    class_of: impl Fn(MsgType) -> Class,
    tally: &mut Tally,
) {
    let mut payload = Bytes(payload);
    framing.resync(&mut payload, fresh);
    let (mut at, mut steps) = (fresh.from, 0);
    while at < fresh.to {
        let next = framing.step(&mut payload, at, fresh.to, &class_of, tally);
        assert!((at..=fresh.to).contains(&next), "from {at} to {next}, outside the segment");
        at = next;
        steps += 1;
        assert!(steps <= (fresh.to - fresh.from) / SHORTEST + 2, "{steps} steps over {fresh:?}");
    }
}
