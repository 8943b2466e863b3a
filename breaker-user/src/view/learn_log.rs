//! Peaks of limits in the audit log, by day: the line of a warning or a trip has the messages in the window.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::Result;
use breaker_common::abi::Limit;

use crate::audit::{Line, Reader};
use crate::display;
use crate::replay::learn::DayPeak;

/// The highest use of each window on each day with a warning or a trip.
#[derive(Default)]
pub struct LoggedPeaks {
    /// By scope and window, such as `order per 3s`; then by day.
    windows: HashMap<(String, String), BTreeMap<u64, DayPeak>>,
}

impl LoggedPeaks {
    /// Reads a log. A line that is not an event is left out: `breaker audit verify` reports it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(log: PathBuf) -> Result<Self> {
        let mut peaks = Self::default();
        Reader::new(log).read_new(|text| {
            peaks.add(text);
            Ok(())
        })?;
        Ok(peaks)
    }

    fn add(&mut self, text: &[u8]) {
        let Ok(Line { entry, .. }) = serde_json::from_slice(text) else { return };
        let limit = entry.counts["limit"].as_str().and_then(|limit| limit.split_once(' '));
        let (Some(scope), Some((_, window)), Some(used)) =
            (&entry.scope, limit, entry.counts["used"].as_u64())
        else {
            return;
        };
        let found = DayPeak::new(entry.time.as_nanosecond().max(0) as u64, used);
        let days = self.windows.entry((scope.clone(), window.to_owned())).or_default();
        let day = days.entry(found.day).or_insert(found);
        if found.peak > day.peak {
            *day = found;
        }
    }

    /// Returns the days of a limit's class and window, whatever its number was on the day.
    pub fn of(&self, scope: &str, limit: &Limit) -> Vec<DayPeak> {
        let text = display::limit(limit);
        let window = text.split_once(' ').map_or(String::new(), |(_, window)| window.to_owned());
        let days = self.windows.get(&(scope.to_owned(), window));
        days.map_or_else(Vec::new, |days| days.values().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use breaker_common::message::LimitClass;
    use bytemuck::Zeroable;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_peak_of_a_day_is_the_highest_of_its_warnings_and_trips() {
        let mut peaks = LoggedPeaks::default();
        let lines = [
            ("2026-11-02T09:30:00Z", "warned", "session/x", "500 order per 3s", 260),
            ("2026-11-02T10:30:00Z", "tripped", "session/x", "500 order per 3s", 501),
            ("2026-11-02T11:30:00Z", "warned", "session/x", "500 order per 3s", 450),
            ("2026-11-03T09:30:00Z", "warned", "session/x", "900 order per 3s", 470),
            ("2026-11-03T09:31:00Z", "warned", "session/x", "90 cancel per 3s", 80),
            ("2026-11-03T09:32:00Z", "warned", "session/y", "900 order per 3s", 850),
        ];
        for (number, (time, kind, scope, limit, used)) in lines.into_iter().enumerate() {
            let line = json!({
                "time": time, "seq": number + 1, "kind": kind, "scope": scope, "cause": null,
                "actor": { "uid": 0, "user": "root", "pid": 1, "via": "kernel" }, "reason": null,
                "counts": { "limit": limit, "used": used }, "policy": "p", "prev": "", "hash": "",
            });
            peaks.add(line.to_string().as_bytes());
        }
        peaks.add(b"no event");
        let class = LimitClass::Order as u32;
        let limit = Limit { class, max: 700, per_ns: 3_000_000_000, ..Limit::zeroed() };
        let of = |scope| peaks.of(scope, &limit).iter().map(|day| day.peak).collect::<Vec<_>>();
        assert_eq!(of("session/x"), [501, 470]);
        assert_eq!((of("session/y"), of("session/z")), (vec![850], vec![]));
        assert_eq!(peaks.of("session/x", &Limit { per_ns: 1_000_000_000, ..limit }), []);
    }
}
