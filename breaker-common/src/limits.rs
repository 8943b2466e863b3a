//! The limits of a session's scopes, asked and charged for the messages of one segment.
//!
//! Three steps, because a segment crosses whole or not at all and may be subject to many limits: mark every limit, read the clock
//! once, look at the limits that may object, and only where none does take the tickets. So what is withheld has used up nothing.
//!
//! Most limits are far away most of the time. How many messages a window holds is at most what it held when its tail was last
//! looked for and what has come since; while that is no more than [`Window::calm`], nobody needs to look.

use core::cmp::{max, min};
use core::ops::Deref;

use crate::abi::{Fences, LIMITS_PER_SCOPE, Limit, Rules, SCOPES_PER_SESSION, Session, Switch, Trip, Window};
use crate::window;

/// A scope in memory that several CPUs share, as the policy in force has it; how its fields are read and written atomically is its
/// owner's business.
pub trait SharedScope {
    /// How a limit is held: in place, where it may be.
    type Limit: Deref<Target = Limit>;
    /// The switch.
    fn switch(&self) -> Switch;
    /// Whether a passed limit trips.
    fn armed(&self) -> bool;
    /// Which limits are in use.
    fn rules(&self) -> Rules;
    /// The limit at this position.
    fn limit(&self, i: usize) -> Self::Limit;
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
    /// Its [`Window::calm`], of this policy.
    fn calm(&self, i: usize) -> u64;
    /// Stores that.
    fn set_calm(&self, i: usize, calm: u64);
    /// Replaces its level atomically and returns what that was.
    fn swap_level(&self, i: usize, level: u64) -> u64;
    /// Sets cause bits in the switch atomically and returns the causes before.
    fn or_causes(&self, causes: u64) -> u64;
    /// Notes the time, and raises the epoch by one, atomically.
    fn raise_epoch(&self, now: u64);
    /// Stores how it tripped.
    fn set_trip(&self, trip: Trip);
    /// The connections that were fenced lately.
    fn fences(&self) -> Fences;
    /// Stores them.
    fn set_fences(&self, fences: Fences);
    /// Adds to `fills` of a limit that is a ratio to them, atomically.
    fn add_fills(&self, i: usize, fills: u64);
}

/// All positions of limits, as bits.
const ALL: u32 = (1 << LIMITS_PER_SCOPE) - 1;

/// The positions of the scope's limits, as bits.
#[inline(always)]
fn positions(scope: &impl SharedScope) -> u32 {
    scope.rules().positions & ALL
}

/// Messages of a segment, as limits count them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By [`crate::class::LimitClass`] code.
    pub of: [u32; 8],
    /// Bits `1 << code` of those that are not 0.
    pub classes: u32,
}

impl Counts {
    /// Messages that a limit counts.
    #[inline(always)]
    fn of(&self, limit: &Limit) -> u64 {
        // The verifier must see the bound.
        self.of[limit.class as usize & 7] as u64
    }
}

/// What a segment remembers of the limits of a scope between its steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// One of [`concern`].
    pub concern: u64,
    /// `Window::issued` of each, from before the clock was read.
    pub issued: [u64; LIMITS_PER_SCOPE],
}

/// Values of `Marks::concern`.
pub mod concern {
    /// No limit counts any of the messages.
    pub const NONE: u64 = 0;
    /// Some do, and none of them can object.
    pub const CALM: u64 = 1;
    /// One may.
    pub const NEAR: u64 = 3;
}

/// A limit whose tickets are taken and not yet judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Its position in the scope.
    pub limit: u32,
    /// Another CPU was faster to take some.
    pub raced: bool,
}

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

