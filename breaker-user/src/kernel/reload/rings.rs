//! The words that a ring must hold before a limit can use it. Pure.
//!
//! A limit that stays and needs a larger or a coarser ring keeps its window. Each word then has the time of
//! its granule's last ticket, or a later time, and never an earlier one. A new limit starts with an empty
//! window.

use breaker_common::abi::Limit;
use breaker_common::window::{self, Ring};

/// Low bits of a word that hold its lap; the bits above them hold the time.
const LAP_BITS: u32 = 4;
const LAP_MASK: u64 = (1 << LAP_BITS) - 1;

/// A slot and the word to write into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// The slot.
    pub slot: u64,
    /// The word.
    pub word: u64,
}

/// A ring that records the last write.
struct LastWrite(SlotWrite);

impl Ring for LastWrite {
    fn read(&self, _: u64) -> u64 {
        0
    }

    fn write(&mut self, slot: u64, word: u64) {
        self.0 = SlotWrite { slot, word };
    }
}

/// Returns the write that records the time of a granule.
fn write_of(limit: &Limit, granule: u64, time: u64) -> SlotWrite {
    let mut last = LastWrite(SlotWrite { slot: limit.ring.base.into(), word: 0 });
    window::record_times(
        &limit.ring,
        &mut last,
        granule << limit.ring.granule_bits,
        1 << limit.ring.granule_bits,
        time,
        1,
    );
    last.0
}

/// Returns the time that a ring has for a granule; `None` if the slot holds another granule.
fn time(limit: &Limit, ring: &impl Ring, granule: u64) -> Option<u64> {
    let SlotWrite { slot, word } = write_of(limit, granule, 0);
    let found = ring.read(slot);
    (found & LAP_MASK == word & LAP_MASK).then_some(found >> LAP_BITS)
}

/// Returns all words of a new ring of a limit with `issued` tickets. `now` was read after `issued`.
///
/// `before`: the limit and the ring that hold its window; `None` for a new window. Every slot is written: a
/// word left over from another limit may have the right lap.
pub fn fill(limit: &Limit, issued: u64, before: Option<(&Limit, &impl Ring)>, now: u64) -> Vec<SlotWrite> {
    if limit.per_ns == 0 {
        return Vec::new();
    }
    let slots = 1u64 << limit.ring.ring_bits;
    let base = u64::from(limit.ring.base);
    let mut words: Vec<_> = (base..base + slots).map(|slot| SlotWrite { slot, word: 0 }).collect();
    let end = issued >> limit.ring.granule_bits;
    let mut latest = if before.is_some() { now } else { 0 };
    for granule in (end.saturating_sub(slots)..end).rev() {
        if let Some((old, ring)) = before {
            let last = ((granule + 1) << limit.ring.granule_bits) - 1;
            latest = ticket_time(old, ring, issued, last, (latest, now));
        }
        let made = write_of(limit, granule, latest);
        words[(made.slot - base) as usize] = made;
    }
    words
}

/// Returns the time when a ticket was taken, or a later time. `latest` is the time of a later ticket.
fn ticket_time(old: &Limit, ring: &impl Ring, issued: u64, ticket: u64, (latest, now): (u64, u64)) -> u64 {
    let (granule, end) = (ticket >> old.ring.granule_bits, issued >> old.ring.granule_bits);
    if granule >= end {
        return now;
    }
    let slots = 1u64 << old.ring.ring_bits;
    // A slot that a later granule has overwritten may show the same lap, once in sixteen laps.
    let found = if granule + slots < end { None } else { time(old, ring, granule) };
    match found {
        Some(time) => time,
        // The slot is not written yet.
        None if granule + slots / 2 >= end => now,
        // The slot is overwritten.
        None => latest,
    }
}

/// Returns the writes that a new ring lacks for tickets `from..to`, which were taken by the rules of the old
/// ring. Each comes with the word that the slot holds now. Without these writes the tickets would read as
/// just taken for ever.
pub fn missing(limit: &Limit, ring: &impl Ring, (from, to): (u64, u64), now: u64) -> Vec<(u64, SlotWrite)> {
    if limit.per_ns == 0 {
        return Vec::new();
    }
    let (first, end) = (from >> limit.ring.granule_bits, to >> limit.ring.granule_bits);
    let first = first.max(end.saturating_sub(1 << limit.ring.ring_bits));
    let unwritten = (first..end).filter(|&granule| time(limit, ring, granule).is_none());
    let words = unwritten.map(|granule| write_of(limit, granule, now));
    words.map(|word| (ring.read(word.slot), word)).collect()
}

