//! The limits of a session's scopes, asked and charged for the messages of one segment.
//!
//! A segment crosses whole or not at all and may be subject to many limits. So first every limit is marked; then, where none can object, the
//! tickets are taken, else those that may are looked at before. What is withheld has used up nothing. The clock is read once at the most.
//!
//! Most limits are far away most of the time. How many messages a window holds is at most what has come since its tail was last
//! looked for; so up to a certain ticket ([`Window::calm`]) nobody needs to look.

use core::cmp::{max, min};
use core::hint::cold_path;
use core::ops::Deref;

use crate::abi::{
    Fences, LIMITS_PER_SCOPE, LIMITS_PER_SESSION, Limit, LimitRef, RingLayout, Rules, Session, Switch, Trip,
    Window,
};
use crate::counts::SegmentCounts;
use crate::message::{Class, InboundClass, LimitClass, TOTAL};
use crate::window;

/// The scopes of a policy.
pub trait Scopes {
    /// How a scope is held.
    type Scope: SharedScope;
    /// The scope with this number; `None` where there is none, which no policy does.
    fn scope(&self, number: u32) -> Option<Self::Scope>;
}

/// A scope in memory that several CPUs share, as the policy in force has it; how its fields are read and written atomically is its
/// owner's business.
pub trait SharedScope {
    /// How a limit is held: in place, where it may be.
    type Limit: Deref<Target = Limit>;
    /// The switch.
    fn switch(&self) -> Switch;
    /// Whether a passed limit trips.
    fn armed(&self) -> bool;
    /// The limit at this position.
    fn limit(&self, i: usize) -> Self::Limit;
    /// Its running state.
    fn window(&self, i: usize) -> Window;
    /// Tickets that it has issued.
    fn issued(&self, i: usize) -> u64;
    /// The first ticket still inside its window at `now`: [`window::tail`] over its ring.
    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64;
    /// Writes the time of its tickets: [`window::record_times`] into its ring.
    /// `now` tells it, and is asked only where one is to be written.
    fn record_times(&self, layout: &RingLayout, first: u64, more: u64, now: impl FnOnce() -> u64);
    /// Adds to its `issued` atomically and returns what that was.
    fn issue_tickets(&self, i: usize, more: u64) -> u64;
    /// Stores its tail.
    fn set_tail(&self, i: usize, tail: u64);
    /// Stores its peak.
    fn set_peak(&self, i: usize, peak: u64);
    /// Its [`Window::calm`], of this policy.
    fn recheck_at(&self, i: usize) -> u64;
    /// Stores that.
    fn set_recheck_at(&self, i: usize, recheck_at: u64);
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

/// Lists the limits of a session's scopes, of which `of` tells, in the order of the scopes.
pub fn list_limits(session: &mut Session, of: impl Fn(u32) -> (Rules, [Limit; LIMITS_PER_SCOPE])) {
    let mut count = 0;
    session.limit_refs = [LimitRef::default(); LIMITS_PER_SESSION];
    for scope in session.scopes.into_iter().take(session.scope_count as usize) {
        let (rules, limits) = of(scope);
        for (position, limit) in limits.iter().enumerate().filter(|(i, _)| rules.positions >> i & 1 == 1) {
            let (position, counter) = (position as u16, counter(limit.class));
            session.limit_refs[count] = LimitRef { scope, position, counter, ring: limit.ring };
            count += 1;
        }
    }
}

/// [`LimitRef::counter`] of a limit of this class.
fn counter(class: u32) -> u16 {
    let counters = LimitClass::ALL.map(|class| match class {
        LimitClass::Order => Class::Order as u16,
        LimitClass::Cancel => Class::Cancel as u16,
        LimitClass::Message => TOTAL as u16,
        LimitClass::Fill => InboundClass::Fill as u16,
        LimitClass::Reject => InboundClass::Reject as u16,
    });
    1 + counters.get(class as usize).copied().unwrap_or(TOTAL as u16)
}

/// What a segment remembers of the limits of its session between the steps. And while it goes over them: the kernel's verifier follows
/// every combination of what it knows of registers, and knows nothing of what is here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingCharge {
    /// When they were judged, CLOCK_MONOTONIC, ns: read after `issued`; 0 where that is still to be.
    now: u64,
    /// `Window::issued` of each.
    issued: [u64; LIMITS_PER_SESSION],
    /// Not 0 where any counts any of the messages.
    any: u64,
    /// Bits of those that are to be settled: see [`take`]. Here, for words to be cleared that lie side by side are cleared by a loop over
    /// bytes.
    unsettled: u64,
    /// Bits of those that may object.
    near: u64,
}

