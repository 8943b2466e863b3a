//! The ring of samples: three columns for each session. A thousand sessions with orders in each second take
//! 3.6 MB, and 5.4 MB if orders of each of them were withheld.

use std::collections::HashMap;
use std::mem;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::column::{Column, MAX};
use super::sample::{Sample, Samples};
use super::{SECONDS, STEP_MS};
use crate::view::rates::{Rates, SessionRates};

/// The samples of the sessions in force. The samples of a session that a reload removes are removed with it.
#[derive(Debug, Default)]
pub struct Ring {
    sessions: Vec<Columns>,
    last: Option<Last>,
    /// Number of seconds that the ring holds, gaps included.
    length: usize,
}

/// The last sample.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// Its second.
    second: u64,
    at: Timestamp,
}

/// The values of a session in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastSecond {
    /// Passed and withheld messages of class order; `None` for a gap.
    pub rates: [Option<u32>; 2],
    /// Use of the nearest limit in permille.
    pub limit_permille: Option<u16>,
}

/// The samples of a session, by second modulo [`SECONDS`].
#[derive(Debug)]
struct Columns {
    name: Box<str>,
    /// Passed and withheld orders at the last sample; `None` if it had no sample of this session.
    counted: Option<[u64; 2]>,
    order: Column,
    withheld: Column,
    limit: Column,
}

impl Columns {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            counted: None,
            order: Column::default(),
            withheld: Column::default(),
            limit: Column::default(),
        }
    }

    /// Sets the values of a second, which is not before the last one.
    fn set(&mut self, second: u64, rates: Option<[u32; 2]>, limit: Option<u16>) {
        self.order.set(second, rates.map(|[order, _]| order));
        self.withheld.set(second, rates.map(|[_, withheld]| withheld));
        self.limit.set(second, limit.map(u32::from));
    }

    /// Adds a sample. A rate needs the sample of the second before.
    fn record(&mut self, second: u64, sample: &Sample, follows: bool) {
        let counted = [sample.order, sample.withheld];
        let rates = self.counted.filter(|_| follows).and_then(|before| rates(before, counted));
        self.set(second, rates, sample.limit_permille);
        self.counted = Some(counted);
    }

    fn rates(&self, seconds: impl Iterator<Item = u64> + Clone) -> SessionRates {
        let values = |column: &Column| seconds.clone().map(|second| column.get(second)).collect();
        SessionRates {
            name: self.name.to_string(),
            order: values(&self.order),
            withheld: values(&self.withheld),
            limit_permille: seconds.clone().map(|second| self.limit_permille(second)).collect(),
        }
    }

    fn limit_permille(&self, second: u64) -> Option<u16> {
        self.limit.get(second).and_then(|permille| permille.try_into().ok())
    }
}

impl Ring {
    /// Adds the samples of a second. Seconds are counted from any start. A second that is not later than the
    /// last one is ignored. Seconds in between become gaps.
    pub fn record(&mut self, second: u64, samples: &Samples) {
        let follows = match self.last {
            Some(last) if second <= last.second => return,
            Some(last) => {
                let skipped = (second - last.second - 1).min(SECONDS as u64);
                let gaps = second - skipped..second;
                self.sessions.iter_mut().for_each(|session| {
                    gaps.clone().for_each(|gap| session.set(gap, None, None));
                });
                self.length += skipped as usize;
                skipped == 0
            }
            None => false,
        };
        self.follow(samples);
        for (session, sample) in self.sessions.iter_mut().zip(samples.iter()) {
            session.record(second, &sample, follows);
        }
        self.length = (self.length + 1).min(SECONDS);
        self.last = Some(Last { second, at: samples.at() });
    }

    /// Holds exactly the sessions of the samples, in their order.
    fn follow(&mut self, samples: &Samples) {
        let names = || samples.iter().map(|sample| sample.name);
        if self.sessions.iter().map(|session| &*session.name).eq(names()) {
            return;
        }
        let known = mem::take(&mut self.sessions).into_iter();
        let mut known: HashMap<_, _> = known.map(|session| (session.name.clone(), session)).collect();
        let columns = |name| known.remove(name).unwrap_or_else(|| Columns::new(name));
        self.sessions = names().map(columns).collect();
    }

