//! The exact sliding window against a log of everything that crossed.

#[path = "model/policy.rs"]
mod policy;
#[path = "model/scope.rs"]
mod scope;

use std::cell::Cell;

use breaker_common::abi::{Scope, Session};
use breaker_common::counts::SegmentCounts;
use breaker_common::limits::{
    self, Attempt, Charge, LimitExceeded, PendingCharge, Scopes, SharedScope, WarningRaised,
};
use breaker_common::message::{Class, LimitClass};
use breaker_common::window::{EXCEEDED, MAX_SLOTS};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use policy::{limit, session};
use scope::{InMemory, add_limit};

const LIMITS: [u64; 13] = [1, 2, 3, 137, 1023, 1024, 1025, 2045, 2046, 2047, 2048, 5000, 100_000];
/// Up to here every message has a slot of its own.
const EXACT: u64 = MAX_SLOTS - 2;
const MS: u64 = 1_000_000;

/// A segment that brings messages of one class, and what it raised.
struct Segment<'a> {
    shared: InMemory<'a>,
    counts: SegmentCounts,
    now: u64,
    marks: PendingCharge,
    rises: Vec<WarningRaised>,
    /// Another CPU takes this many tickets before the clock is read, and all are voided.
    voided: u64,
}

impl<'a> Segment<'a> {
    fn new(shared: InMemory<'a>, class: Class, more: u64, now: u64) -> Self {
        let mut counts = SegmentCounts::default();
        counts.messages[class as usize] = more as u32;
        counts.store_total();
        let marks = PendingCharge::default();
        Self { shared, counts, now, marks, rises: Vec::new(), voided: 0 }
    }

    fn charge(&mut self) -> Option<LimitExceeded> {
        limits::charge(&metered(&self.shared), self)
    }
}

/// A session of that scope alone.
fn metered(shared: &InMemory<'_>) -> Session {
    let (mut session, scope) = (session(&[0]), shared.scope.get());
    limits::list_limits(&mut session, |_| (scope.rules[0], scope.limits[0]));
    session
}

/// The only scope.
struct One<'a>(InMemory<'a>);

impl<'a> Scopes for One<'a> {
    type Scope = InMemory<'a>;

    fn scope(&self, _: u32) -> Option<InMemory<'a>> {
        Some(self.0)
    }
}

impl Charge for Segment<'_> {
    fn try_charge(&mut self, session: &Session) -> Attempt {
        let (shared, now, voided) = (self.shared, self.now, self.voided);
        limits::try_charge(&One(shared), session, &mut self.marks, &self.counts, || {
            clock(shared, now, voided)
        })
    }

    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        let (shared, now, voided) = (self.shared, self.now, self.voided);
        limits::find_exceeded(&One(shared), session, &mut self.marks, &self.counts, || {
            clock(shared, now, voided)
        })
    }

    fn take_tickets(&mut self, session: &Session) -> u64 {
        limits::take_tickets(&One(self.shared), session, &mut self.marks, &self.counts)
    }

    fn commit(&mut self, session: &Session, unsettled: u64) -> Option<LimitExceeded> {
        let mut first = None;
        limits::for_each_uncommitted(unsettled, |i, raced| {
            let (limit, segment) = ((i, &session.limit_refs[i], raced), (&self.marks, &self.counts));
            let rose = |rise| self.rises.push(rise);
            first = first.or(limits::commit(&One(self.shared), limit, segment, || self.now, rose));
        });
        first
    }
}

/// Reads the clock; before that another CPU takes tickets, and all are voided, where it is to be so.
fn clock(shared: InMemory<'_>, now: u64, voided: u64) -> u64 {
    if voided != 0 {
        shared.issue_tickets(0, voided);
        reset(shared.scope);
    }
    now
}

/// What user space does at a reset.
fn reset(scope: &Cell<Scope>) {
    let mut state = scope.get();
    for window in &mut state.windows {
        window.floor = window.issued;
    }
    scope.set(state);
}

/// A scope with one limit beside a log of what it let cross.
struct Watched {
    scope: Cell<Scope>,
    times: Vec<Cell<u64>>,
    /// When, and how many.
    log: Vec<(u64, u64)>,
    rises: Vec<WarningRaised>,
}

impl Watched {
    fn new(max: u64, per_ns: u64, armed: bool) -> Self {
        let mut scope = Scope { armed: armed as u32, ..Scope::default() };
        add_limit(&mut scope, limit(LimitClass::Order, max, per_ns, 0));
        let layout = 1 << scope.limits[0][0].ring.ring_bits;
        Self {
            scope: Cell::new(scope),
            times: vec![Cell::new(0); layout],
            log: Vec::new(),
            rises: Vec::new(),
        }
    }

