//! Limits, and presets for the limits of venues.

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

/// Valid lengths of a window.
pub(super) const WINDOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// Valid numbers of messages of a limit.
pub(super) const MAX: RangeInclusive<NonZeroU32> = NonZeroU32::MIN..=positive(1_000_000_000);

/// Makes a constant. The compiler evaluates it and refuses 0.
pub(super) const fn positive(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("the constant is not 0")
}

/// The interval that a limit counts over.
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

/// Percentages of a limit at which it warns: strictly rising, each from 1 to 99, at most three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WarnLevels {
    percents: [u8; WARNINGS_PER_LIMIT],
    count: usize,
}

impl WarnLevels {
    /// Checks the levels of the file.
    pub(super) fn new(levels: &[u8]) -> Result<Self, Invalid> {
        let rising = levels.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = levels.iter().all(|level| (1..=99).contains(level));
        if !rising || !in_range || levels.len() > WARNINGS_PER_LIMIT {
            let remedy = format!(
                "write at most {WARNINGS_PER_LIMIT} percentages from 1 to 99, each above the one before"
            );
            return Err(Invalid::new(format!("{levels:?} are not valid warning levels"), remedy));
        }
        let mut percents = [0; WARNINGS_PER_LIMIT];
        percents[..levels.len()].copy_from_slice(levels);
        Ok(Self { percents, count: levels.len() })
    }

    /// The percentages, lowest first; empty if the limit does not warn.
    pub fn as_slice(&self) -> &[u8] {
        &self.percents[..self.count]
    }
}

impl Default for WarnLevels {
    fn default() -> Self {
        Self { percents: [50, 75, 90], count: 3 }
    }
}

/// A limit: at most `max` messages of a class in any window, or at most a ratio of orders to fills.
///
/// A ratio, `{ class = "order", per_fill = R, after = N }`, trips if more than N orders have passed since the
/// last reset and more than R orders for each fill received. N excludes the first orders of a day, before any
/// fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The counted messages; orders for a ratio.
    pub class: LimitClass,
    /// Messages that may pass, or for a ratio the orders that may pass before it applies: 1 to 1,000,000,000.
    pub max: NonZeroU32,
    /// The interval; [`Per::Total`] for a ratio.
    pub per: Per,
    /// Orders that may pass for each fill, for a ratio only: 1 to 1,000,000,000.
    pub per_fill: Option<NonZeroU32>,
    /// Warning levels.
    pub warn: WarnLevels,
}

impl Limit {
    /// Returns true if the limit can only be enforced by reading inbound messages.
    pub fn needs_inbound(&self) -> bool {
        self.per_fill.is_some() || matches!(self.class, LimitClass::Fill | LimitClass::Reject)
    }
}

/// The limits of a scope: at most four, no two with the same class and interval, and at most one ratio.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(Vec<Limit>);

impl Limits {
    /// Merges the scope's own limits with those of its preset. An own limit replaces the preset for its
    /// class.
    ///
    /// The caller checks the number of limits, because it knows the position in the file.
    pub(super) fn merge(own: Vec<Limit>, preset: Option<Preset>) -> Self {
        // A ratio does not bound the rate: the venue's throttle stays.
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
    /// A venue whose message throttle becomes the limit of a scope.
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
    /// The venue's rule as text, and as limits: class, maximum number of messages, milliseconds.
    ///
    /// Some venues count cancels in the same number, but the preset limits orders only. A limit withholds the
    /// message that exceeds it, and a withheld cancel adds risk. A limit of class `message` counts both.
    pub const fn rule(self) -> (&'static str, &'static [(LimitClass, NonZeroU32, u64)]) {
        use LimitClass::{Cancel, Order};
        use positive as n;
        match self {
            Self::Cme => (
                "messaging controls per iLink session over a three-second window: cancel requests 1000; all \
                 other \
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
