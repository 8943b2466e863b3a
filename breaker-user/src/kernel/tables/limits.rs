//! Lays limits out: their positions in a scope, and their rings in the memory of all rings.

use std::ops::Range;

use anyhow::{Result, bail};
use breaker_common::abi::{self, LIMITS_PER_SCOPE, Limit, Rules};
use breaker_common::window::{granule_bits, ring_bits};

use crate::config::{self, Per};

/// The limits of a scope on one side: the positions in use, and the limits.
pub type ScopeLimits = (Rules, [Limit; LIMITS_PER_SCOPE]);

/// Lays the limits of a scope out beside those in force. A limit with the same window keeps its position. It
/// also keeps its ring if that is large enough.
pub fn lay_out(
    limits: &[config::Limit],
    (before, old): ScopeLimits,
    rings: &mut RingAllocator,
) -> Result<ScopeLimits> {
    let made: Vec<_> = limits.iter().take(LIMITS_PER_SCOPE).map(limit).collect();
    let was_used = |i: usize| before.positions >> i & 1 == 1;
    let kept_position =
        |limit: &Limit| (0..LIMITS_PER_SCOPE).find(|&i| was_used(i) && same_window(&old[i], limit));
    let kept: Vec<Option<usize>> = made.iter().map(kept_position).collect();
    // Positions without a limit in force come first: their windows are empty.
    let mut free: Vec<_> = (0..LIMITS_PER_SCOPE).filter(|i| !kept.contains(&Some(*i))).collect();
    free.sort_by_key(|&i| was_used(i));
    let mut free = free.into_iter();
    let mut rules = Rules { positions: Rules::DECLARED, pad: 0 };
    let mut laid_out = [Limit::default(); LIMITS_PER_SCOPE];
    for (mut limit, kept) in made.into_iter().zip(kept) {
        let Some(position) = kept.or_else(|| free.next()) else { continue };
        match kept.map(|i| &old[i]).filter(|old| fits(old, &limit)) {
            Some(old) => limit.ring = old.ring,
            None if limit.per_ns == 0 => {}
            None => limit.ring.base = rings.allocate(1 << limit.ring.ring_bits)?,
        }
        rules.positions |= 1 << position;
        laid_out[position] = limit;
    }
    Ok((rules, laid_out))
}

/// Returns true if two limits count the same messages over the same time, so that one can continue the
/// other's window.
pub fn same_window(old: &Limit, new: &Limit) -> bool {
    (old.class, old.per_ns, old.per_fill != 0) == (new.class, new.per_ns, new.per_fill != 0)
}

/// Returns true if the ring of `old` has room for `limit`, which has the same window.
fn fits(old: &Limit, limit: &Limit) -> bool {
    old.ring.granule_bits == limit.ring.granule_bits && old.ring.ring_bits >= limit.ring.ring_bits
}

/// Returns a limit as the maps store it, with a ring at slot 0.
fn limit(limit: &config::Limit) -> Limit {
    let max = limit.max.get() as u64;
    let per_ns = match limit.per {
        Per::Window(window) => window.as_nanos() as u64,
        Per::Total => 0,
    };
    let mut warn = [0; abi::WARNINGS_PER_LIMIT];
    for (level, percent) in warn.iter_mut().zip(limit.warn.as_slice()) {
        *level = (max * *percent as u64).div_ceil(100);
    }
    let ring = if per_ns == 0 {
        abi::RingLayout::NONE
    } else {
        abi::RingLayout {
            base: 0,
            granule_bits: granule_bits(max) as u8,
            ring_bits: ring_bits(max) as u8,
            pad: 0,
        }
    };
    let per_fill = limit.per_fill.map_or(0, |ratio| ratio.get());
    Limit { class: limit.class as u32, max, per_ns, warn, per_fill, ring }
}

/// Allocates rings in the memory of all rings, in the gaps between the rings in use.
pub struct RingAllocator {
    /// Gaps in ascending order; the last one ends at [`Self::MAX_SLOTS`].
    gaps: Vec<Range<u32>>,
    /// End of the slots in use.
    end: u32,
}

impl RingAllocator {
    /// Slots of all rings together.
    const MAX_SLOTS: u32 = u32::MAX / 8;

    /// An allocator for which these rings are in use.
    pub fn new(mut used: Vec<Range<u32>>) -> Self {
        used.sort_by_key(|ring| ring.start);
        let mut made = Self { gaps: Vec::new(), end: 0 };
        for ring in used {
            if ring.start > made.end {
                made.gaps.push(made.end..ring.start);
            }
            made.end = made.end.max(ring.end);
        }
        made.gaps.push(made.end..Self::MAX_SLOTS);
        made
    }

    /// End of the slots in use.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Allocates so many slots in the first gap that has them. Returns the first slot.
    fn allocate(&mut self, count: u32) -> Result<u32> {
        let Some(gap) = self.gaps.iter_mut().find(|gap| gap.end - gap.start >= count) else {
            bail!(
                "laying out the limits: their rings need more than {} slots: use fewer or smaller limits",
                Self::MAX_SLOTS
            );
        };
        let start = gap.start;
        gap.start += count;
        self.end = self.end.max(gap.start);
        Ok(start)
    }
}
