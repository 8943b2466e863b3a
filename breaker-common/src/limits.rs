//! The limits of one scope, asked and charged for the messages of one segment.
//!
//! Three steps, because a segment crosses whole or not at all and may be subject to many limits: [`mark`] every limit, read the
//! clock once, [`look`] at every limit, and only where none objects [`take`] the tickets. So what is withheld has used up nothing.

use crate::abi::{LIMITS_PER_SCOPE, Limit, Switch, Trip, Window};
use crate::stream::Tally;
use crate::window;

/// A scope in memory that several CPUs share; how its fields are read and written atomically is its owner's business.
pub trait SharedScope {
    /// The switch.
    fn switch(&self) -> Switch;
    /// Whether a passed limit trips.
    fn armed(&self) -> bool;
    /// Limit number `i`, where there is one.
    fn limit(&self, i: usize) -> Option<Limit>;
    /// Its running state.
    fn window(&self, i: usize) -> Window;
    /// The first ticket still inside its window at `now`: [`window::tail`] over its ring.
    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64;
    /// Writes the time of its tickets: [`window::stamp`] into its ring.
    fn stamp(&self, i: usize, limit: &Limit, first: u64, more: u64, now: u64);
    /// Adds to its `issued` atomically and returns what that was.
    fn issue(&self, i: usize, more: u64) -> u64;
    /// Stores its tail.
    fn set_tail(&self, i: usize, tail: u64);
    /// Stores its peak.
    fn set_peak(&self, i: usize, peak: u64);
    /// Replaces its level atomically and returns what that was.
    fn swap_level(&self, i: usize, level: u64) -> u64;
    /// Sets cause bits in the switch atomically and returns the causes before.
    fn or_causes(&self, causes: u64) -> u64;
    /// Raises the epoch by one, atomically.
    fn raise_epoch(&self);
    /// Stores how it tripped.
    fn set_trip(&self, trip: Trip);
}

/// `Window::issued` of each limit of a scope, from before the clock was read.
pub type Marks = [u64; LIMITS_PER_SCOPE];

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its position in the scope.
    pub limit: u32,
    /// Messages that its window would have held.
    pub used: u64,
}

/// A limit whose warning level changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rise {
    /// Its position in the scope.
    pub limit: u32,
    /// Messages in its window.
    pub used: u64,
    /// Levels now in force.
    pub level: u64,
}

/// Remembers how many tickets each limit has issued.
#[inline(always)]
pub fn mark(scope: &impl SharedScope, marks: &mut Marks) {
    let mut i = 0;
    while i < LIMITS_PER_SCOPE {
        marks[i] = scope.window(i).issued;
        i += 1;
    }
}

/// What a limit says of some more messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    /// The first ticket still in the window.
    tail: u64,
    /// Messages in the window, they included.
    used: u64,
}

impl Reading {
    #[inline(always)]
    fn of(scope: &impl SharedScope, i: usize, limit: &Limit, issued: u64, more: u64, now: u64) -> Self {
        let tail = scope.tail(i, limit, issued, now);
        Self { tail, used: issued.wrapping_sub(tail).wrapping_add(more) }
    }

    #[inline(always)]
    fn passed(&self, i: usize, limit: &Limit) -> Option<Passed> {
        (self.used > limit.max).then_some(Passed { limit: i as u32, used: self.used })
    }
}

/// The first limit that the messages would pass, where the scope is armed. Takes nothing.
#[inline(always)]
pub fn look(scope: &impl SharedScope, marks: &Marks, tally: &Tally, now: u64) -> Option<Passed> {
    if !scope.armed() {
        return None;
    }
    let mut i = 0;
    while i < LIMITS_PER_SCOPE {
        let limit = scope.limit(i)?;
        let more = tally.limited(limit.class) as u64;
        if more != 0 {
            let reading = Reading::of(scope, i, &limit, marks[i], more, now);
            scope.set_tail(i, reading.tail);
            if let Some(passed) = reading.passed(i, &limit) {
                return Some(passed);
            }
        }
        i += 1;
    }
    None
}

/// Takes the tickets. Returns a limit that is passed after all, because another CPU was faster.
#[inline(always)]
pub fn take(scope: &impl SharedScope, marks: &Marks, charge: &mut impl Charge, now: u64) -> Option<Passed> {
    let armed = scope.armed();
    let mut i = 0;
    while i < LIMITS_PER_SCOPE {
        let limit = scope.limit(i)?;
        let more = charge.tally().limited(limit.class) as u64;
        if more != 0 {
            let issued = scope.issue(i, more);
            // Raced: the tickets were taken later than `now` tells.
            let stamp = if issued == marks[i] { now } else { charge.now() };
            let reading = Reading::of(scope, i, &limit, issued, more, now);
            scope.stamp(i, &limit, issued, more, stamp);
            if armed && let Some(passed) = reading.passed(i, &limit) {
                return Some(passed);
            }
            watch(scope, i, &limit, &reading, charge);
        }
        i += 1;
    }
    None
}

/// What charging a scope needs beside the scope.
pub trait Charge {
    /// The messages to charge for.
    fn tally(&self) -> Tally;
    /// CLOCK_MONOTONIC, ns.
    fn now(&mut self) -> u64;
    /// A warning level rose.
    fn rose(&mut self, rise: Rise);
}

/// Keeps tail, peak and warning level of a limit up to date.
#[inline(always)]
fn watch(scope: &impl SharedScope, i: usize, limit: &Limit, reading: &Reading, charge: &mut impl Charge) {
    let window = scope.window(i);
    scope.set_tail(i, reading.tail);
    if reading.used > window.peak {
        scope.set_peak(i, reading.used);
    }
    let level = window::level(limit, reading.used);
    if level != window.level && scope.swap_level(i, level) < level {
        charge.rose(Rise { limit: i as u32, used: reading.used, level });
    }
}

/// Trips a scope: latches the cause and fences every connection that is older. True where the cause is new.
#[inline(always)]
pub fn trip(scope: &impl SharedScope, trip: Trip) -> bool {
    let before = scope.or_causes(trip.cause);
    if before & trip.cause != 0 {
        return false;
    }
    scope.raise_epoch();
    scope.set_trip(trip);
    true
}