/// What may come of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precheck {
    /// No limit counts any of the messages.
    NotCounted,
    /// Some do, and none of them can object.
    BelowThreshold,
    /// One may.
    NearLimit,
}

/// What came of an attempt to charge a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// No limit counts any of the messages.
    NotCounted,
    /// A limit may object; nothing is taken.
    NearLimit,
    /// None can: all tickets are taken. Where another CPU came between, this is what [`take`] returns.
    Charged(u64),
}

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    /// The number of its scope.
    pub scope: u32,
    /// Its position in the scope.
    pub limit: u32,
    /// Messages that its window would have held.
    pub used: u64,
}

/// A limit whose warning level changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarningRaised {
    /// Its position in the scope.
    pub limit: u32,
    /// Messages in its window.
    pub used: u64,
    /// Levels now in force.
    pub level: u64,
}

/// Where the steps are done. The kernel makes each a function that the verifier checks once.
pub trait Charge {
    /// [`attempt`].
    fn try_charge(&mut self, session: &Session) -> Attempt;
    /// [`look`].
    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded>;
    /// [`take`].
    fn take_tickets(&mut self, session: &Session) -> u64;
    /// [`settle`] for each of these limits ([`take`]). The first of them that is passed.
    fn commit(&mut self, session: &Session, unsettled: u64) -> Option<LimitExceeded>;
}

/// Charges the messages of a segment to every limit of its session, or, where one objects, to none. Returns the limit that objected.
#[inline(always)]
pub fn charge(session: &Session, charge: &mut impl Charge) -> Option<LimitExceeded> {
    let unsettled = match charge.try_charge(session) {
        Attempt::NotCounted => return None,
        Attempt::Charged(unsettled) => unsettled,
        Attempt::NearLimit => {
            cold_path();
            if let Some(passed) = charge.find_exceeded(session) {
                return Some(passed);
            }
            charge.take_tickets(session)
        }
    };
    if unsettled == 0 {
        return None;
    }
    cold_path();
    charge.commit(session, unsettled)
}

/// Charges messages that came in to every limit of their session. None of them is withheld, so each takes its ticket, whatever any
/// limit says; `trip` is told of each that is passed.
#[inline(always)]
pub fn charge_inbound<C: Charge>(
    session: &Session,
    charge: &mut C,
    mut trip: impl FnMut(&mut C, LimitExceeded),
) {
    let unsettled = match charge.try_charge(session) {
        Attempt::NotCounted => return,
        Attempt::Charged(unsettled) => unsettled,
        Attempt::NearLimit => {
            // Only to find the windows: what it says, the tickets say again.
            charge.find_exceeded(session);
            charge.take_tickets(session)
        }
    };
    let mut i = 0;
    while i < LIMITS_PER_SESSION && unsettled != 0 {
        if is_in(unsettled, i)
            && let Some(passed) = charge.commit(session, unsettled & (1 << RACED | 1) << i)
        {
            trip(charge, passed);
        }
        i += 1;
    }
}

#[inline(always)]
fn is_in(bits: u64, i: usize) -> bool {
    bits >> i & 1 == 1
}

/// Calls `settle` for each of these limits ([`take`]), with its position among the session's and whether another CPU was faster there.
#[inline(always)]
pub fn for_each_uncommitted(unsettled: u64, mut settle: impl FnMut(usize, bool)) {
    let mut i = 0;
    while i < LIMITS_PER_SESSION {
        if is_in(unsettled, i) {
            settle(i, is_in(unsettled >> RACED, i));
        }
        i += 1;
    }
}