/// Where the three steps are done, scope by scope. The kernel makes each a function that the verifier checks once.
pub trait Charge {
    /// Has the messages of the segment counted for the steps that follow ([`crate::stream::Tally::counts`]): bits of the classes.
    fn count(&mut self) -> u32;
    /// CLOCK_MONOTONIC, ns.
    fn now(&mut self) -> u64;
    /// [`mark`] for the scope with this number, at this position of the session.
    fn mark(&mut self, position: usize, scope: u32);
    /// What that found: one of [`concern`]. To be read from memory each time, or the verifier follows every combination of answers.
    fn concern(&self, position: usize) -> u64;
    /// [`look`].
    fn look(&mut self, position: usize, scope: u32, now: u64) -> Option<Passed>;
    /// [`take`].
    fn take(&mut self, position: usize, scope: u32, now: u64) -> u32;
    /// [`settle`].
    fn settle(&mut self, position: usize, scope: u32, limit: Unsettled, now: u64) -> Option<Passed>;
}

/// Charges the messages of a segment to every limit of its session, or, where one objects, to none. Returns the scope and the limit
/// that objected.
#[inline(always)]
pub fn charge(session: &Session, charge: &mut impl Charge) -> Option<(u32, Passed)> {
    let all = mark_all(session, charge);
    if all == concern::NONE {
        return None;
    }
    let now = charge.now();
    if all == concern::NEAR {
        let mut i = 0;
        while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
            if charge.concern(i) == concern::NEAR
                && let Some(passed) = charge.look(i, session.scopes[i], now)
            {
                return Some((session.scopes[i], passed));
            }
            i += 1;
        }
    }
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        if charge.concern(i) != concern::NONE
            && let Some(passed) = take_and_settle(charge, i, session.scopes[i], now)
        {
            return Some((session.scopes[i], passed));
        }
        i += 1;
    }
    None
}

/// [`take`], and [`settle`] where there is anything to settle.
#[inline(always)]
fn take_and_settle(charge: &mut impl Charge, position: usize, scope: u32, now: u64) -> Option<Passed> {
    let limits = charge.take(position, scope, now);
    // Not an `Option`: the compiler would copy what is in none, and the verifier minds that.
    let mut found = Passed { limit: 0, used: 0 };
    let mut i = 0;
    while i < LIMITS_PER_SCOPE && limits & ALL != 0 {
        if limits >> i & 1 == 1 {
            let raced = limits >> RACED >> i & 1 == 1;
            if let Some(passed) = charge.settle(position, scope, Unsettled { limit: i as u32, raced }, now)
                && found.used == 0
            {
                found = passed;
            }
        }
        i += 1;
    }
    (found.used != 0).then_some(found)
}

/// [`mark`] for every scope of a session. The greatest concern of any.
#[inline(always)]
fn mark_all(session: &Session, charge: &mut impl Charge) -> u64 {
    if charge.count() == 0 {
        return concern::NONE;
    }
    let mut all = concern::NONE;
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        charge.mark(i, session.scopes[i]);
        all |= charge.concern(i);
        i += 1;
    }
    all
}

/// Charges messages that came in to every limit of their session. None of them is withheld, so each takes its ticket, whatever any
/// limit says; `trip` is told of each scope where one is passed.
#[inline(always)]
pub fn record<C: Charge>(session: &Session, charge: &mut C, mut trip: impl FnMut(&mut C, u32, Passed)) {
    if mark_all(session, charge) == concern::NONE {
        return;
    }
    let now = charge.now();
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        if charge.concern(i) != concern::NONE {
            let scope = session.scopes[i];
            if charge.concern(i) == concern::NEAR {
                // Only to find the windows: what it says, the tickets say again.
                charge.look(i, scope, now);
            }
            if let Some(passed) = take_and_settle(charge, i, scope, now) {
                trip(charge, scope, passed);
            }
        }
        i += 1;
    }
}

