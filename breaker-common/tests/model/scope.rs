//! A scope in memory. The kernel program has the same in a map.

use std::cell::Cell;

use breaker_common::abi::{Fences, Limit, RingLayout, Scope, Switch, Trip, Window};
use breaker_common::limits::SharedScope;
use breaker_common::window::{self, Ring};

/// Adds a limit to a scope.
pub fn add_limit(scope: &mut Scope, limit: Limit) {
    let position = scope.rules[0].positions.count_ones();
    scope.limits[0][position as usize] = limit;
    scope.rules[0].positions |= 1 << position;
}

/// The rings of all limits.
struct Times<'a>(&'a [Cell<u64>]);

impl Ring for Times<'_> {
    fn read(&self, slot: u64) -> u64 {
        self.0[slot as usize].get()
    }

    fn write(&mut self, slot: u64, word: u64) {
        self.0[slot as usize].set(word);
    }
}

/// A scope with the rings of its limits.
#[derive(Clone, Copy)]
pub struct CellScope<'a> {
    /// Scope.
    pub scope: &'a Cell<Scope>,
    /// Rings of all limits.
    pub times: &'a [Cell<u64>],
}

impl CellScope<'_> {
    fn update<T>(&self, change: impl FnOnce(&mut Scope) -> T) -> T {
        let mut scope = self.scope.get();
        let result = change(&mut scope);
        self.scope.set(scope);
        result
    }
}

impl SharedScope for CellScope<'_> {
    type Limit = Box<Limit>;

    fn switch(&self) -> Switch {
        self.scope.get().switch
    }

    fn armed(&self) -> bool {
        self.scope.get().armed != 0
    }

    fn limit(&self, i: usize) -> Box<Limit> {
        Box::new(self.scope.get().limits[0][i])
    }

    fn window(&self, i: usize) -> Window {
        self.scope.get().windows[i]
    }

    fn issued(&self, i: usize) -> u64 {
        self.scope.get().windows[i].issued
    }

    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64 {
        window::tail(limit, &Window { issued, ..self.window(i) }, &Times(self.times), now)
    }

    /// Writes the times in calls of up to 64 words, like the kernel program.
    fn record_times(&self, layout: &RingLayout, first: u64, count: u64, now: impl FnOnce() -> u64) {
        if window::granules_completed(layout, first, count) == 0 {
            return;
        }
        let now = now();
        if window::granules_completed(layout, first, count) == 1 {
            return window::record_time(layout, &mut Times(self.times), first, now);
        }
        let mut left = count;
        let mut calls = 0;
        while left != 0 && calls <= window::MAX_SLOTS / 64 {
            left =
                window::record_times(layout, &mut Times(self.times), first + (count - left), left, now, 64);
            calls += 1;
        }
        assert_eq!(left, 0, "{count} tickets from {first} on have no time");
    }

    fn issue_tickets(&self, i: usize, count: u64) -> u64 {
        self.update(|scope| {
            let before = scope.windows[i].issued;
            scope.windows[i].issued += count;
            before
        })
    }

    fn set_tail(&self, i: usize, tail: u64) {
        self.update(|scope| scope.windows[i].tail = tail);
    }

    fn set_peak(&self, i: usize, peak: u64) {
        self.update(|scope| scope.windows[i].peak = peak);
    }

    fn recheck_at(&self, i: usize) -> u64 {
        self.scope.get().windows[i].recheck_at[0]
    }

    fn set_recheck_at(&self, i: usize, recheck_at: u64) {
        self.update(|scope| scope.windows[i].recheck_at[0] = recheck_at);
    }

    fn swap_level(&self, i: usize, level: u64) -> u64 {
        self.update(|scope| std::mem::replace(&mut scope.windows[i].level, level))
    }

    fn or_causes(&self, causes: u64) -> u64 {
        self.update(|scope| {
            let before = scope.switch.causes;
            scope.switch.causes |= causes;
            before
        })
    }

    fn raise_epoch(&self, now: u64) {
        self.update(|scope| {
            scope.switch.raised_ns = now;
            scope.switch.epoch += 1;
        });
    }

    fn set_trip(&self, trip: Trip) {
        self.update(|scope| scope.trip = trip);
    }

    fn fences(&self) -> Fences {
        self.scope.get().fences
    }

    fn set_fences(&self, fences: Fences) {
        self.update(|scope| scope.fences = fences);
    }

    fn add_fills(&self, i: usize, fills: u64) {
        self.update(|scope| scope.windows[i].fills += fills);
    }
}
