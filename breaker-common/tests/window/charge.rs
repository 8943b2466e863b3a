//! The steps of a charge: check, tickets, commit, warnings.

use std::cell::{Cell, RefCell};

use breaker_common::abi::Scope;
use breaker_common::limits::LimitExceeded;
use breaker_common::message::{Class, LimitClass};
use breaker_common::window::EXCEEDED;

use super::logged::{EXACT, LIMITS, LoggedLimit, MS, Segment};
use breaker_replay::model::policy::limit;
use breaker_replay::model::scope::{ScopeInMemory, add_limit};

#[test]
fn a_check_takes_no_ticket() {
    let mut limited = LoggedLimit::new(10, MS, true);
    assert_eq!(limited.offer(8, 1), None);
    for now in 2..100 {
        assert_eq!(limited.offer(3, now), Some(LimitExceeded { scope: 0, limit: 0, used: 11 }));
    }
    assert_eq!((limited.offer(2, 100), limited.used(100)), (None, 10));
}

#[test]
fn all_limits_of_a_scope_are_checked_before_any_is_charged() {
    let mut scope = Scope { armed: 1, ..Scope::default() };
    add_limit(&mut scope, limit(LimitClass::Message, 100, MS, 0));
    add_limit(&mut scope, limit(LimitClass::Order, 3, MS, 128));
    add_limit(&mut scope, limit(LimitClass::Cancel, 1, MS, 192));
    let (scope, times) = (RefCell::new(scope), vec![Cell::new(0); 256]);
    let cell_scope = ScopeInMemory { scope: &scope, times: &times };
    let offer = |class: Class, count: u64| Segment::new(cell_scope, class, count, 7).charge();
    assert_eq!(offer(Class::Order, 3), None);
    assert_eq!(offer(Class::Order, 1), Some(LimitExceeded { scope: 0, limit: 1, used: 4 }));
    assert_eq!(offer(Class::Cancel, 1), None);
    assert_eq!(offer(Class::Cancel, 2), Some(LimitExceeded { scope: 0, limit: 2, used: 3 }));
    assert_eq!(offer(Class::Admin, 96), None);
    assert_eq!(offer(Class::Query, 1), Some(LimitExceeded { scope: 0, limit: 0, used: 101 }));
    assert_eq!(scope.borrow().windows.map(|window| window.issued), [100, 3, 1, 0]);
}

#[test]
fn a_concurrent_reset_trips_nothing() {
    for per_ns in [0, MS] {
        let mut limited = LoggedLimit::new(10, per_ns, true);
        assert_eq!(limited.offer(8, 1), None);
        let mut segment = Segment::new(limited.cell_scope(), Class::Order, 1, 2);
        segment.voided = 5;
        assert_eq!(segment.charge(), None);
    }
}

#[test]
fn inbound_messages_are_counted_even_beyond_the_limit() {
    for max in LIMITS.into_iter().filter(|max| *max <= EXACT) {
        let mut limited = LoggedLimit::new(max, 100 * MS, true);
        let mut now = 1;
        for _ in 0..40 {
            assert_eq!(limited.record(max, now), None, "a full window of {max} after an expired one");
            now += 100 * MS;
        }
        // More than the ring remembers.
        for count in [max + 1, 3 * max + 5] {
            assert_eq!(limited.record(count, now), Some(LimitExceeded { scope: 0, limit: 0, used: count }));
            now += 100 * MS;
        }
        assert_eq!((limited.record(1, now), limited.used(now)), (None, 1));
        assert_eq!(limited.scope.borrow().windows[0].peak, 3 * max + 5);
    }
}

#[test]
fn a_peak_outlives_a_reload_that_clears_the_threshold() {
    let mut limited = LoggedLimit::new(1_000, 100 * MS, true);
    let mut now = 1;
    assert_eq!(limited.offer(400, now), None);
    let mut scope = *limited.scope.borrow();
    scope.windows[0].recheck_at = [0; 2];
    *limited.scope.borrow_mut() = scope;
    for _ in 0..3 {
        now += 100 * MS;
        assert_eq!(limited.offer(5, now), None);
        assert_eq!((limited.used(now), limited.scope.borrow().windows[0].peak), (5, 400));
    }
    assert_eq!(
        limited.scope.borrow().windows[0].recheck_at[0],
        400 + 400,
        "the threshold is computed again from the tail"
    );
}

#[test]
fn each_warning_level_is_reported_once_each_time_it_is_reached() {
    let mut limited = LoggedLimit::new(100, 1000 * MS, true);
    let reported = |limited: &mut LoggedLimit| {
        limited.warnings.drain(..).map(|warning| (warning.level, warning.used)).collect::<Vec<_>>()
    };
    for round in 0..3 {
        let start = 1 + round * 5000 * MS;
        for i in 0..100 {
            assert_eq!(limited.offer(1, start + i), None);
        }
        assert_eq!(reported(&mut limited), [(1, 50), (2, 75), (3, 90)], "round {round}");
        // Half a window later the level is unchanged. A window later it has fallen, without a report.
        assert!(limited.offer(1, start + 500 * MS).is_some());
        assert_eq!(limited.scope.borrow().windows[0].level, 3);
        assert_eq!(limited.offer(60, start + 1000 * MS + 99), None);
        let level = limited.scope.borrow().windows[0].level;
        assert_eq!((level, reported(&mut limited)), (1, vec![]));
        assert_eq!(limited.offer(15, start + 1000 * MS + 100), None);
        assert_eq!(reported(&mut limited), [(2, 75)]);
        assert_eq!(limited.offer(1, start + 3000 * MS), None);
        let level = limited.scope.borrow().windows[0].level;
        assert_eq!((level, reported(&mut limited)), (0, vec![]));
    }
    assert_eq!(limited.scope.borrow().windows[0].peak, 100);
}

#[test]
fn a_disarmed_scope_reports_once_that_it_would_trip() {
    let mut limited = LoggedLimit::new(10, 1000 * MS, false);
    for i in 0..30 {
        assert_eq!(limited.offer(1, 1 + i), None);
    }
    let reported: Vec<_> = limited.warnings.iter().map(|warning| (warning.level, warning.used)).collect();
    assert_eq!(reported, [(1, 5), (2, 8), (3, 9), (EXCEEDED, 11)]);
}