/// Remembers how many tickets each limit has issued that counts any of the messages, and whether it may object.
#[inline(always)]
pub fn mark(scope: &impl SharedScope, marks: &mut Marks, counts: &Counts) {
    let rules = scope.rules();
    if rules.classes & counts.classes == 0 {
        marks.concern = concern::NONE;
        return;
    }
    let mut found = concern::CALM;
    let positions = rules.positions & ALL;
    let mut i = 0;
    while i < LIMITS_PER_SCOPE && positions >> i != 0 {
        let more = counts.of(&scope.limit(i));
        if more != 0 && positions >> i & 1 == 1 {
            let window = scope.window(i);
            marks.issued[i] = window.issued;
            if is_near(scope, i, &window, window.issued.wrapping_sub(window.tail).wrapping_add(more)) {
                found = concern::NEAR;
            }
        }
        i += 1;
    }
    marks.concern = found;
}

/// Whether a limit must be looked at, if its window may hold so many messages.
#[inline(always)]
fn is_near(scope: &impl SharedScope, i: usize, window: &Window, used: u64) -> bool {
    used > scope.calm(i) || window.level != 0
}

/// The first limit that the messages would pass, where the scope is armed. Takes nothing, and brings the tails of all up to date.
#[inline(always)]
pub fn look(scope: &impl SharedScope, marks: &Marks, counts: &Counts, now: u64) -> Option<Passed> {
    let armed = scope.armed();
    let mut found = None;
    let positions = positions(scope);
    let mut i = 0;
    while i < LIMITS_PER_SCOPE && positions >> i != 0 {
        let limit = scope.limit(i);
        let more = counts.of(&limit);
        if more != 0 && positions >> i & 1 == 1 {
            let tail = scope.tail(i, &limit, marks.issued[i], now);
            let window = scope.window(i);
            // Only what changes: another CPU may be about to take tickets of it.
            if tail != window.tail {
                scope.set_tail(i, tail);
            }
            let used = marks.issued[i].wrapping_sub(tail).wrapping_add(more);
            if armed && found.is_none() && used > window::most(&limit, &window) {
                found = Some(Passed { limit: i as u32, used });
            }
        }
        i += 1;
    }
    found
}

/// Takes the tickets, and marks how many had been issued before. Returns the limits that are to be settled: bits of their positions, and
/// from [`RACED`] on of those where another CPU was faster.
#[inline(always)]
pub fn take(
    scope: &impl SharedScope,
    marks: &mut Marks,
    counts: &Counts,
    now: u64,
    mut clock: impl FnMut() -> u64,
) -> u32 {
    let mut unsettled = 0;
    let looked = marks.concern == concern::NEAR;
    let positions = positions(scope);
    let mut i = 0;
    while i < LIMITS_PER_SCOPE && positions >> i != 0 {
        let limit = scope.limit(i);
        let more = counts.of(&limit);
        if more != 0 && positions >> i & 1 == 1 {
            let issued = scope.issue(i, more);
            let raced = issued != marks.issued[i];
            marks.issued[i] = issued;
            let window = scope.window(i);
            let used = issued.wrapping_sub(window.tail).wrapping_add(more);
            let near = is_near(scope, i, &window, used);
            // What was looked at, and is far from any warning, has at most a new peak.
            let peaks = near && looked && window.level == 0 && used <= window::unwarned(&limit);
            if near && !peaks {
                unsettled |= (1 | (raced as u32) << RACED) << i;
            } else {
                // Raced, the tickets were taken later than `now` tells.
                scope.stamp(i, &limit, issued, more, if raced { clock() } else { now });
            }
            if peaks {
                remember(scope, i, &limit, &window, used);
            }
        }
        i += 1;
    }
    unsettled
}

/// Where they begin.
const RACED: u32 = 8;

/// Keeps the peak of a window that holds so many messages, and up to where it is calm from now on. Writes only what changes: another CPU
/// may wait for it.
#[inline(always)]
fn remember(scope: &impl SharedScope, i: usize, limit: &Limit, window: &Window, used: u64) {
    // After a reload the window has its peak, and nobody knows yet up to where it is calm.
    let peak = max(window.peak, used);
    if peak != window.peak {
        scope.set_peak(i, peak);
    }
    let calm = min(peak, window::unwarned(limit));
    if calm != scope.calm(i) {
        scope.set_calm(i, calm);
    }
}

