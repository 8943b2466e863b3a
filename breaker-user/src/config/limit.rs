//! Limits, and the presets that stand for a venue's own.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::{Deref, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use breaker_common::abi::WARNINGS_PER_LIMIT;
use breaker_common::message::LimitClass;

use super::invalid::{Invalid, quoted};
use super::text::{duration, write_duration};
use super::words::words;

/// How long a window may be.
pub(super) const WINDOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// How many messages a limit may allow.
pub(super) const MAX: RangeInclusive<NonZeroU32> = NonZeroU32::MIN..=positive(1_000_000_000);

/// For constants: the compiler evaluates it, and refuses 0.
pub(super) const fn positive(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("constants here are not 0")
}

/// Over what a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// Any interval of this length, from 1 ms to 24 h in whole milliseconds.
    Window(Duration),
    /// The time since the last reset.
    Total,
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(length) => write_duration(f, *length),
            Self::Total => f.pad("total"),
        }
    }
}

impl FromStr for Per {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "total" {
            return Ok(Self::Total);
        }
        let Some(length) = duration(text) else {
            let remedy = "write a whole number and ms, s, m or h, like \"500ms\" or \"3s\", or \"total\"";
            return Err(Invalid::new(format!("{} is not a time", quoted(text)), remedy));
        };
        if !WINDOW.contains(&length) {
            return Err(Invalid::new(
                format!("{} is out of range", quoted(text)),
                "write a time from 1ms to 24h",
            ));
        }
        Ok(Self::Window(length))
    }
}

/// The shares of a limit at which it warns: in percent, strictly rising, each from 1 to 99, at most three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WarnLevels {
    percents: [u8; WARNINGS_PER_LIMIT],
    count: usize,
}

impl WarnLevels {
    /// Takes the levels as they stand in the file.
    pub(super) fn new(levels: &[u8]) -> Result<Self, Invalid> {
        let rising = levels.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = levels.iter().all(|level| (1..=99).contains(level));
        if !rising || !in_range || levels.len() > WARNINGS_PER_LIMIT {
            let remedy = format!(
                "write at most {WARNINGS_PER_LIMIT} percentages from 1 to 99, each above the one before"
            );
            return Err(Invalid::new(format!("{levels:?} are no warning levels"), remedy));
        }
        let mut percents = [0; WARNINGS_PER_LIMIT];
        percents[..levels.len()].copy_from_slice(levels);
        Ok(Self { percents, count: levels.len() })
    }

    /// The percentages, lowest first; none where a limit does not warn.
    pub fn as_slice(&self) -> &[u8] {
        &self.percents[..self.count]
    }
}

impl Default for WarnLevels {
    fn default() -> Self {
        Self { percents: [50, 75, 90], count: 3 }
    }
}

/// At most `max` messages of a class in any window; or a ratio, at most so many orders for each fill.
///
/// A ratio, `{ class = "order", per_fill = R, after = N }`, trips where more than N orders have crossed since the last reset
/// and they are more than R for each fill that came in. N keeps the first orders of a day from being a ratio of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The messages it counts: of a ratio, orders.
    pub class: LimitClass,
    /// How many of them may cross, and of a ratio, how many may cross whatever is filled: 1 to 1,000,000,000.
    pub max: NonZeroU32,
    /// Over what they count: of a ratio, [`Per::Total`].
    pub per: Per,
    /// Of a ratio, how many of them may cross for each fill: 1 to 1,000,000,000.
    pub per_fill: Option<NonZeroU32>,
    /// When it warns.
    pub warn: WarnLevels,
}

impl Limit {
    /// Whether it can only be kept by reading what comes in.
    pub fn needs_inbound(&self) -> bool {
        self.per_fill.is_some() || matches!(self.class, LimitClass::Fill | LimitClass::Reject)
    }
}

/// The limits of a scope: at most four, no two of the same class over the same time, and at most one ratio besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(Vec<Limit>);

impl Limits {
    /// The scope's own limits, and those of its preset for the classes that have none of their own.
    ///
    /// The caller says how many a scope may have: it knows the place in the file.
    pub(super) fn merge(own: Vec<Limit>, preset: Option<Preset>) -> Self {
        // A ratio says nothing of how fast orders may follow each other: the venue's throttle stays.
        let overridden = |class| own.iter().any(|limit| limit.class == class && limit.per_fill.is_none());
        let mut added = preset.map(Preset::limits).unwrap_or_default();
        added.retain(|limit| !overridden(limit.class));
        Self(own.into_iter().chain(added).collect())
    }
}

impl Deref for Limits {
    type Target = [Limit];

    fn deref(&self) -> &[Limit] {
        &self.0
    }
}

words! {
    /// A venue whose own throttle a scope stays below.
    Preset, "a preset" {
        /// CME Globex iLink.
        Cme = "cme",
        /// Eurex T7, high-frequency session.
        EurexHf = "eurex-hf",
        /// Eurex T7, low-frequency session.
        EurexLf = "eurex-lf",
        /// Cboe Digital.
        CboeDigital = "cboe-digital",
        /// Cboe US equities and options.
        CboeUs = "cboe-us",
        /// Refinitiv (LSEG) FX.
        Refinitiv = "refinitiv",
    }
}

impl Preset {
    /// The venue's rule in words, and as limits: class, most messages, milliseconds.
    ///
    /// Where a venue counts cancels in the same figure, the limit still counts orders alone: a limit withholds the message
    /// that passes it, and a cancel withheld adds risk. Who wants the venue's sum adds a limit of class `message`.
    pub const fn rule(self) -> (&'static str, &'static [(LimitClass, NonZeroU32, u64)]) {
        use LimitClass::{Cancel, Order};
        use positive as n;
        match self {
            Self::Cme => (
                "messaging controls per iLink session over a three-second window: cancel requests 1000; all other \
                 application messages 500",
                const { &[(Order, n(500), 3_000), (Cancel, n(1_000), 3_000)] },
            ),
            Self::EurexHf => (
                "transaction limit of a high-frequency session: 150 per second",
                const { &[(Order, n(150), 1_000)] },
            ),
            Self::EurexLf => (
                "transaction limit of a low-frequency session: 50 per second",
                const { &[(Order, n(50), 1_000)] },
            ),
            Self::CboeDigital => (
                "standard throttle of a FIX session: 100 messages per second",
                const { &[(Order, n(100), 1_000)] },
            ),
            Self::CboeUs => (
                "order rate threshold of a port: 10,000 messages per second",
                const { &[(Order, n(10_000), 1_000)] },
            ),
            Self::Refinitiv => {
                ("throttle of a session: 15 messages per five seconds", const { &[(Order, n(15), 5_000)] })
            }
        }
    }

    fn limits(self) -> Vec<Limit> {
        let limit = |&(class, max, per): &(LimitClass, NonZeroU32, u64)| Limit {
            class,
            max,
            per: Per::Window(Duration::from_millis(per)),
            per_fill: None,
            warn: WarnLevels::default(),
        };
        self.rule().1.iter().map(limit).collect()
    }
}
