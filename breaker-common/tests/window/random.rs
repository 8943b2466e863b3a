//! Random arrivals: the window agrees with a log of all passed messages.

use breaker_common::limits::LimitExceeded;
use breaker_common::message::LimitClass;
use breaker_common::window::MAX_SLOTS;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::logged::{EXACT, LIMITS, LoggedLimit, MS};
use breaker_replay::model::policy::limit;

/// Pause before a segment.
#[derive(Clone, Copy, Debug)]
enum Pause {
    None,
    /// 4096ths of the window.
    Part(u64),
    /// The window plus this time in ns, minus 1.
    Window(u64),
    /// Number of windows.
    Long(u64),
}

/// Number of messages of a segment.
#[derive(Clone, Copy, Debug)]
enum Batch {
    Some(u64),
    /// 64ths of the limit.
    Part(u64),
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    pause: Pause,
    batch: Batch,
    reset: bool,
}

impl Arrival {
    fn pause_ns(&self, per_ns: u64) -> u64 {
        match self.pause {
            Pause::None => 0,
            Pause::Part(part) => per_ns * part / 4096,
            Pause::Window(count) => per_ns + count - 1,
            Pause::Long(windows) => per_ns * windows,
        }
    }

    fn messages(&self, max: u64) -> u64 {
        match self.batch {
            Batch::Some(messages) => messages,
            Batch::Part(part) => (max * part / 64).clamp(1, 5000),
        }
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let pause = prop_oneof![
        6 => Just(Pause::None),
        6 => (1..40u64).prop_map(Pause::Part),
        4 => (1..4096u64).prop_map(Pause::Part),
        2 => (0..3u64).prop_map(Pause::Window),
        1 => (1..20u64).prop_map(Pause::Long),
    ];
    let batch = prop_oneof![
        6 => Just(Batch::Some(1)),
        4 => (1..10u64).prop_map(Batch::Some),
        1 => (1..=5000u64).prop_map(Batch::Some),
        6 => (1..=64u64).prop_map(Batch::Part),
    ];
    let arrival = (pause, batch, prop::bool::weighted(0.02)).prop_map(|(pause, batch, reset)| Arrival {
        pause,
        batch,
        reset,
    });
    vec(arrival, 1..300)
}

proptest! {
    #[test]
    fn no_window_holds_more_than_the_limit_and_no_trip_is_early(
        max in select(&LIMITS[..]), per_ns in MS..86_400_000 * MS, start in 0..(1u64 << 50),
        arrivals in arrivals(),
    ) {
        let mut limited = LoggedLimit::new(max, per_ns, true);
        let (granule, _) = limited.granule_and_memory();
        let (mut now, mut peak) = (start, 0);
        for arrival in arrivals {
            now += arrival.pause_ns(per_ns);
            let count = arrival.messages(max);
            let would_be = limited.logged(now) + count;
            match limited.offer(count, now) {
                None => prop_assert!(would_be <= max, "{} passed, the limit is {}", would_be, max),
                Some(LimitExceeded { scope: _, limit, used }) => {
                    prop_assert_eq!(limit, 0);
                    let exact = (would_be..would_be + granule).contains(&used);
                    prop_assert!(used > max && exact, "{} for {}", used, would_be);
                }
            }
            peak = peak.max(limited.logged(now));
            if arrival.reset {
                limited.reset();
            }
        }
        prop_assert!((peak..peak + granule).contains(&limited.scope.borrow().windows[0].peak));
    }

    #[test]
    fn the_ring_agrees_with_the_log(
        max in select(&LIMITS[..]), per_ns in MS..86_400_000 * MS, start in 0..(1u64 << 50),
        arrivals in arrivals(),
    ) {
        let mut limited = LoggedLimit::new(max, per_ns, false);
        let (granule, memory) = limited.granule_and_memory();
        prop_assert!(memory > max && (granule == 1 || 1000 * granule < max));
        prop_assert_eq!(granule == 1, max <= EXACT);
        let mut now = start;
        for arrival in arrivals {
            now += arrival.pause_ns(per_ns);
            let exceeded = limited.offer(arrival.messages(max), now);
            prop_assert_eq!(exceeded, None, "a disarmed scope withholds nothing");
            // At once, and at the ends of the window.
            for later in [0, 1, per_ns / 2, per_ns - 1, per_ns, 3 * per_ns] {
                let (used, logged) = (limited.used(now + later), limited.logged(now + later));
                let exact = (logged.min(memory)..logged + granule).contains(&used);
                prop_assert!(exact, "{} for {}", used, logged);
                prop_assert!(used <= memory);
            }
            if arrival.reset {
                limited.reset();
                prop_assert_eq!(limited.used(now), 0);
            }
        }
    }

    #[test]
    fn a_total_counts_from_the_last_reset_at_any_time(
        max in select(&LIMITS[..]), arrivals in arrivals(),
    ) {
        let mut limited = LoggedLimit::new(max, 0, true);
        let mut now = 0;
        for arrival in arrivals {
            now += arrival.pause_ns(1000 * MS);
            let count = arrival.messages(max);
            let would_be = limited.logged(now) + count;
            let expected = (would_be > max).then_some(LimitExceeded { scope: 0, limit: 0, used: would_be });
            prop_assert_eq!(limited.offer(count, now), expected);
            if arrival.reset {
                limited.reset();
            }
        }
    }
}

#[test]
fn a_message_passes_once_the_message_n_before_it_has_expired() {
    for max in LIMITS.into_iter().filter(|max| *max <= EXACT) {
        let mut limited = LoggedLimit::new(max, MS, true);
        for i in 0..max {
            assert_eq!(limited.offer(1, 500 + i), None, "{max}");
        }
        assert_eq!(limited.offer(1, 500 + MS - 1), Some(LimitExceeded { scope: 0, limit: 0, used: max + 1 }));
        assert_eq!(limited.offer(1, 500 + MS), None);
        assert_eq!(
            limited.offer(2, 501 + MS),
            if max == 1 {
                Some(LimitExceeded { scope: 0, limit: 0, used: 3 })
            } else {
                Some(LimitExceeded { scope: 0, limit: 0, used: max + 1 })
            }
        );
    }
}

#[test]
fn every_limit_fits_its_ring() {
    for max in (1..20_000).chain((20_000..50_000_000).step_by(9_973)) {
        let limit = limit(LimitClass::Order, max, MS, 0);
        let (granule, slots) = (1 << limit.ring.granule_bits, 1 << limit.ring.ring_bits);
        assert!(slots <= MAX_SLOTS, "{max}: {slots} slots");
        assert!(
            (slots - 1) * granule > max,
            "{max}: {slots} slots of {granule} do not hold a full window and one more"
        );
        assert!(granule == 1 || 1000 * granule < max, "{max}: a granule of {granule} is 0.1 % or count");
        assert!(max > EXACT || granule == 1);
    }
}
