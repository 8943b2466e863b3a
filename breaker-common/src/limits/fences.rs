//! Reconnect loops: a tripped session is isolated after three fenced connections in quick succession.

use crate::abi::Fences;

use super::scope::SharedScope;

/// Time in ns within which three fenced connections of a tripped session are a reconnect loop.
const LOOP_NS: u64 = 60_000_000_000;

/// Records a fenced connection of a tripped session. Returns true if this fence isolates the session.
///
/// `raised` is the epoch sum whose raising fenced the connection, or 0 if its own message did. A trip may
/// fence any number of older connections, and all of them count as one fence. `resets` is the sum over the
/// scopes of the session. A reset discards the recorded fences.
#[inline(always)]
pub fn record_fence(scope: &impl SharedScope, now: u64, raised: u64, resets: u64) -> bool {
    let mut fences = scope.fences();
    if fences.generation >> 1 != resets {
        fences = Fences { generation: resets << 1, ..Fences::default() };
    }
    if raised != 0 && fences.epoch == raised {
        return false;
    }
    if raised != 0 {
        fences.epoch = raised;
    }
    let third = fences.before_ns != 0 && now.wrapping_sub(fences.before_ns) < LOOP_NS;
    let isolates = third && fences.generation & 1 == 0;
    fences.generation |= third as u64;
    (fences.before_ns, fences.last_ns) = (fences.last_ns, now);
    scope.set_fences(fences);
    isolates
}

/// Returns true if the session is isolated and no scope of the session has been reset since.
#[inline(always)]
pub fn is_isolated(scope: &impl SharedScope, resets: u64) -> bool {
    scope.fences().generation == resets << 1 | 1
}