    fn shared(&self) -> InMemory<'_> {
        InMemory { scope: &self.scope, times: &self.times }
    }

    /// Offers some orders; they cross where nothing objects.
    fn offer(&mut self, more: u64, now: u64) -> Option<LimitExceeded> {
        let mut segment = Segment::new(self.shared(), Class::Order, more, now);
        let passed = segment.charge();
        let rises = segment.rises;
        self.rises.extend(rises);
        if passed.is_none() {
            self.log.push((now, more));
        }
        passed
    }

    /// Orders that came in, as it were: all of them cross. What was passed.
    fn record(&mut self, more: u64, now: u64) -> Option<LimitExceeded> {
        let mut segment = Segment::new(self.shared(), Class::Order, more, now);
        let mut found = None;
        limits::charge_inbound(&metered(&self.shared()), &mut segment, |_, passed| found = Some(passed));
        self.log.push((now, more));
        found
    }

    /// Messages in the window by the log.
    fn logged(&self, now: u64) -> u64 {
        let per_ns = self.scope.get().limits[0][0].per_ns;
        self.log
            .iter()
            .rev()
            .take_while(|(at, _)| per_ns == 0 || now - at < per_ns)
            .map(|(_, count)| count)
            .sum()
    }

    /// Messages in the window by the ring.
    fn used(&self, now: u64) -> u64 {
        let issued = self.scope.get().windows[0].issued;
        issued - self.shared().tail(0, &self.scope.get().limits[0][0], issued, now)
    }

    fn reset(&mut self) {
        reset(&self.scope);
        self.log.clear();
    }

    /// Messages that share a slot, and messages that the ring remembers.
    fn granule_and_memory(&self) -> (u64, u64) {
        let limit = self.scope.get().limits[0][0];
        let granule = 1 << limit.ring.granule_bits;
        (granule, ((1 << limit.ring.ring_bits) - 1) * granule)
    }
}

/// How long after the one before a segment comes.
#[derive(Clone, Copy, Debug)]
enum Pause {
    None,
    /// So many 4096ths of the window.
    Part(u64),
    /// The window and so much more, less one.
    Window(u64),
    /// So many windows.
    Long(u64),
}

/// How many messages a segment holds.
#[derive(Clone, Copy, Debug)]
enum Batch {
    Some(u64),
    /// So many 64ths of the limit.
    Part(u64),
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    pause: Pause,
    batch: Batch,
    reset: bool,
}

impl Arrival {
    fn pause_ns(&self, per_ns: u64) -> u64 {
        match self.pause {
            Pause::None => 0,
            Pause::Part(part) => per_ns * part / 4096,
            Pause::Window(more) => per_ns + more - 1,
            Pause::Long(windows) => per_ns * windows,
        }
    }