    /// Adds the rates of another ring, which end at `rates.end`, before those of this one. Its last second is
    /// the last second of this ring, which must have been filled after the other.
    pub fn fill(&mut self, second: u64, rates: &Rates<Vec<SessionRates>>) {
        let Some(end) = rates.end else { return };
        let length = rates.sessions.iter().map(|session| session.order.len()).max().unwrap_or_default();
        let length = length.min(SECONDS).min(second as usize + 1);
        for session in &rates.sessions {
            let mut columns = Columns::new(&session.name);
            for back in (0..length.min(session.order.len())).rev() {
                let at = |values: &[Option<u32>]| values.iter().rev().nth(back).copied().flatten();
                let limit = session.limit_permille.iter().rev().nth(back).copied().flatten();
                let rates = at(&session.order).map(|order| [order, at(&session.withheld).unwrap_or(0)]);
                columns.set(second - back as u64, rates, limit);
            }
            self.sessions.push(columns);
        }
        self.length = length;
        self.last = Some(Last { second, at: end });
    }

    /// Number of seconds that the ring holds, gaps included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Bytes of the values and names.
    pub fn bytes(&self) -> usize {
        let columns = |session: &Columns| {
            let columns = [&session.order, &session.withheld, &session.limit];
            columns.into_iter().map(Column::bytes).sum::<usize>() + session.name.len()
        };
        self.sessions.iter().map(columns).sum()
    }

    /// The rates of the last seconds, at most [`SECONDS`], for JSON.
    pub fn rates(&self, seconds: usize) -> Rates<impl Serialize> {
        let seconds = self.seconds(seconds);
        Rates { step_ms: STEP_MS, end: self.last.map(|last| last.at), sessions: Rows { ring: self, seconds } }
    }

    /// The rates of the last second.
    pub fn last_second(&self) -> Rates<Vec<SessionRates>> {
        let seconds = self.seconds(1);
        let sessions = self.sessions.iter().map(|session| session.rates(seconds.clone())).collect();
        Rates { step_ms: STEP_MS, end: self.last.map(|last| last.at), sessions }
    }

    /// The rates of one session in the last seconds, for JSON; no session if there is none of this name.
    pub fn rates_of(&self, session: &str, seconds: usize) -> Rates<Vec<SessionRates>> {
        let sessions = self.session(session, seconds).into_iter().collect();
        Rates { step_ms: STEP_MS, end: self.last.map(|last| last.at), sessions }
    }

    /// The rates of a session in the last seconds, the oldest first; `None` if there is no such session.
    pub fn session(&self, name: &str, seconds: usize) -> Option<SessionRates> {
        let session = self.sessions.iter().find(|session| &*session.name == name)?;
        Some(session.rates(self.seconds(seconds)))
    }

    /// The values of the last second, by session in the order of the samples.
    pub fn last(&self) -> impl Iterator<Item = LastSecond> {
        let second = self.last.map_or(0, |last| last.second);
        self.sessions.iter().map(move |session| LastSecond {
            rates: [session.order.get(second), session.withheld.get(second)],
            limit_permille: session.limit_permille(second),
        })
    }

    /// The sums of passed orders of sessions, by position, in each of the last `count` seconds before the
    /// last `back` ones, the oldest first; `None` for a gap of all of them.
    pub fn orders(&self, sessions: &[usize], count: usize, back: usize) -> impl Iterator<Item = Option<u32>> {
        let end = self.last.map_or(0, |last| (last.second + 1).saturating_sub(back as u64));
        let held = self.length.saturating_sub(back).min(count);
        let mut sums = vec![None; held];
        // Session by session, because the seconds of a session are side by side in memory.
        for columns in sessions.iter().filter_map(|session| self.sessions.get(*session)) {
            for (sum, second) in sums.iter_mut().zip(end - held as u64..) {
                if let Some(value) = columns.order.get(second) {
                    *sum = Some(sum.unwrap_or(0u32).saturating_add(value));
                }
            }
        }
        sums.into_iter()
    }

    /// Use of the nearest limit of a session, by position, this many seconds before the last one.
    pub fn limit_permille(&self, session: usize, back: usize) -> Option<u16> {
        let second = self.last?.second.checked_sub(back as u64).filter(|_| back < self.length)?;
        self.sessions.get(session)?.limit_permille(second)
    }

    fn seconds(&self, count: usize) -> std::ops::Range<u64> {
        let end = self.last.map_or(0, |last| last.second + 1);
        end - count.min(self.length) as u64..end
    }
}

/// The sessions of a ring as a JSON list. Makes one session at a time, because all of them take 25 MB.
struct Rows<'a> {
    ring: &'a Ring,
    seconds: std::ops::Range<u64>,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ring.sessions.iter().map(|session| session.rates(self.seconds.clone())))
    }
}

/// The differences of two counts; `None` if the counters were replaced meanwhile.
fn rates(before: [u64; 2], after: [u64; 2]) -> Option<[u32; 2]> {
    let rate = |n: usize| {
        let difference = after[n].checked_sub(before[n])?;
        Some(u32::try_from(difference).unwrap_or(MAX).min(MAX))
    };
    Some([rate(0)?, rate(1)?])
}
