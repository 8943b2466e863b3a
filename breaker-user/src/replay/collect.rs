//! Collects what a policy does on captures: messages, warnings, exceeded limits, trips.

use breaker_common::abi::{Event, LIMITS_PER_SCOPE, cause, kind};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::Verdict;
use breaker_common::message::InboundClass;
use breaker_replay::engine::{Engine, Observer, Outbound, Source};

use super::flow::Flows;
use super::windows::Windows;

/// A number of messages at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time, ns since 1970.
    pub at_ns: u64,
    /// Messages in the window.
    pub used: u64,
    /// Session whose message it was.
    pub session: u32,
}

/// A limit over the captures, if nothing trips.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitTally {
    /// First time at each warning level.
    pub warned: [Option<Moment>; 3],
    /// First time that it was exceeded.
    pub exceeded: Option<Moment>,
    /// How often its window went above the limit.
    pub times_exceeded: u64,
}

/// A trip of a scope.
#[derive(Clone, Copy, Debug)]
pub struct TripTally {
    /// Scope number.
    pub scope: u32,
    /// One cause bit.
    pub cause: u64,
    /// Position of the exceeded limit, for a trip by a limit.
    pub limit: Option<u32>,
    /// Time and message.
    pub moment: Moment,
}

/// Messages and segments of a session, or of an undeclared flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Outbound messages by class, whatever the verdict.
    pub seen: [u64; 5],
    /// Those of them in withheld segments.
    pub withheld: [u64; 5],
    /// Segments with payload that pass.
    pub segments_passed: u64,
    /// Withheld segments.
    pub segments_withheld: u64,
    /// Time of the first withheld segment, ns since 1970.
    pub first_withheld_ns: Option<u64>,
    /// Segments with retransmitted bytes.
    pub retransmitted: u64,
    /// Desyncs of outbound streams.
    pub desyncs: u64,
    /// Segments with unread bytes.
    pub unread: u64,
    /// Orders that unread bytes count as.
    pub blind_orders: u64,
    /// Inbound messages: fills, rejects, others.
    pub inbound: [u64; 3],
}

impl Tally {
    fn add(&mut self, segment: &Outbound<'_>) {
        let counts = segment.counts;
        for (seen, count) in self.seen.iter_mut().zip(counts.messages) {
            *seen += count as u64;
        }
        self.retransmitted += counts.repeated as u64;
        self.desyncs += counts.desyncs as u64;
        if counts.unread != 0 {
            self.unread += 1;
            self.blind_orders += counts.blind_orders() as u64;
        }
        if !segment.verdict.withheld() {
            self.segments_passed += 1;
            return;
        }
        self.segments_withheld += 1;
        self.first_withheld_ns.get_or_insert(segment.at_ns);
        for (withheld, count) in self.withheld.iter_mut().zip(counts.messages) {
            *withheld += count as u64;
        }
    }
}

/// Everything that a replay collects.
pub struct Collector {
    /// By session number.
    pub sessions: Vec<Tally>,
    /// By scope number and position.
    pub limits: Vec<[LimitTally; LIMITS_PER_SCOPE]>,
    /// Trips in the order of time.
    pub trips: Vec<TripTally>,
    /// Undeclared flows.
    pub flows: Flows,
    /// Their messages, by number.
    pub flow_tallies: Vec<Tally>,
    /// The windows of the limits.
    pub windows: Windows,
}

impl Collector {
    /// Makes a collector for the scopes and sessions of an engine.
    ///
    /// `is_plotted`: the windows are kept over the time.
    pub fn new(engine: &Engine, is_plotted: bool) -> Self {
        let maps = &engine.open().maps;
        Self {
            sessions: vec![Tally::default(); maps.sessions.len()],
            limits: vec![Default::default(); maps.scopes.len()],
            trips: Vec::new(),
            flows: Flows::default(),
            flow_tallies: Vec::new(),
            windows: Windows::new(engine, is_plotted),
        }
    }

    fn limit(&mut self, event: &Event) -> Option<&mut LimitTally> {
        self.limits.get_mut(event.scope as usize)?.get_mut(event.limit as usize)
    }

    fn warned(&mut self, event: &Event, moment: Moment) {
        // A segment can raise the level by several steps.
        let levels = event.level as usize;
        if let Some(limit) = self.limit(event) {
            for slot in limit.warned.iter_mut().take(levels) {
                slot.get_or_insert(moment);
            }
        }
    }

    fn exceeded(&mut self, event: &Event, moment: Moment) {
        if let Some(limit) = self.limit(event) {
            limit.exceeded.get_or_insert(moment);
            limit.times_exceeded += 1;
        }
    }
}

impl Observer for Collector {
    #[inline(always)]
    fn outbound(&mut self, segment: &Outbound<'_>) {
        if matches!(segment.verdict, Verdict::Control | Verdict::Ignored | Verdict::Unconfigured) {
            return;
        }
        if let Some(tally) = self.sessions.get_mut(segment.session as usize) {
            tally.add(segment);
        }
        if segment.session == 0 {
            let number = self.flows.number(segment.key, segment.payload);
            if self.flow_tallies.len() <= number {
                self.flow_tallies.resize(number + 1, Tally::default());
            }
            self.flow_tallies[number].add(segment);
        }
        self.windows.add(segment.at_ns, segment.session, segment.counts);
    }

    fn inbound(&mut self, at_ns: u64, session: u32, counts: &SegmentCounts) {
        if let Some(tally) = self.sessions.get_mut(session as usize) {
            for (seen, class) in tally.inbound.iter_mut().zip(InboundClass::ALL) {
                *seen += counts.messages[class as usize] as u64;
            }
        }
        self.windows.add(at_ns, session, counts);
    }

    fn event(&mut self, at_ns: u64, event: &Event, source: Source) {
        let moment = Moment { at_ns, used: event.used, session: event.session };
        match event.kind {
            kind::WARNED if source != Source::Enforced => self.warned(event, moment),
            kind::WOULD_TRIP if source != Source::Enforced => self.exceeded(event, moment),
            kind::TRIPPED if source != Source::Open => {
                let limit = (event.cause == cause::RATE).then_some(event.limit);
                self.trips.push(TripTally { scope: event.scope, cause: event.cause, limit, moment });
                if limit.is_some()
                    && let Some(tally) = self.limit(event)
                {
                    // An inbound limit trips without a withheld segment, so no other event reports it.
                    tally.exceeded.get_or_insert(moment);
                }
            }
            _ => {}
        }
    }
}
