//! The samples of a moment, read from the maps.

use anyhow::Result;
use breaker_common::abi::Counters;
use breaker_common::message::Class;
use jiff::Timestamp;

use crate::config::SessionIndex;
use crate::kernel::Breaker;
use crate::kernel::limit_use::LimitUse;
use crate::kernel::sessions::scopes;

/// The samples of all sessions at one moment.
#[derive(Clone, Debug)]
pub struct Samples {
    at: Timestamp,
    /// Names of the sessions, one after the other, and where each ends.
    names: String,
    sessions: Vec<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    name_end: usize,
    order: u64,
    withheld: u64,
    limit_permille: Option<u16>,
}

/// The sample of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Name of the session.
    pub name: &'a str,
    /// Passed messages of class order since the load.
    pub order: u64,
    /// Withheld messages of class order since the load.
    pub withheld: u64,
    /// Use of the nearest limit in permille, at most 65,534; `None` if no limit applies to the session. The
    /// nearest limit is the most used one among the limits of the session, its groups and the host.
    pub limit_permille: Option<u16>,
}

impl Samples {
    /// No samples, of this moment.
    pub fn new(at: Timestamp) -> Self {
        Self { at, names: String::new(), sessions: Vec::new() }
    }

    /// Adds the sample of a session.
    pub fn push(&mut self, Sample { name, order, withheld, limit_permille }: Sample) {
        self.names.push_str(name);
        self.sessions.push(Counted { name_end: self.names.len(), order, withheld, limit_permille });
    }

    /// The moment of the samples.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The samples, in the order of their addition.
    pub fn iter(&self) -> impl Iterator<Item = Sample<'_>> {
        let mut start = 0;
        self.sessions.iter().map(move |counted| {
            let name = &self.names[start..counted.name_end];
            start = counted.name_end;
            let Counted { order, withheld, limit_permille, .. } = *counted;
            Sample { name, order, withheld, limit_permille }
        })
    }
}

/// Reads the samples of the sessions in force.
pub fn read(breaker: &Breaker) -> Result<Samples> {
    from_counters(breaker, &breaker.counters()?)
}

/// As [`read`], with counters that the caller has read.
pub fn from_counters(breaker: &Breaker, counters: &[Counters]) -> Result<Samples> {
    let names = breaker.names();
    let mut used = vec![None; names.count() as usize];
    for scope in names.iter() {
        used[scope.get() as usize] = breaker.limits(scope)?.iter().map(permille).max();
    }
    let mut samples = Samples::new(Timestamp::now());
    for session in names.sessions() {
        let Some(counters) = counters.get(session.get() as usize) else { continue };
        samples.push(Sample {
            name: names.session_name(session).as_str(),
            order: counters.passed[Class::Order as usize],
            withheld: counters.withheld[Class::Order as usize],
            limit_permille: nearest(breaker, session, &used)?,
        });
    }
    Ok(samples)
}

/// The highest use among the limits that apply to a session.
fn nearest(breaker: &Breaker, session: SessionIndex, used: &[Option<u16>]) -> Result<Option<u16>> {
    let found = breaker.session(session)?;
    Ok(scopes(&found).iter().filter_map(|scope| *used.get(*scope as usize)?).max())
}

/// Use of a limit in permille.
fn permille(limit: &LimitUse) -> u16 {
    let permille = match limit.max_messages {
        // The first message exceeds the limit.
        0 => 1000,
        max => u128::from(limit.used) * 1000 / u128::from(max),
    };
    permille.min(u128::from(u16::MAX - 1)) as u16
}
