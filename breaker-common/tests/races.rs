//! The sliding window with several CPUs: threads charge one limit concurrently, by a real clock.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use breaker_common::abi::{Fences, Limit, RingLayout, Rules, Session, Switch, Trip, Window, cause};
use breaker_common::counts::SegmentCounts;
use breaker_common::limits::{self, Attempt, Charge, LimitExceeded, PendingCharge, Scopes, SharedScope};
use breaker_common::message::{Class, LimitClass};
use breaker_common::window::{self, Ring};
use breaker_replay::model::policy;

const THREADS: usize = 4;
const MS: u64 = 1_000_000;

/// A scope with one limit, shared by all CPUs.
struct Shared {
    limit: Limit,
    slots: Vec<AtomicU64>,
    issued: AtomicU64,
    tail: AtomicU64,
    peak: AtomicU64,
    level: AtomicU64,
    recheck_at: AtomicU64,
    causes: AtomicU64,
    epoch: AtomicU64,
    start: Instant,
}

impl Shared {
    fn new(max: u64, per_ns: u64) -> Self {
        let limit = policy::limit(LimitClass::Order, max, per_ns, 0);
        let zero = || AtomicU64::new(0);
        let slots = (0..1 << limit.ring.ring_bits).map(|_| zero()).collect();
        let start = Instant::now();
        Self {
            limit,
            slots,
            issued: zero(),
            tail: zero(),
            peak: zero(),
            level: zero(),
            recheck_at: zero(),
            causes: zero(),
            epoch: zero(),
            start,
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

struct Memory<'a>(&'a [AtomicU64]);

impl Ring for Memory<'_> {
    fn read(&self, slot: u64) -> u64 {
        self.0[slot as usize].load(SeqCst)
    }

    fn write(&mut self, slot: u64, word: u64) {
        self.0[slot as usize].store(word, SeqCst);
    }
}

/// The scopes of a policy with one scope.
struct One<'a>(&'a Shared);

impl<'a> Scopes for One<'a> {
    type Scope = &'a Shared;

    fn scope(&self, _: u32) -> Option<&'a Shared> {
        Some(self.0)
    }
}

impl SharedScope for &Shared {
    type Limit = Box<Limit>;

    fn switch(&self) -> Switch {
        Switch { causes: self.causes.load(SeqCst), epoch: self.epoch.load(SeqCst), ..Switch::default() }
    }

    fn armed(&self) -> bool {
        true
    }

    fn limit(&self, _: usize) -> Box<Limit> {
        Box::new(self.limit)
    }

    fn window(&self, _: usize) -> Window {
        Window {
            issued: self.issued.load(SeqCst),
            tail: self.tail.load(SeqCst),
            peak: self.peak.load(SeqCst),
            level: self.level.load(SeqCst),
            ..Window::default()
        }
    }

    fn issued(&self, _: usize) -> u64 {
        self.issued.load(SeqCst)
    }

    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64 {
        window::tail(limit, &Window { issued, ..self.window(i) }, &Memory(&self.slots), now)
    }

    fn record_times(&self, layout: &RingLayout, first: u64, count: u64, now: impl FnOnce() -> u64) {
        window::record_times(layout, &mut Memory(&self.slots), first, count, now(), u64::MAX);
    }

    fn issue_tickets(&self, _: usize, count: u64) -> u64 {
        self.issued.fetch_add(count, SeqCst)
    }

    fn set_tail(&self, _: usize, tail: u64) {
        self.tail.store(tail, SeqCst);
    }

    fn set_peak(&self, _: usize, peak: u64) {
        self.peak.store(peak, SeqCst);
    }

    fn recheck_at(&self, _: usize) -> u64 {
        self.recheck_at.load(SeqCst)
    }

    fn set_recheck_at(&self, _: usize, recheck_at: u64) {
        self.recheck_at.store(recheck_at, SeqCst);
    }

    fn swap_level(&self, _: usize, level: u64) -> u64 {
        self.level.swap(level, SeqCst)
    }

    fn or_causes(&self, causes: u64) -> u64 {
        self.causes.fetch_or(causes, SeqCst)
    }

    fn raise_epoch(&self, _: u64) {
        self.epoch.fetch_add(1, SeqCst);
    }

    fn set_trip(&self, _: Trip) {}

    fn fences(&self) -> Fences {
        Fences::default()
    }

    fn set_fences(&self, _: Fences) {}

    fn add_fills(&self, _: usize, _: u64) {}
}

/// One segment on one CPU.
struct Segment<'a> {
    shared: &'a Shared,
    counts: SegmentCounts,
    pending: PendingCharge,
}