/// Does something for each limit of a session that counts any of the messages: with its scope, its position among the session's, and how
/// many of the messages it counts.
#[inline(always)]
fn each<S: Scopes>(
    scopes: &S,
    session: &Session,
    counts: &SegmentCounts,
    mut act: impl FnMut(&S::Scope, usize, &LimitRef, u64),
) {
    let mut i = 0;
    while i < LIMITS_PER_SESSION {
        let limit_ref = &session.limit_refs[i];
        let Some(more) = counts.for_counter(limit_ref.counter) else { break };
        if more != 0
            && let Some(scope) = scopes.scope(limit_ref.scope)
        {
            act(&scope, i, limit_ref, more);
        }
        i += 1;
    }
}

/// Marks every limit ([`mark`]), and where none may object, takes the tickets ([`take_calm`]).
#[inline(always)]
pub fn try_charge(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    clock: impl FnMut() -> u64,
) -> Attempt {
    match precheck(scopes, session, pending, counts) {
        Precheck::NotCounted => Attempt::NotCounted,
        Precheck::NearLimit => Attempt::NearLimit,
        Precheck::BelowThreshold => {
            Attempt::Charged(charge_below_threshold(scopes, session, pending, counts, clock))
        }
    }
}

/// Remembers how many tickets each limit has issued that counts any of the messages, and says whether any of them may object.
#[inline(always)]
pub fn precheck(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
) -> Precheck {
    (pending.any, pending.near, pending.now) = (0, 0, 0);
    each(scopes, session, counts, |scope, i, limit_ref, more| {
        let issued = scope.issued(limit_ref.position as usize);
        pending.issued[i] = issued;
        pending.any |= more;
        pending.near |= beyond(scope.recheck_at(limit_ref.position as usize), issued.wrapping_add(more)) << i;
    });
    if pending.near != 0 {
        cold_path();
        return Precheck::NearLimit;
    }
    if pending.any == 0 { Precheck::NotCounted } else { Precheck::BelowThreshold }
}

/// [`take`] where all limits are calm. `clock` tells one time for the whole segment, read where it is first asked.
#[inline(always)]
pub fn charge_below_threshold(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    clock: impl FnMut() -> u64,
) -> u64 {
    issue_counted(scopes, session, pending, counts, 0, clock)
}

/// 1 where so many tickets are more than those up to which a window is calm. Without a branch, for the verifier follows both ways of each.
#[inline(always)]
fn beyond(recheck_at: u64, tickets: u64) -> u64 {
    recheck_at.wrapping_sub(tickets) >> 63
}

/// The first limit that the messages would pass, where its scope is armed. Takes nothing, and brings the tails of all that may object up
/// to date.
#[inline(always)]
pub fn find_exceeded(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    clock: impl FnOnce() -> u64,
) -> Option<LimitExceeded> {
    pending.now = clock();
    let mut found = None;
    each(scopes, session, counts, |scope, i, limit_ref, more| {
        if is_in(pending.near, i) {
            let (at, issued) = (limit_ref.position as usize, pending.issued[i]);
            let limit = scope.limit(at);
            let tail = scope.tail(at, &limit, issued, pending.now);
            let window = scope.window(at);
            // Only what changes: another CPU may be about to take tickets of it.
            if tail != window.tail {
                scope.set_tail(at, tail);
                calm_from(scope, at, &limit, &window, tail);
            }
            let used = issued.wrapping_sub(tail).wrapping_add(more);
            if found.is_none() && used > window::max_messages(&limit, &window) && scope.armed() {
                found = Some(LimitExceeded { scope: limit_ref.scope, limit: at as u32, used });
            }
        }
    });
    found
}

/// Stores up to which ticket a window with this tail is calm: that of its first warning, of a new peak, or of a verdict.
#[inline(always)]
fn calm_from(scope: &impl SharedScope, i: usize, limit: &Limit, window: &Window, tail: u64) {
    // With a warning in force it may also be time to take it back.
    let calm = if window.level == 0 {
        tail.wrapping_add(min(window.peak, window::max_without_warning(limit)))
    } else {
        0
    };
    if calm != scope.recheck_at(i) {
        scope.set_recheck_at(i, calm);
    }
}

