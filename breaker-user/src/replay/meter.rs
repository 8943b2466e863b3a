//! Sliding windows over the messages of a capture, without a limit.

use std::collections::VecDeque;

/// Messages of about the same time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    first_ns: u64,
    last_ns: u64,
    count: u64,
}

/// The number of messages in a sliding window.
///
/// The number is exact while a window has at most so many segments as it is made for. Above that, messages
/// closer to each other than a part of the window leave it together, so that the number is too high by those
/// messages at most.
#[derive(Clone, Debug)]
pub struct Meter {
    window_ns: u64,
    exact: usize,
    entries: VecDeque<Entry>,
    used: u64,
}

/// Segments with messages up to which a window is exact, if there are few windows.
pub const EXACT: usize = 4_096;
/// Entries of all windows together, 24 MB.
const ENTRIES_IN_ALL: usize = 1 << 20;
/// Segments up to which a window is exact, if all windows together have too many entries.
const EXACT_AT_LEAST: usize = 64;

/// The number of entries of all windows, so that their memory is bounded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entries(usize);

impl Meter {
    /// Makes a meter for windows of this length, exact up to so many segments in a window. A length of 0 is
    /// for all messages.
    pub fn new(window_ns: u64, exact: usize) -> Self {
        Self { window_ns, exact, entries: VecDeque::new(), used: 0 }
    }

    /// Adds messages. Returns the number in the window that ends now.
    pub fn add(&mut self, now_ns: u64, count: u64, all: &mut Entries) -> u64 {
        self.used += count;
        if self.window_ns == 0 {
            return self.used;
        }
        while let Some(oldest) = self.entries.front()
            && now_ns.saturating_sub(oldest.last_ns) >= self.window_ns
        {
            self.used -= oldest.count;
            self.entries.pop_front();
            all.0 -= 1;
        }
        let exact = if all.0 < ENTRIES_IN_ALL { self.exact } else { self.exact.min(EXACT_AT_LEAST) };
        let is_long = self.entries.len() >= exact;
        match self.entries.back_mut() {
            Some(last)
                if last.last_ns == now_ns
                    || is_long && now_ns - last.first_ns < self.window_ns / exact as u64 =>
            {
                (last.last_ns, last.count) = (now_ns, last.count + count);
            }
            _ => {
                self.entries.push_back(Entry { first_ns: now_ns, last_ns: now_ns, count });
                all.0 += 1;
            }
        }
        self.used
    }
}

/// The highest value of each bin of time, in a bounded number of bins.
#[derive(Clone, Debug)]
pub struct Series {
    start_ns: u64,
    bin_ns: u64,
    highest: Vec<u64>,
}

/// Most bins of a series.
const MAX_BINS: usize = 1_024;

impl Series {
    /// Makes a series that starts at this time.
    pub fn new(start_ns: u64) -> Self {
        const FIRST_BIN_NS: u64 = 1_000_000;
        Self { start_ns, bin_ns: FIRST_BIN_NS, highest: Vec::new() }
    }

    /// Adds a value. Times rise.
    pub fn add(&mut self, at_ns: u64, value: u64) {
        let since_ns = at_ns.saturating_sub(self.start_ns);
        while since_ns / self.bin_ns >= MAX_BINS as u64 {
            self.bin_ns *= 2;
            let pairs = self.highest.chunks(2).map(|pair| pair.iter().copied().max().unwrap_or_default());
            self.highest = pairs.collect();
        }
        let bin = (since_ns / self.bin_ns) as usize;
        if self.highest.len() <= bin {
            self.highest.resize(bin + 1, 0);
        }
        self.highest[bin] = self.highest[bin].max(value);
    }

    /// Returns the time of each bin and its highest value.
    pub fn points(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let at = |bin: usize| self.start_ns + bin as u64 * self.bin_ns;
        self.highest.iter().enumerate().map(move |(bin, value)| (at(bin), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_the_messages_of_its_length_and_no_older_one() {
        let (mut meter, mut all) = (Meter::new(1_000, EXACT), Entries::default());
        let added = [(0, 2, 2), (999, 1, 3), (1_000, 1, 2), (1_998, 1, 3), (1_999, 1, 3), (9_000, 5, 5)];
        for (now, count, used) in added {
            assert_eq!(meter.add(now, count, &mut all), used, "at {now}");
        }
        let mut total = Meter::new(0, EXACT);
        assert_eq!([0, 1 << 60].map(|now| total.add(now, 3, &mut all)), [3, 6]);
    }

    #[test]
    fn a_long_window_is_never_too_low_and_at_most_a_part_too_high() {
        const WINDOW: u64 = 1_000_000;
        let times: Vec<u64> = (0..60_000).map(|i| i * 37 + i % 5).collect();
        // In the second round all other windows together have too many entries.
        for (others, exact_up_to, too_high) in [(0, EXACT, 8), (ENTRIES_IN_ALL, EXACT_AT_LEAST, 500)] {
            let (mut meter, mut all) = (Meter::new(WINDOW, EXACT), Entries(others));
            for (i, now) in times.iter().enumerate() {
                let used = meter.add(*now, 1, &mut all);
                if i % 499 == 0 {
                    let exact = times[..=i].iter().filter(|then| now - **then < WINDOW).count() as u64;
                    assert!((exact..=exact + too_high).contains(&used), "{used} for {exact} at {now}");
                }
            }
            assert_eq!(all.0, others + meter.entries.len());
            assert!(meter.entries.len() <= 2 * exact_up_to, "{} entries", meter.entries.len());
        }
    }

    #[test]
    fn a_series_keeps_its_highest_values_in_few_bins() {
        let mut series = Series::new(5);
        (0..100_000).for_each(|i| series.add(5 + i * 1_000_000, if i == 77_777 { 9 } else { 1 }));
        let points: Vec<_> = series.points().collect();
        assert!(points.len() <= MAX_BINS && points.len() > MAX_BINS / 3, "{} bins", points.len());
        assert_eq!(points.iter().filter(|(_, value)| *value == 9).count(), 1);
    }
}