/// Judges a limit by the tickets that were really taken, writes their times, keeps tail, peak and warning level up to date, and says up to
/// where it is calm from now on. `rose` is told of a warning level that rises. Returns what is passed, where the scope is armed: because
/// another CPU was faster, or because what is charged has come in and is not to be withheld.
#[inline(always)]
pub fn settle(
    scope: &impl SharedScope,
    marks: &Marks,
    counts: &Counts,
    limit: Unsettled,
    now: u64,
    clock: impl FnOnce() -> u64,
    rose: impl FnOnce(Rise),
) -> Option<Passed> {
    let i = limit.limit as usize & (LIMITS_PER_SCOPE - 1);
    let raced = limit.raced;
    let limit = scope.limit(i);
    let (issued, more) = (marks.issued[i], counts.of(&limit));
    // Before their times are written: those take the places of the oldest.
    let tail = scope.tail(i, &limit, issued, now);
    scope.stamp(i, &limit, issued, more, if raced { clock() } else { now });
    let used = issued.wrapping_sub(tail).wrapping_add(more);
    let window = scope.window(i);
    let most = window::most(&limit, &window);
    let passes = used > most && scope.armed();
    if tail != window.tail {
        scope.set_tail(i, tail);
    }
    remember(scope, i, &limit, &window, used);
    let level = window::level(&limit, most, used);
    // Of a limit that trips its scope nothing is left to warn.
    if level != window.level && scope.swap_level(i, level) < level && !passes {
        rose(Rise { limit: i as u32, used, level });
    }
    passes.then_some(Passed { limit: i as u32, used })
}

/// Trips a scope: latches the cause and fences every connection that is older. True where the cause is new.
#[inline(always)]
pub fn trip(scope: &impl SharedScope, trip: Trip) -> bool {
    let before = scope.or_causes(trip.cause);
    if before & trip.cause != 0 {
        return false;
    }
    scope.raise_epoch(trip.at_ns);
    scope.set_trip(trip);
    true
}

/// Adds fills that came in to every limit of a scope that is a ratio to them.
#[inline(always)]
pub fn fill(scope: &impl SharedScope, fills: u64) {
    let positions = positions(scope);
    let mut i = 0;
    while i < LIMITS_PER_SCOPE && positions >> i != 0 {
        if positions >> i & 1 == 1 && scope.limit(i).per_fill != 0 {
            scope.add_fills(i, fills);
        }
        i += 1;
    }
}

/// Fenced connections of a tripped session within this time, ns, are a reconnect loop,
const LOOP_NS: u64 = 60_000_000_000;

/// where there are three of them. Takes note of one more; true where its session is isolated by it.
///
/// `raised` is the epoch whose raising fenced it, 0 where its own message did: a trip fences any number of connections that were
/// there before it, and all of them are one. `resets` is that of all scopes of the session: with a reset all is forgiven.
#[inline(always)]
pub fn fence(scope: &impl SharedScope, now: u64, raised: u64, resets: u64) -> bool {
    let mut fences = scope.fences();
    if fences.life >> 1 != resets {
        fences = Fences { life: resets << 1, ..Fences::default() };
    }
    if raised != 0 && fences.epoch == raised {
        return false;
    }
    if raised != 0 {
        fences.epoch = raised;
    }
    let third = fences.before_ns != 0 && now.wrapping_sub(fences.before_ns) < LOOP_NS;
    let isolates = third && fences.life & 1 == 0;
    fences.life |= third as u64;
    (fences.before_ns, fences.last_ns) = (fences.last_ns, now);
    scope.set_fences(fences);
    isolates
}

/// True where that has isolated the session, and no reset has been since.
#[inline(always)]
pub fn isolated(scope: &impl SharedScope, resets: u64) -> bool {
    scope.fences().life == resets << 1 | 1
}