    fn messages(&self, max: u64) -> u64 {
        match self.batch {
            Batch::Some(messages) => messages,
            Batch::Part(part) => (max * part / 64).clamp(1, 5000),
        }
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let pause = prop_oneof![
        6 => Just(Pause::None), 6 => (1..40u64).prop_map(Pause::Part), 4 => (1..4096u64).prop_map(Pause::Part),
        2 => (0..3u64).prop_map(Pause::Window), 1 => (1..20u64).prop_map(Pause::Long),
    ];
    let batch = prop_oneof![
        6 => Just(Batch::Some(1)), 4 => (1..10u64).prop_map(Batch::Some), 1 => (1..=5000u64).prop_map(Batch::Some),
        6 => (1..=64u64).prop_map(Batch::Part),
    ];
    let arrival = (pause, batch, prop::bool::weighted(0.02)).prop_map(|(pause, batch, reset)| Arrival {
        pause,
        batch,
        reset,
    });
    vec(arrival, 1..300)
}

proptest! {
    #[test]
    fn never_more_than_the_limit_in_a_window_and_no_earlier_trip_than_that_asks_for(
        max in select(&LIMITS[..]), per_ns in MS..86_400_000 * MS, start in 0..(1u64 << 50), arrivals in arrivals(),
    ) {
        let mut watched = Watched::new(max, per_ns, true);
        let (granule, _) = watched.granule_and_memory();
        let (mut now, mut peak) = (start, 0);
        for arrival in arrivals {
            now += arrival.pause_ns(per_ns);
            let more = arrival.messages(max);
            let would_be = watched.logged(now) + more;
            match watched.offer(more, now) {
                None => prop_assert!(would_be <= max, "{} crossed where {} may", would_be, max),
                Some(LimitExceeded { scope: _, limit, used }) => {
                    prop_assert_eq!(limit, 0);
                    prop_assert!(used > max && (would_be..would_be + granule).contains(&used), "{} for {}", used, would_be);
                }
            }
            peak = peak.max(watched.logged(now));
            if arrival.reset {
                watched.reset();
            }
        }
        prop_assert!((peak..peak + granule).contains(&watched.scope.get().windows[0].peak));
    }

    #[test]
    fn what_the_ring_says_is_what_the_log_says(
        max in select(&LIMITS[..]), per_ns in MS..86_400_000 * MS, start in 0..(1u64 << 50), arrivals in arrivals(),
    ) {
        let mut watched = Watched::new(max, per_ns, false);
        let (granule, memory) = watched.granule_and_memory();
        prop_assert!(memory > max && (granule == 1 || 1000 * granule < max));
        prop_assert_eq!(granule == 1, max <= EXACT);
        let mut now = start;
        for arrival in arrivals {
            now += arrival.pause_ns(per_ns);
            prop_assert_eq!(watched.offer(arrival.messages(max), now), None, "a disarmed scope withholds nothing");
            // At once, and at every end of what is in the window.
            for later in [0, 1, per_ns / 2, per_ns - 1, per_ns, 3 * per_ns] {
                let (used, logged) = (watched.used(now + later), watched.logged(now + later));
                prop_assert!((logged.min(memory)..logged + granule).contains(&used), "{} for {}", used, logged);
                prop_assert!(used <= memory);
            }
            if arrival.reset {
                watched.reset();
                prop_assert_eq!(watched.used(now), 0);
            }
        }
    }

    #[test]
    fn a_total_counts_from_the_last_reset_whatever_the_time(max in select(&LIMITS[..]), arrivals in arrivals()) {
        let mut watched = Watched::new(max, 0, true);
        let mut now = 0;
        for arrival in arrivals {
            now += arrival.pause_ns(1000 * MS);
            let more = arrival.messages(max);
            let would_be = watched.logged(now) + more;
            let expected = (would_be > max).then_some(LimitExceeded { scope: 0, limit: 0, used: would_be });
            prop_assert_eq!(watched.offer(more, now), expected);
            if arrival.reset {
                watched.reset();
            }
        }
    }
}

#[test]
fn a_message_may_cross_once_the_one_before_its_limit_is_a_window_ago() {
    for max in LIMITS.into_iter().filter(|max| *max <= EXACT) {
        let mut watched = Watched::new(max, MS, true);
        for i in 0..max {
            assert_eq!(watched.offer(1, 500 + i), None, "{max}");
        }
        assert_eq!(watched.offer(1, 500 + MS - 1), Some(LimitExceeded { scope: 0, limit: 0, used: max + 1 }));
        assert_eq!(watched.offer(1, 500 + MS), None);
        assert_eq!(
            watched.offer(2, 501 + MS),
            if max == 1 {
                Some(LimitExceeded { scope: 0, limit: 0, used: 3 })
            } else {
                Some(LimitExceeded { scope: 0, limit: 0, used: max + 1 })
            }
        );
    }
}

#[test]
fn every_limit_fits_its_ring() {
    for max in (1..20_000).chain((20_000..50_000_000).step_by(9_973)) {
        let limit = limit(LimitClass::Order, max, MS, 0);
        let (granule, layout) = (1 << limit.ring.granule_bits, 1 << limit.ring.ring_bits);
        assert!(layout <= MAX_SLOTS, "{max}: {layout} layout");
        assert!(
            (layout - 1) * granule > max,
            "{max}: {layout} layout of {granule} do not hold a full window and one more"
        );
        assert!(granule == 1 || 1000 * granule < max, "{max}: a granule of {granule} is 0.1 % or more");
        assert!(max > EXACT || granule == 1);
    }
}

#[test]
fn a_look_uses_up_nothing() {
    let mut watched = Watched::new(10, MS, true);
    assert_eq!(watched.offer(8, 1), None);
    for now in 2..100 {
        assert_eq!(watched.offer(3, now), Some(LimitExceeded { scope: 0, limit: 0, used: 11 }));
    }
    assert_eq!((watched.offer(2, 100), watched.used(100)), (None, 10));
}

#[test]
fn each_warning_level_is_told_once_each_time_it_is_crossed() {
    let mut watched = Watched::new(100, 1000 * MS, true);
    let told = |watched: &mut Watched| {
        watched.rises.drain(..).map(|rise| (rise.level, rise.used)).collect::<Vec<_>>()
    };
    for round in 0..3 {
        let start = 1 + round * 5000 * MS;
        for i in 0..100 {
            assert_eq!(watched.offer(1, start + i), None);
        }
        assert_eq!(told(&mut watched), [(1, 50), (2, 75), (3, 90)], "round {round}");
        // Half a window later the level stands; a window later it has fallen, and nothing is told of that.
        assert!(watched.offer(1, start + 500 * MS).is_some());
        assert_eq!(watched.scope.get().windows[0].level, 3);
        assert_eq!(watched.offer(60, start + 1000 * MS + 99), None);
        assert_eq!((watched.scope.get().windows[0].level, told(&mut watched)), (1, vec![]));
        assert_eq!(watched.offer(15, start + 1000 * MS + 100), None);
        assert_eq!(told(&mut watched), [(2, 75)]);
        assert_eq!(watched.offer(1, start + 3000 * MS), None);
        assert_eq!((watched.scope.get().windows[0].level, told(&mut watched)), (0, vec![]));
    }
    assert_eq!(watched.scope.get().windows[0].peak, 100);
}

#[test]
fn a_disarmed_scope_tells_once_that_it_would_have_tripped() {
    let mut watched = Watched::new(10, 1000 * MS, false);
    for i in 0..30 {
        assert_eq!(watched.offer(1, 1 + i), None);
    }
    let told: Vec<_> = watched.rises.iter().map(|rise| (rise.level, rise.used)).collect();
    assert_eq!(told, [(1, 5), (2, 8), (3, 9), (EXCEEDED, 11)]);
}

#[test]
fn all_limits_of_a_scope_are_asked_before_any_is_charged() {
    let mut scope = Scope { armed: 1, ..Scope::default() };
    add_limit(&mut scope, limit(LimitClass::Message, 100, MS, 0));
    add_limit(&mut scope, limit(LimitClass::Order, 3, MS, 128));
    add_limit(&mut scope, limit(LimitClass::Cancel, 1, MS, 192));
    let (scope, times) = (Cell::new(scope), vec![Cell::new(0); 256]);
    let shared = InMemory { scope: &scope, times: &times };
    let offer = |class: Class, more: u64| Segment::new(shared, class, more, 7).charge();
    assert_eq!(offer(Class::Order, 3), None);
    assert_eq!(offer(Class::Order, 1), Some(LimitExceeded { scope: 0, limit: 1, used: 4 }));
    assert_eq!(offer(Class::Cancel, 1), None);
    assert_eq!(offer(Class::Cancel, 2), Some(LimitExceeded { scope: 0, limit: 2, used: 3 }));
    assert_eq!(offer(Class::Admin, 96), None);
    assert_eq!(offer(Class::Query, 1), Some(LimitExceeded { scope: 0, limit: 0, used: 101 }));
    assert_eq!(scope.get().windows.map(|window| window.issued), [100, 3, 1, 0]);
}

#[test]
fn a_reset_in_between_trips_nothing() {
    for per_ns in [0, MS] {
        let mut watched = Watched::new(10, per_ns, true);
        assert_eq!(watched.offer(8, 1), None);
        let mut segment = Segment { voided: 5, ..Segment::new(watched.shared(), Class::Order, 1, 2) };
        assert_eq!(segment.charge(), None);
    }
}

#[test]
fn what_comes_in_is_counted_by_the_window_whatever_is_passed() {
    for max in LIMITS.into_iter().filter(|max| *max <= EXACT) {
        let mut watched = Watched::new(max, 100 * MS, true);
        let mut now = 1;
        for _ in 0..40 {
            assert_eq!(watched.record(max, now), None, "a full window of {max}, and the one before is over");
            now += 100 * MS;
        }
        // Far more than the ring remembers.
        for more in [max + 1, 3 * max + 5] {
            assert_eq!(watched.record(more, now), Some(LimitExceeded { scope: 0, limit: 0, used: more }));
            now += 100 * MS;
        }
        assert_eq!((watched.record(1, now), watched.used(now)), (None, 1));
        assert_eq!(watched.scope.get().windows[0].peak, 3 * max + 5);
    }
}

#[test]
fn a_peak_outlives_a_reload_which_forgets_up_to_where_a_window_is_calm() {
    let mut watched = Watched::new(1_000, 100 * MS, true);
    let mut now = 1;
    assert_eq!(watched.offer(400, now), None);
    let mut scope = watched.scope.get();
    scope.windows[0].recheck_at = [0; 2];
    watched.scope.set(scope);
    for _ in 0..3 {
        now += 100 * MS;
        assert_eq!(watched.offer(5, now), None);
        assert_eq!((watched.used(now), watched.scope.get().windows[0].peak), (5, 400));
    }
    assert_eq!(
        watched.scope.get().windows[0].recheck_at[0],
        400 + 400,
        "and is known again, from the tail on"
    );
}
