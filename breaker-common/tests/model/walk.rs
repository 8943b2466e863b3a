//! Payload in memory, and the walk over a segment of it: what breaker-ebpf does in `payload` and `work::walk`.

use breaker_common::abi::identity;
use breaker_common::class;
use breaker_common::fix::{MsgType, WINDOW, Words};
use breaker_common::stream::{Framing, Fresh, Kind, Payload, Tally};

/// `8=FIX.4.4|9=5|35=0|10=000|`: no message is shorter, so no segment holds more messages than its length tells.
const SHORTEST: u32 = 26;

/// The payload of a segment, and the CompIDs that are declared, by number from [`identity::FIRST`] on.
pub struct Bytes<'a>(pub &'a [u8], pub &'a [Words]);

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

    fn comp_id(&mut self, value: &Words) -> u32 {
        self.1.iter().position(|known| known == value).map_or(identity::UNKNOWN, |at| identity::FIRST + at as u32)
    }
}

/// Counts the messages that start in the new bytes of a segment; with `hops` as where nothing is looked at. Fails where a step makes no progress.
pub fn walk(
    framing: &mut Framing,
    mut payload: Bytes<'_>,
    fresh: &Fresh,
    kind_of: impl Fn(MsgType) -> Kind,
    hops: bool,
    tally: &mut Tally,
) {
    framing.resync(&mut payload, fresh);
    let (mut at, mut steps, mut looked_at) = (fresh.from, 0, framing.scan != 0);
    while at < fresh.to {
        if hops {
            let next = framing.hop(&mut payload, (at, fresh.to), 16, class::of_one, tally);
            assert!((at..=fresh.to).contains(&next), "hopped from {at} to {next}, outside the segment");
            at = next;
        }
        if at == fresh.to {
            break;
        }
        let next = framing.step(&mut payload, at, fresh.to, &kind_of, tally);
        assert!((at..=fresh.to).contains(&next), "from {at} to {next}, outside the segment");
        at = next;
        steps += 1;
        // A field that is looked at takes a step or two, and has two bytes at least.
        let most = (fresh.to - fresh.from) / if framing.scan == 0 && !looked_at { SHORTEST } else { 1 } + 2;
        assert!(steps <= most, "{steps} steps over {fresh:?}");
        looked_at |= framing.scan != 0;
    }
}
