//! Peaks of each session and class: by window, and by day.

use breaker_common::abi::Event;
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::Verdict;
use breaker_common::message::{Class, InboundClass, LimitClass};
use breaker_replay::engine::{Engine, Observer, Outbound, Source};

use super::flow::Flows;
use super::meter::{Entries, Meter};

/// Windows that are learnt, in ns.
pub const WINDOWS: [u64; 4] = [100_000_000, 1_000_000_000, 3_000_000_000, 60_000_000_000];
/// Segments up to which a window is exact. Many sessions have many windows.
const EXACT: usize = 512;
const DAY_NS: u64 = 86_400_000_000_000;

/// The highest use of a window on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayPeak {
    /// Days since 1970, UTC.
    pub day: u64,
    /// Messages in the window.
    pub peak: u64,
    /// End of the first window with so many, ns since 1970.
    pub at_ns: u64,
}

impl DayPeak {
    /// The use of a window at a time, ns since 1970.
    pub fn new(at_ns: u64, peak: u64) -> Self {
        Self { day: at_ns / DAY_NS, peak, at_ns }
    }
}

/// A window of a class.
#[derive(Clone)]
struct LearntWindow {
    meter: Meter,
    days: Vec<DayPeak>,
}

impl LearntWindow {
    fn add(&mut self, at_ns: u64, count: u64, all: &mut Entries) {
        let found = DayPeak::new(at_ns, self.meter.add(at_ns, count, all));
        match self.days.last_mut() {
            Some(last) if last.day == found.day && last.peak >= found.peak => {}
            Some(last) if last.day == found.day => *last = found,
            _ => self.days.push(found),
        }
    }
}

/// The windows of a session or of a flow, by class and window.
#[derive(Clone)]
pub struct Learnt {
    classes: Vec<Option<[LearntWindow; WINDOWS.len()]>>,
}

impl Default for Learnt {
    fn default() -> Self {
        Self { classes: vec![None; LimitClass::ALL.len()] }
    }
}

impl Learnt {
    fn add(&mut self, at_ns: u64, class: LimitClass, count: u32, all: &mut Entries) {
        if count == 0 {
            return;
        }
        let Some(slot) = self.classes.get_mut(class as usize) else { return };
        let windows = slot.get_or_insert_with(|| {
            WINDOWS.map(|length| LearntWindow { meter: Meter::new(length, EXACT), days: Vec::new() })
        });
        windows.iter_mut().for_each(|window| window.add(at_ns, count.into(), all));
    }

    fn outbound(&mut self, at_ns: u64, counts: &SegmentCounts, all: &mut Entries) {
        self.add(at_ns, LimitClass::Order, counts.class_count(Class::Order), all);
        self.add(at_ns, LimitClass::Cancel, counts.class_count(Class::Cancel), all);
        self.add(at_ns, LimitClass::Message, counts.total(), all);
    }

    /// Returns the peaks of each day, by window; `None` for a class without messages.
    pub fn days(&self, class: LimitClass) -> Option<[&[DayPeak]; WINDOWS.len()]> {
        let windows = self.classes.get(class as usize)?.as_ref()?;
        Some(std::array::from_fn(|window| &windows[window].days[..]))
    }

    /// Returns true if no message was seen.
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(Option::is_none)
    }
}

/// What `learn` collects.
#[derive(Default)]
pub struct Learner {
    /// By session number.
    pub sessions: Vec<Learnt>,
    /// Undeclared flows.
    pub flows: Flows,
    /// By number of the flow.
    pub flow_peaks: Vec<Learnt>,
    /// Orders that unread bytes count as.
    pub blind_orders: u64,
    /// Entries of all windows.
    entries: Entries,
}

impl Learner {
    /// Makes a learner for the sessions of an engine.
    pub fn new(engine: &Engine) -> Self {
        let sessions = vec![Learnt::default(); engine.open().maps.sessions.len()];
        Self { sessions, ..Self::default() }
    }
}

impl Observer for Learner {
    fn outbound(&mut self, segment: &Outbound<'_>) {
        if matches!(segment.verdict, Verdict::Control | Verdict::Ignored | Verdict::Unconfigured) {
            return;
        }
        if segment.counts.unread != 0 {
            self.blind_orders += segment.counts.blind_orders() as u64;
        }
        let learnt = if segment.session == 0 {
            let number = self.flows.number(segment.key, segment.payload);
            if self.flow_peaks.len() <= number {
                self.flow_peaks.resize(number + 1, Learnt::default());
            }
            self.flow_peaks.get_mut(number)
        } else {
            self.sessions.get_mut(segment.session as usize)
        };
        if let Some(learnt) = learnt {
            learnt.outbound(segment.at_ns, segment.counts, &mut self.entries);
        }
    }

    fn inbound(&mut self, at_ns: u64, session: u32, counts: &SegmentCounts) {
        if let Some(learnt) = self.sessions.get_mut(session as usize).filter(|_| session != 0) {
            let [fills, rejects] =
                [InboundClass::Fill, InboundClass::Reject].map(|class| counts.messages[class as usize]);
            learnt.add(at_ns, LimitClass::Fill, fills, &mut self.entries);
            learnt.add(at_ns, LimitClass::Reject, rejects, &mut self.entries);
        }
    }

    fn event(&mut self, _: u64, _: &Event, _: Source) {}
}