#[cfg(test)]
mod tests {
    use breaker_common::abi::{RingLayout, Window};
    use breaker_common::window::{granule_bits, ring_bits, tail};

    use super::*;

    struct Memory(Vec<u64>);

    impl Ring for Memory {
        fn read(&self, slot: u64) -> u64 {
            self.0[slot as usize]
        }

        fn write(&mut self, slot: u64, word: u64) {
            self.0[slot as usize] = word;
        }
    }

    const MS: u64 = 1_000_000;
    const PER: u64 = 1_000 * MS;

    fn limit(max: u64, base: u32) -> Limit {
        let ring = RingLayout {
            base,
            granule_bits: granule_bits(max) as u8,
            ring_bits: ring_bits(max) as u8,
            pad: 0,
        };
        Limit { max, per_ns: PER, ring, ..Limit::default() }
    }

    fn memory() -> Memory {
        // Words left over from another limit.
        Memory((0..16_384u64).map(|slot| slot.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect())
    }

    fn fresh(limit: &Limit) -> Memory {
        let mut memory = memory();
        fill(limit, 0, None::<(&Limit, &Memory)>, 0)
            .iter()
            .for_each(|word| memory.write(word.slot, word.word));
        memory
    }

    fn used(limit: &Limit, memory: &Memory, issued: u64, floor: u64, now: u64) -> u64 {
        issued - tail(limit, &Window { issued, floor, ..Window::default() }, memory, now)
    }

    /// Takes tickets one by one, in one ring.
    fn take(limit: &Limit, memory: &mut Memory, tickets: std::ops::Range<u64>, at: impl Fn(u64) -> u64) {
        tickets.for_each(|ticket| {
            window::record_times(&limit.ring, memory, ticket, 1, at(ticket), 1);
        });
    }

    #[test]
    fn a_write_has_the_slot_and_the_word_of_the_kernel_program() {
        for max in [1, 137, 2_046, 2_047, 50_000] {
            let (limit, mut memory) = (limit(max, 7), memory());
            for granule in [0u64, 1, 2_047, 2_048, 70_001] {
                let made = write_of(&limit, granule, 12_345);
                window::record_times(
                    &limit.ring,
                    &mut memory,
                    granule << limit.ring.granule_bits,
                    1 << limit.ring.granule_bits,
                    12_345,
                    1,
                );
                assert_eq!(memory.read(made.slot), made.word);
                assert_eq!(time(&limit, &memory, granule), Some(12_345));
                assert_eq!(made.word >> LAP_BITS, 12_345);
            }
        }
    }

    #[test]
    fn a_window_continues_in_another_ring() {
        for (before, after) in [
            (500, 600),
            (500, 2_046),
            (1_000, 5_000),
            (3_000, 50_000),
            (5_000, 500),
            (50_000, 3_000),
            (10, 11),
        ] {
            for issued in [0, 1, 9, 700, 1_023, 1_024, 4_096, 40_001, 70_000] {
                let (old, new) = (limit(before, 0), limit(after, 8_192));
                let mut memory = fresh(&old);
                // One ticket a millisecond, which keeps an old limit of 1,000 or more.
                let at = |ticket| 1_000_000 * MS + ticket * MS;
                take(&old, &mut memory, 0..issued, at);
                let now = at(issued);
                let words = fill(&new, issued, Some((&old, &memory)), now);
                assert_eq!(words.len(), 1 << new.ring.ring_bits);
                words.iter().for_each(|word| memory.write(word.slot, word.word));
                for later in [0, 1, 250, 500, 998, 999, 1_000, 2_000] {
                    let now = now + later * MS;
                    let within = |ticket: u64| at(ticket) + PER > now;
                    let real = (0..issued).filter(|ticket| within(*ticket)).count() as u64;
                    let holds =
                        |limit: &Limit| ((1u64 << limit.ring.ring_bits) - 1) << limit.ring.granule_bits;
                    let found = used(&new, &memory, issued, 0, now);
                    let case = format!("{before} {after} {issued} {later}: {found} of {real}");
                    // A ring counts at most the tickets that it holds, in whole granules.
                    assert!(
                        found >= real.min(holds(&new)).saturating_sub(1 << new.ring.granule_bits),
                        "{case}"
                    );
                    // Tickets of a disarmed scope that the old ring no longer held count as long as its
                    // oldest one.
                    if !within(issued.saturating_sub(holds(&old))) || issued <= holds(&old) {
                        let grain = (1 << old.ring.granule_bits) + (1 << new.ring.granule_bits);
                        assert!(found <= real + grain, "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_with_one_message_a_slot_continues_exactly() {
        let (old, new) = (limit(500, 0), limit(600, 8_192));
        let mut memory = fresh(&old);
        let at = |ticket| 5_000 * MS + ticket * 3 * MS;
        take(&old, &mut memory, 0..5_000, at);
        let now = at(5_000);
        let before: Vec<_> =
            (0..1_200).map(|later| used(&old, &memory, 5_000, 0, now + later * MS)).collect();
        fill(&new, 5_000, Some((&old, &memory)), now)
            .iter()
            .for_each(|word| memory.write(word.slot, word.word));
        let after: Vec<_> = (0..1_200).map(|later| used(&new, &memory, 5_000, 0, now + later * MS)).collect();
        assert_eq!(before, after);
        assert_eq!((after[0], after[1_100]), (333, 0));
    }

    #[test]
    fn a_new_limit_starts_with_an_empty_window() {
        for max in [10, 500, 5_000] {
            for issued in [0, 3, 1_000, 123_456] {
                let (new, mut memory) = (limit(max, 8_192), memory());
                let now = 9_000_000 * MS;
                let none = None::<(&Limit, &Memory)>;
                fill(&new, issued, none, now).iter().for_each(|word| memory.write(word.slot, word.word));
                assert_eq!(used(&new, &memory, issued, issued, now), 0);
                for more in 1..=max {
                    take(&new, &mut memory, issued + more - 1..issued + more, |_| now);
                    assert_eq!(used(&new, &memory, issued + more, issued, now), more, "{max} {issued}");
                }
                assert!(used(&new, &memory, issued + max, issued, now + PER) < 1 << new.ring.granule_bits);
            }
        }
    }

    #[test]
    fn a_slot_that_is_not_written_yet_counts_in_the_window() {
        // With a left-over word of the right lap, a ticket just taken would read as an old one.
        let (new, mut memory) = (limit(500, 8_192), memory());
        let now = 9_000_000 * MS;
        fill(&new, 10_000, None::<(&Limit, &Memory)>, now)
            .iter()
            .for_each(|word| memory.write(word.slot, word.word));
        for issued in 10_001..10_500 {
            assert_eq!(used(&new, &memory, issued, 10_000, now), issued - 10_000);
        }
    }

    #[test]
    fn tickets_taken_in_the_old_ring_meanwhile_leave_the_window_in_time() {
        for (before, after) in [(500, 600), (1_000, 5_000), (5_000, 1_000)] {
            let (old, new) = (limit(before, 0), limit(after, 8_192));
            let mut memory = fresh(&old);
            let at = |ticket| 5_000 * MS + ticket * 2 * MS;
            take(&old, &mut memory, 0..3_000, at);
            fill(&new, 3_000, Some((&old, &memory)), at(3_000))
                .iter()
                .for_each(|word| memory.write(word.slot, word.word));
            take(&old, &mut memory, 3_000..3_040, at);
            take(&new, &mut memory, 3_040..3_060, at);
            let now = at(3_060);
            let counted = used(&new, &memory, 3_060, 0, now);
            assert!(counted >= 499, "{counted}");
            let completed = missing(&new, &memory, (3_000, 3_060), now);
            assert!(completed.iter().all(|(_, word)| word.word >> LAP_BITS == now));
            assert!(!completed.is_empty());
            for (seen, word) in completed {
                assert_eq!(memory.read(word.slot), seen);
                memory.write(word.slot, word.word);
            }
            assert!(missing(&new, &memory, (3_000, 3_060), now).is_empty());
            let left = used(&new, &memory, 3_060, 0, now + PER);
            assert!(left < 1 << new.ring.granule_bits.max(1), "{left}");
        }
    }

    #[test]
    fn a_total_has_no_ring() {
        let total = Limit { max: 5, ..Limit::default() };
        assert!(fill(&total, 77, None::<(&Limit, &Memory)>, 5).is_empty());
        assert!(missing(&total, &memory(), (0, 77), 5).is_empty());
    }
}
