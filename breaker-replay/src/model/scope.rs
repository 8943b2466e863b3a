//! A scope in memory. The kernel program has the same in a map.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use breaker_common::abi::{Fences, Limit, RingLayout, Scope, Switch, Trip, Window};
use breaker_common::limits::SharedScope;
use breaker_common::window::{self, Ring};

/// Adds a limit to a scope, at its next free position.
pub fn add_limit(scope: &mut Scope, limit: Limit) {
    let position = scope.rules[0].positions.count_ones();
    scope.limits[0][position as usize] = limit;
    scope.rules[0].positions |= 1 << position;
}

/// The rings of all limits.
struct Times<'a>(&'a [Cell<u64>]);

impl Ring for Times<'_> {
    #[inline(always)]
    fn read(&self, slot: u64) -> u64 {
        self.0[slot as usize].get()
    }

    fn write(&mut self, slot: u64, word: u64) {
        self.0[slot as usize].set(word);
    }
}

/// A scope with the rings of its limits.
#[derive(Clone, Copy)]
pub struct ScopeInMemory<'a> {
    /// Scope.
    pub scope: &'a RefCell<Scope>,
    /// Rings of all limits.
    pub times: &'a [Cell<u64>],
}

impl ScopeInMemory<'_> {
    #[inline(always)]
    fn update<T>(&self, change: impl FnOnce(&mut Scope) -> T) -> T {
        change(&mut self.scope.borrow_mut())
    }
}

/// A copy of a limit: a reference would prevent changes of its scope.
pub struct LimitCopy(Limit);

impl Deref for LimitCopy {
    type Target = Limit;

    #[inline(always)]
    fn deref(&self) -> &Limit {
        &self.0
    }
}

impl SharedScope for ScopeInMemory<'_> {
    type Limit = LimitCopy;

    #[inline(always)]
    fn switch(&self) -> Switch {
        self.scope.borrow().switch
    }

    #[inline(always)]
    fn armed(&self) -> bool {
        self.scope.borrow().armed != 0
    }

    #[inline(always)]
    fn limit(&self, i: usize) -> LimitCopy {
        LimitCopy(self.scope.borrow().limits[0][i])
    }

    #[inline(always)]
    fn window(&self, i: usize) -> Window {
        self.scope.borrow().windows[i]
    }

    #[inline(always)]
    fn issued(&self, i: usize) -> u64 {
        self.scope.borrow().windows[i].issued
    }

    #[inline(always)]
    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64 {
        window::tail(limit, &Window { issued, ..self.window(i) }, &Times(self.times), now)
    }

    /// Writes the times in calls of up to 64 words, like the kernel program.
    #[inline(always)]
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
        debug_assert_eq!(left, 0, "{count} tickets from {first} on have no time");
    }

    #[inline(always)]
    fn issue_tickets(&self, i: usize, count: u64) -> u64 {
        self.update(|scope| {
            let before = scope.windows[i].issued;
            scope.windows[i].issued += count;
            before
        })
    }

    #[inline(always)]
    fn set_tail(&self, i: usize, tail: u64) {
        self.update(|scope| scope.windows[i].tail = tail);
    }

    #[inline(always)]
    fn set_peak(&self, i: usize, peak: u64) {
        self.update(|scope| scope.windows[i].peak = peak);
    }

    #[inline(always)]
    fn recheck_at(&self, i: usize) -> u64 {
        self.scope.borrow().windows[i].recheck_at[0]
    }

    #[inline(always)]
    fn set_recheck_at(&self, i: usize, recheck_at: u64) {
        self.update(|scope| scope.windows[i].recheck_at[0] = recheck_at);
    }

    #[inline(always)]
    fn swap_level(&self, i: usize, level: u64) -> u64 {
        self.update(|scope| std::mem::replace(&mut scope.windows[i].level, level))
    }

    #[inline(always)]
    fn or_causes(&self, causes: u64) -> u64 {
        self.update(|scope| {
            let before = scope.switch.causes;
            scope.switch.causes |= causes;
            before
        })
    }

    #[inline(always)]
    fn raise_epoch(&self, now: u64) {
        self.update(|scope| {
            scope.switch.raised_ns = now;
            scope.switch.epoch += 1;
        });
    }

    #[inline(always)]
    fn set_trip(&self, trip: Trip) {
        self.update(|scope| scope.trip = trip);
    }

    #[inline(always)]
    fn fences(&self) -> Fences {
        self.scope.borrow().fences
    }

    #[inline(always)]
    fn set_fences(&self, fences: Fences) {
        self.update(|scope| scope.fences = fences);
    }

    #[inline(always)]
    fn add_fills(&self, i: usize, fills: u64) {
        self.update(|scope| scope.windows[i].fills += fills);
    }
}