/// Takes the tickets, and pending how many had been issued before. Those of limits that are calm are done with; the others are to be
/// settled, which this returns: bits of their positions, and from [`RACED`] on of those where another CPU was faster.
#[inline(always)]
pub fn take_tickets(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
) -> u64 {
    let now = pending.now;
    issue_counted(scopes, session, pending, counts, pending.near, || now)
}

/// The same, where these limits are not calm.
#[inline(always)]
fn issue_counted(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    near: u64,
    mut clock: impl FnMut() -> u64,
) -> u64 {
    pending.unsettled = 0;
    each(scopes, session, counts, |scope, i, limit_ref, more| {
        let issued = scope.issue_tickets(limit_ref.position as usize, more);
        let raced = issued != pending.issued[i];
        if raced || is_in(near, i) {
            cold_path();
            pending.issued[i] = issued;
            pending.unsettled |= (1 | (raced as u64) << RACED) << i;
        } else {
            scope.record_times(&limit_ref.ring, issued, more, &mut clock);
        }
    });
    pending.unsettled
}

/// Where they begin.
const RACED: u32 = 32;

/// Judges a limit by the tickets that were really taken, writes their times, keeps tail, peak and warning level up to date, and says up to
/// where it is calm from now on. `rose` is told of a warning level that rises. Returns what is passed, where the scope is armed: because
/// another CPU was faster, or because what is charged has come in and is not to be withheld.
#[inline(always)]
pub fn commit(
    scopes: &impl Scopes,
    (i, limit_ref, raced): (usize, &LimitRef, bool),
    (pending, counts): (&PendingCharge, &SegmentCounts),
    clock: impl Fn() -> u64,
    rose: impl FnOnce(WarningRaised),
) -> Option<LimitExceeded> {
    let issued = pending.issued.get(i).copied().unwrap_or(0);
    let now = if pending.now == 0 { clock() } else { pending.now };
    let (i, scope) = (limit_ref.position as usize, scopes.scope(limit_ref.scope)?);
    let (limit, more) = (scope.limit(i), counts.for_counter(limit_ref.counter)?);
    // Before their times are written: those take the places of the oldest.
    let tail = scope.tail(i, &limit, issued, now);
    // Raced, the tickets were taken later than `now` tells.
    scope.record_times(&limit_ref.ring, issued, more, || if raced { clock() } else { now });
    let used = issued.wrapping_sub(tail).wrapping_add(more);
    let window = scope.window(i);
    let most = window::max_messages(&limit, &window);
    let passes = used > most && scope.armed();
    if tail != window.tail {
        scope.set_tail(i, tail);
    }
    let peak = max(window.peak, used);
    if peak != window.peak {
        scope.set_peak(i, peak);
    }
    let level = window::warning_level(&limit, most, used);
    calm_from(&scope, i, &limit, &Window { peak, level, ..window }, tail);
    // Of a limit that trips its scope nothing is left to warn.
    if level != window.level && scope.swap_level(i, level) < level && !passes {
        rose(WarningRaised { limit: i as u32, used, level });
    }
    passes.then_some(LimitExceeded { scope: limit_ref.scope, limit: i as u32, used })
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

/// Adds fills that came in to every limit of a session that is a ratio to them.
#[inline(always)]
pub fn record_fills(scopes: &impl Scopes, session: &Session, fills: u64) {
    let mut i = 0;
    while i < LIMITS_PER_SESSION && session.limit_refs[i].counter != LimitRef::END {
        let limit_ref = &session.limit_refs[i];
        if let Some(scope) = scopes.scope(limit_ref.scope)
            && scope.limit(limit_ref.position as usize).per_fill != 0
        {
            scope.add_fills(limit_ref.position as usize, fills);
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

/// True where that has isolated the session, and no reset has been since.
#[inline(always)]
pub fn is_isolated(scope: &impl SharedScope, resets: u64) -> bool {
    scope.fences().generation == resets << 1 | 1
}