impl Charge for Segment<'_> {
    fn try_charge(&mut self, session: &Session) -> Attempt {
        let read = OnceCell::new();
        let clock = || *read.get_or_init(|| self.shared.now());
        limits::try_charge(&One(self.shared), session, &mut self.pending, &self.counts, clock)
    }

    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        limits::find_exceeded(&One(self.shared), session, &mut self.pending, &self.counts, || {
            self.shared.now()
        })
    }

    fn take_tickets(&mut self, session: &Session) -> u64 {
        limits::take_tickets(&One(self.shared), session, &mut self.pending, &self.counts)
    }

    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded> {
        let mut first = None;
        limits::for_each_uncommitted(uncommitted, |i, raced| {
            let (limit, segment) = ((i, &session.limit_refs[i], raced), (&self.pending, &self.counts));
            first = first.or(limits::commit(&One(self.shared), limit, segment, || self.shared.now(), |_| ()));
        });
        first
    }
}

/// A passed segment: the time before its charge, the time after its charge, and its messages.
#[derive(Clone, Copy, Debug)]
struct PassedSegment {
    began: u64,
    ended: u64,
    messages: u64,
}

/// Charges a segment. Trips the scope like `decide` if the limit is exceeded.
fn offer(shared: &Shared, messages: u64) -> Option<PassedSegment> {
    let began = shared.now();
    let (counts, pending) = Default::default();
    let mut segment = Segment { shared, counts, pending };
    segment.counts.messages[Class::Order as usize] = messages as u32;
    let mut session = policy::session(&[0]);
    let limits = [shared.limit, Limit::default(), Limit::default(), Limit::default()];
    limits::list_limits(&mut session, |_| (Rules { positions: 1, pad: 0 }, limits));
    if let Some(exceeded) = limits::charge(&session, &mut segment) {
        limits::trip(&shared, Trip { cause: cause::RATE, used: exceeded.used, ..Trip::default() });
        return None;
    }
    Some(PassedSegment { began, ended: shared.now(), messages })
}

/// Offers segments from several threads while `go_on` returns true. Returns the passed segments.
fn offer_concurrently(
    shared: &Shared,
    max_messages: u64,
    go_on: impl Fn(&Shared) -> bool + Sync,
) -> Vec<PassedSegment> {
    thread::scope(|scope| {
        let work = |thread: u64| {
            let go_on = &go_on;
            move || {
                let mut passed = Vec::new();
                let mut i = thread;
                while go_on(shared) {
                    passed.extend(offer(shared, 1 + i % max_messages));
                    i += 1;
                }
                passed
            }
        };
        let threads: Vec<_> = (0..THREADS as u64).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a charging thread")).collect()
    })
}

fn messages(passed: &[PassedSegment]) -> u64 {
    passed.iter().map(|segment| segment.messages).sum()
}

/// Asserts the limit: a window separates the start of a charge from the end of the charge `max` messages
/// later.
fn assert_limit_holds(shared: &Shared, mut passed: Vec<PassedSegment>) {
    let Limit { max, per_ns, .. } = shared.limit;
    passed.sort_by_key(|segment| segment.began);
    // Counts the segments whose charge is completely within one window from `first` on.
    for (i, first) in passed.iter().enumerate() {
        let inside = passed[i..].iter().take_while(|segment| segment.began - first.began < per_ns);
        let inside: u64 = inside
            .filter(|segment| segment.ended - first.began < per_ns)
            .map(|segment| segment.messages)
            .sum();
        assert!(
            inside <= max,
            "{inside} messages passed in less than {per_ns} ns from {} on, the limit is {max}",
            first.began
        );
    }
}

#[test]
fn several_cpus_never_pass_one_more_in_a_window() {
    for (max, per_ns, max_messages) in
        [(1, MS, 1), (7, 2 * MS, 1), (100, 5 * MS, 3), (1024, 20 * MS, 10), (5000, 20 * MS, 20)]
    {
        let shared = Shared::new(max, per_ns);
        let passed = offer_concurrently(&shared, max_messages, |shared| shared.now() < 400 * MS);
        assert!(messages(&passed) >= max / 2, "{passed:?} passed, the limit is {max}");
        assert_limit_holds(&shared, passed);
        assert_eq!((&shared).switch().causes, cause::RATE);
    }
}

fn is_untripped(shared: &Shared) -> bool {
    (&shared).switch().causes == 0
}

#[test]
fn a_total_passes_exactly_its_limit_of_single_messages() {
    for max in [1, 10, 1000, 100_000] {
        let shared = Shared::new(max, 0);
        let passed = offer_concurrently(&shared, 1, is_untripped);
        assert_eq!(messages(&passed), max);
        assert_eq!(
            (&shared).switch(),
            Switch { causes: cause::RATE, epoch: 1, ..Switch::default() },
            "it trips once"
        );
        assert!(offer(&shared, 1).is_none());
    }
}

#[test]
fn a_total_is_never_exceeded_by_segments_of_several_messages() {
    for max in 1000..1050 {
        let shared = Shared::new(max, 0);
        let passed = offer_concurrently(&shared, 7, is_untripped);
        assert!(messages(&passed) <= max, "{} of {max}", messages(&passed));
    }
}
