//! Tests of the ring, without a kernel.

use jiff::Timestamp;

use super::SECONDS;
use super::ring::Ring;
use super::sample::{Sample, Samples};
use crate::view::rates::{Rates, SessionRates};

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second as i64).expect("a time")
}

fn samples(second: u64, sessions: &[(&str, u64, u64, Option<u16>)]) -> Samples {
    let mut samples = Samples::new(at(second));
    for &(name, order, withheld, limit_permille) in sessions {
        samples.push(Sample { name, order, withheld, limit_permille });
    }
    samples
}

/// The rates as a client reads them.
fn served(ring: &Ring, seconds: usize) -> Rates<Vec<SessionRates>> {
    let text = serde_json::to_string(&ring.rates(seconds)).expect("JSON");
    serde_json::from_str(&text).expect("the rates")
}

fn one(ring: &Ring) -> SessionRates {
    served(ring, SECONDS).sessions.into_iter().next().expect("a session")
}

#[test]
fn a_rate_is_the_difference_of_two_samples_one_second_apart() {
    let mut ring = Ring::default();
    let empty = r#"{"step_ms":1000,"end":null,"sessions":[]}"#;
    assert_eq!(serde_json::to_string(&ring.rates(9)).unwrap(), empty);
    for (second, order, withheld, limit) in
        [(0, 100, 7, Some(10)), (1, 130, 7, None), (2, 130, 9, Some(0)), (3, 131, 9, Some(65_534))]
    {
        ring.record(second, &samples(second, &[("x", order, withheld, limit)]));
    }
    let found = serde_json::to_value(ring.rates(SECONDS)).unwrap();
    let expected = serde_json::json!({
        "step_ms": 1000,
        "end": at(3).to_string(),
        "sessions": [{
            "name": "x",
            "order": [null, 30, 0, 1],
            "withheld": [null, 0, 2, 0],
            "limit_permille": [10, null, 0, 65_534],
        }],
    });
    assert_eq!(found, expected);
    assert_eq!(served(&ring, 2).sessions[0].order, [Some(0), Some(1)]);
}

#[test]
fn after_fifteen_minutes_the_oldest_second_is_replaced() {
    let mut ring = Ring::default();
    let last = 2 * SECONDS as u64 + 17;
    for second in 0..=last {
        // The rate of each second is its number, and each third second withholds its number.
        let sum = |step: u64| (1..=second).filter(|n| n % step == 0).sum();
        ring.record(second, &samples(second, &[("x", sum(1), sum(3), Some((second % 1000) as u16))]));
    }
    let rates = one(&ring);
    let seconds = last + 1 - SECONDS as u64..=last;
    assert_eq!(rates.order, seconds.clone().map(|second| Some(second as u32)).collect::<Vec<_>>());
    let withheld = |second: u64| Some(if second.is_multiple_of(3) { second as u32 } else { 0 });
    assert_eq!(rates.withheld, seconds.clone().map(withheld).collect::<Vec<_>>());
    assert_eq!(rates.limit_permille, seconds.map(|n| Some((n % 1000) as u16)).collect::<Vec<_>>());
}

#[test]
fn skipped_seconds_are_gaps_and_so_is_the_rate_after_them() {
    let mut ring = Ring::default();
    for (second, order) in [(5, 10), (6, 30), (9, 90), (9, 95), (8, 99), (10, 100)] {
        ring.record(second, &samples(second, &[("x", order, 0, Some(1))]));
    }
    let rates = one(&ring);
    assert_eq!(rates.order, [None, Some(20), None, None, None, Some(10)]);
    assert_eq!(rates.withheld, [None, Some(0), None, None, None, Some(0)]);
    assert_eq!(rates.limit_permille, [Some(1), Some(1), None, None, Some(1), Some(1)]);
    // A pause longer than the ring leaves no old value.
    ring.record(5000, &samples(5000, &[("x", 200, 0, Some(2))]));
    let rates = one(&ring);
    assert_eq!(rates.order, [None; SECONDS]);
    assert_eq!(rates.limit_permille.iter().flatten().collect::<Vec<_>>(), [&2]);
}

#[test]
fn replaced_counters_are_a_gap() {
    let mut ring = Ring::default();
    for (second, order, withheld) in [(0, 10, 5), (1, 12, 0), (2, 13, 1), (3, 1, 1)] {
        ring.record(second, &samples(second, &[("x", order, withheld, None)]));
    }
    let rates = one(&ring);
    assert_eq!(rates.order, [None, None, Some(1), None]);
    assert_eq!(rates.withheld, [None, None, Some(1), None]);
}

#[test]
fn an_added_session_starts_with_gaps_and_a_removed_one_is_removed() {
    let mut ring = Ring::default();
    ring.record(0, &samples(0, &[("a", 0, 0, None), ("b", 0, 0, None)]));
    ring.record(1, &samples(1, &[("a", 1, 0, None), ("b", 2, 1, None)]));
    ring.record(2, &samples(2, &[("b", 4, 1, None), ("c", 50, 0, Some(3))]));
    ring.record(3, &samples(3, &[("b", 7, 1, None), ("c", 51, 0, Some(4))]));
    let rates = served(&ring, SECONDS);
    let order: Vec<_> = rates.sessions.iter().map(|one| (one.name.as_str(), one.order.clone())).collect();
    assert_eq!(order, [("b", vec![None, Some(2), Some(2), Some(3)]), ("c", vec![None, None, None, Some(1)])]);
    assert_eq!(rates.sessions[0].withheld, [None, Some(1), Some(0), Some(0)]);
    assert_eq!(rates.sessions[1].limit_permille, [None, None, Some(3), Some(4)]);
    // A session of the same name starts anew.
    ring.record(4, &samples(4, &[("a", 90, 0, None), ("b", 9, 1, None), ("c", 51, 0, None)]));
    assert_eq!(served(&ring, SECONDS).sessions[0].order, [None; 5]);
}

#[test]
fn a_thousand_sessions_take_at_most_5_5_mb() {
    let names: Vec<_> = (0..1000).map(|n| format!("session-{n:04}")).collect();
    let mut ring = Ring::default();
    for (runs, withheld, most) in [(2 * SECONDS as u64, 0, 3_800_000), (3 * SECONDS as u64, 1, 5_600_000)] {
        for second in ring.length() as u64..runs {
            let sample = |name| (name, 7 * second, withheld * second, Some(500));
            let all: Vec<_> = names.iter().map(|name| sample(name.as_str())).collect();
            ring.record(second + withheld * 10_000, &samples(second, &all));
        }
        assert!(ring.bytes() <= most, "{}", ring.bytes());
    }
    assert_eq!(served(&ring, 1).sessions.len(), 1000);
}

#[test]
fn a_ring_continues_the_rates_of_another() {
    let mut first = Ring::default();
    for second in 0..1000 {
        first.record(second, &samples(second, &[("x", 2 * second, second / 2, Some(9)), ("y", 0, 0, None)]));
    }
    let rates = served(&first, SECONDS);
    let mut second = Ring::default();
    second.fill(2000, &rates);
    assert_eq!(served(&second, SECONDS), rates);
    second.record(2001, &samples(1000, &[("x", 2000, 500, None), ("y", 0, 0, None)]));
    second.record(2002, &samples(1001, &[("x", 2004, 500, None), ("y", 0, 0, None)]));
    let continued = served(&second, 4).sessions.remove(0);
    // The counts at the end of the other ring are unknown.
    assert_eq!(continued.order, [Some(2), Some(2), None, Some(4)]);
}
