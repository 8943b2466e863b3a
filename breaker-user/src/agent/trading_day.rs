//! The trading day: it ends the replay guard of scopes that were tripped and reset on the day before, at
//! midnight UTC.
//!
//! Without an agent at midnight, resent orders (PossDupFlag=Y) stay blocked.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tokio::select;
use tokio::time::sleep;

use super::loaded::Loaded;
use super::notice::notice;

/// Longest sleep before the clock is read again, because it may have been set.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Starts each trading day until the shutdown.
pub async fn run(loaded: Arc<Loaded>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut next = midnight_after(Timestamp::now());
    loop {
        let left = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
        select! {
            () = sleep(left.min(MAX_SLEEP)) => {}
            () = &mut shutdown => return,
        }
        if Timestamp::now() < next {
            continue;
        }
        next = midnight_after(Timestamp::now());
        if let Err(error) = loaded.in_force().breaker.start_trading_day() {
            notice(&format!("the trading day was not started, replays stay blocked: {error:#}"));
        }
    }
}

/// The next midnight UTC.
fn midnight_after(now: Timestamp) -> Timestamp {
    let zoned = now.to_zoned(TimeZone::UTC);
    let tomorrow = zoned.start_of_day().and_then(|today| today.checked_add(1.day()));
    tomorrow.map_or(now + 24.hours(), |day| day.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_is_always_ahead_and_less_than_a_day() {
        for (now, expected) in [
            ("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("2026-11-22T23:59:59.999Z", "2026-11-23T00:00:00Z"),
            ("2028-02-28T12:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            let parsed = |text: &str| text.parse::<Timestamp>().expect("a time");
            assert_eq!(midnight_after(parsed(now)), parsed(expected));
        }
    }
}
