//! Moves the windows of limits into new rings during a reload.

use anyhow::{Context, Result};
use breaker_common::abi::Limit;
use breaker_common::window::Ring;

use super::PolicyChange;
use super::rings::{self, SlotWrite};
use crate::kernel::clock;
use crate::kernel::memory::{Mapped, ORDER, atomic_u64};
use crate::kernel::pins::PinRoot;
use crate::kernel::tables::limits::same_window;

/// A limit with a new ring or a new window.
pub struct MovedLimit<'a> {
    scope: u32,
    position: usize,
    limit: &'a Limit,
    /// The limit whose window it continues; `None` if the window is new.
    before: Option<Limit>,
}

impl PolicyChange {
    /// The limits whose window or ring is new.
    pub(super) fn moved_limits(&self) -> Vec<MovedLimit<'_>> {
        let mut moved = Vec::new();
        for (scope, (rules, limits)) in self.next.rules.iter().enumerate() {
            let old = self.now.limits(scope);
            for position in (0..limits.len()).filter(|i| rules.positions >> i & 1 == 1) {
                let limit = &limits[position];
                let before = old
                    .iter()
                    .find(|(i, old)| *i == position && same_window(old, limit))
                    .map(|(_, old)| *old);
                if before.is_none_or(|before| limit.per_ns != 0 && before.ring != limit.ring) {
                    moved.push(MovedLimit { scope: scope as u32, position, limit, before });
                }
            }
        }
        moved
    }

    /// Fills a new ring, and empties a new window. Returns the number of tickets issued so far.
    pub(super) fn fill_ring(&self, moved: &MovedLimit<'_>, rings: &RingMemory) -> Result<u64> {
        let scope = self.breaker.scopes().ptr(moved.scope).context("a scope is not in its map")?.as_ptr();
        // SAFETY: the window lies inside the mapping, which the breaker holds.
        let window = unsafe { &raw mut (*scope).windows[moved.position] };
        // SAFETY: as above.
        let issued = unsafe { atomic_u64(&raw mut (*window).issued) }.load(ORDER);
        let before = moved.before.as_ref().map(|before| (before, &rings));
        for SlotWrite { slot, word } in rings::fill(moved.limit, issued, before, clock::now_ns()) {
            rings.put(slot, word)?;
        }
        if moved.before.is_none() {
            // SAFETY: as above. A limit in force that still uses this window loses its count a moment before
            // it ends.
            unsafe {
                let fills = atomic_u64(&raw mut (*window).fills).load(ORDER);
                atomic_u64(&raw mut (*window).fill_floor).store(fills, ORDER);
                atomic_u64(&raw mut (*window).floor).store(issued, ORDER);
                atomic_u64(&raw mut (*window).peak).store(0, ORDER);
                atomic_u64(&raw mut (*window).level).store(0, ORDER);
            }
        }
        Ok(issued)
    }

    /// Writes the times of tickets that were taken by the old ring between the filling, at `issued` tickets,
    /// and the store of the side.
    pub(super) fn complete_ring(
        &self,
        moved: &MovedLimit<'_>,
        issued: u64,
        rings: &RingMemory,
    ) -> Result<()> {
        let scope = self.breaker.scopes().get(moved.scope).context("a scope is not in its map")?;
        let end = scope.windows[moved.position].issued;
        for (seen, SlotWrite { slot, word }) in
            rings::missing(moved.limit, &rings, (issued, end), clock::now_ns())
        {
            rings.replace(slot, seen, word);
        }
        Ok(())
    }
}

/// The memory of all rings, written word by word.
pub struct RingMemory(Mapped<u64>);

impl RingMemory {
    pub(super) fn open(root: &PinRoot) -> Result<Self> {
        Mapped::open(&root.map("TIMES")).map(Self)
    }

    fn put(&self, slot: u64, value: u64) -> Result<()> {
        let slot = u32::try_from(slot).ok().and_then(|slot| self.0.ptr(slot));
        let word = slot.context("a slot is not in map TIMES")?;
        // SAFETY: the word lies inside the mapping, which self holds.
        unsafe { atomic_u64(word.as_ptr()) }.store(value, ORDER);
        Ok(())
    }

    /// Replaces a word that still has the value `seen`. The kernel program's own write wins.
    fn replace(&self, slot: u64, seen: u64, value: u64) {
        if let Some(word) = u32::try_from(slot).ok().and_then(|slot| self.0.ptr(slot)) {
            // SAFETY: the word lies inside the mapping, which self holds.
            let _ = unsafe { atomic_u64(word.as_ptr()) }.compare_exchange(seen, value, ORDER, ORDER);
        }
    }
}

impl Ring for &RingMemory {
    fn read(&self, slot: u64) -> u64 {
        u32::try_from(slot).ok().and_then(|slot| self.0.get(slot)).unwrap_or_default()
    }

    /// Does nothing: a reload writes by `RingMemory::put` and `RingMemory::replace`.
    fn write(&mut self, _: u64, _: u64) {}
}
