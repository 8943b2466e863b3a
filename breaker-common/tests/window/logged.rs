//! A limit with a log of all passed messages.

use std::cell::{Cell, RefCell};

use breaker_common::abi::{Scope, Session};
use breaker_common::counts::SegmentCounts;
use breaker_common::limits::{
    self, Attempt, Charge, LimitExceeded, PendingCharge, Scopes, SharedScope, WarningRaised,
};
use breaker_common::message::{Class, LimitClass};
use breaker_common::window::MAX_SLOTS;

use breaker_replay::model::policy::{limit, session};
use breaker_replay::model::scope::{ScopeInMemory, add_limit};

/// Limits around the changes of the ring layout.
pub const LIMITS: [u64; 13] = [1, 2, 3, 137, 1023, 1024, 1025, 2045, 2046, 2047, 2048, 5000, 100_000];
/// Largest limit with one message per slot.
pub const EXACT: u64 = MAX_SLOTS - 2;
/// A millisecond in ns.
pub const MS: u64 = 1_000_000;

/// A segment with messages of one class, and the warnings that it raised.
pub struct Segment<'a> {
    scope: ScopeInMemory<'a>,
    counts: SegmentCounts,
    now: u64,
    pending: PendingCharge,
    warnings: Vec<WarningRaised>,
    /// Number of tickets that another CPU takes before the clock is read, and that a reset voids.
    pub voided: u64,
}

impl<'a> Segment<'a> {
    pub fn new(scope: ScopeInMemory<'a>, class: Class, count: u64, now: u64) -> Self {
        let mut counts = SegmentCounts::default();
        counts.messages[class as usize] = count as u32;
        counts.store_total();
        let pending = PendingCharge::default();
        Self { scope, counts, now, pending, warnings: Vec::new(), voided: 0 }
    }

    /// Charges the messages. Returns the exceeded limit.
    pub fn charge(&mut self) -> Option<LimitExceeded> {
        limits::charge(&session_of(&self.scope), self)
    }
}

/// Returns a session with this scope only.
fn session_of(scope: &ScopeInMemory<'_>) -> Session {
    let (mut session, scope) = (session(&[0]), *scope.scope.borrow());
    limits::list_limits(&mut session, |_| (scope.rules[0], scope.limits[0]));
    session
}

/// The scopes of a policy with one scope.
struct One<'a>(ScopeInMemory<'a>);

impl<'a> Scopes for One<'a> {
    type Scope = ScopeInMemory<'a>;

    fn scope(&self, _: u32) -> Option<ScopeInMemory<'a>> {
        Some(self.0)
    }
}

impl Charge for Segment<'_> {
    fn try_charge(&mut self, session: &Session) -> Attempt {
        let (scope, now, voided) = (self.scope, self.now, self.voided);
        limits::try_charge(&One(scope), session, &mut self.pending, &self.counts, || {
            clock(scope, now, voided)
        })
    }

    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        let (scope, now, voided) = (self.scope, self.now, self.voided);
        limits::find_exceeded(&One(scope), session, &mut self.pending, &self.counts, || {
            clock(scope, now, voided)
        })
    }

    fn take_tickets(&mut self, session: &Session) -> u64 {
        limits::take_tickets(&One(self.scope), session, &mut self.pending, &self.counts)
    }

    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded> {
        let mut first = None;
        limits::for_each_uncommitted(uncommitted, |i, raced| {
            let (limit, segment) = ((i, &session.limit_refs[i], raced), (&self.pending, &self.counts));
            let on_warning = |warning| self.warnings.push(warning);
            first = first.or(limits::commit(&One(self.scope), limit, segment, || self.now, on_warning));
        });
        first
    }
}

/// Returns the time. Before that, another CPU takes `voided` tickets and a reset voids them.
fn clock(scope: ScopeInMemory<'_>, now: u64, voided: u64) -> u64 {
    if voided != 0 {
        scope.issue_tickets(0, voided);
        reset(scope.scope);
    }
    now
}

/// Voids all tickets, as user space does at a reset.
fn reset(scope: &RefCell<Scope>) {
    let mut state = *scope.borrow();
    for window in &mut state.windows {
        window.floor = window.issued;
    }
    *scope.borrow_mut() = state;
}

/// A scope with one limit, and a log of the passed messages.
pub struct LoggedLimit {
    /// Scope.
    pub scope: RefCell<Scope>,
    times: Vec<Cell<u64>>,
    /// Time and number of messages.
    log: Vec<(u64, u64)>,
    /// Raised warnings.
    pub warnings: Vec<WarningRaised>,
}

impl LoggedLimit {
    /// Creates a scope with a limit of `max` orders in `per_ns`.
    pub fn new(max: u64, per_ns: u64, armed: bool) -> Self {
        let mut scope = Scope { armed: armed as u32, ..Scope::default() };
        add_limit(&mut scope, limit(LimitClass::Order, max, per_ns, 0));
        let slots = 1 << scope.limits[0][0].ring.ring_bits;
        Self {
            scope: RefCell::new(scope),
            times: vec![Cell::new(0); slots],
            log: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Returns access to the scope.
    pub fn cell_scope(&self) -> ScopeInMemory<'_> {
        ScopeInMemory { scope: &self.scope, times: &self.times }
    }

    /// Charges outbound orders, which pass if no limit is exceeded.
    pub fn offer(&mut self, count: u64, now: u64) -> Option<LimitExceeded> {
        let mut segment = Segment::new(self.cell_scope(), Class::Order, count, now);
        let exceeded = segment.charge();
        let warnings = segment.warnings;
        self.warnings.extend(warnings);
        if exceeded.is_none() {
            self.log.push((now, count));
        }
        exceeded
    }

    /// Charges messages like inbound ones, which always pass. Returns the exceeded limit.
    pub fn record(&mut self, count: u64, now: u64) -> Option<LimitExceeded> {
        let mut segment = Segment::new(self.cell_scope(), Class::Order, count, now);
        let session = session_of(&self.cell_scope());
        let mut found = None;
        limits::charge_inbound(&session, &mut segment, |_, exceeded| found = Some(exceeded));
        self.log.push((now, count));
        found
    }

    /// Returns the number of messages in the window, by the log.
    pub fn logged(&self, now: u64) -> u64 {
        let per_ns = self.scope.borrow().limits[0][0].per_ns;
        self.log
            .iter()
            .rev()
            .take_while(|(at, _)| per_ns == 0 || now - at < per_ns)
            .map(|(_, count)| count)
            .sum()
    }

    /// Returns the number of messages in the window, by the ring.
    pub fn used(&self, now: u64) -> u64 {
        let issued = self.scope.borrow().windows[0].issued;
        issued - self.cell_scope().tail(0, &self.scope.borrow().limits[0][0], issued, now)
    }

    /// Resets the scope and clears the log.
    pub fn reset(&mut self) {
        reset(&self.scope);
        self.log.clear();
    }

    /// Returns the number of messages per slot, and the number of messages that the ring remembers.
    pub fn granule_and_memory(&self) -> (u64, u64) {
        let limit = self.scope.borrow().limits[0][0];
        let granule = 1 << limit.ring.granule_bits;
        (granule, ((1 << limit.ring.ring_bits) - 1) * granule)
    }
}
