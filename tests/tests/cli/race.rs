//! Concurrent trips and resets: every reported trip is in the log, and the final state is consistent.

use std::thread;
use std::time::{Duration, Instant};

use breaker_tests::cli::scope;
use breaker_tests::command::CliOutput;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::audit;
use breaker_user::kernel::Reset;

use super::POLICY;

const EACH: usize = 12;

#[test]
fn concurrent_trips_and_resets_leave_a_consistent_state() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let type_all =
        |verb: &str| -> Vec<CliOutput> { (0..EACH).map(|_| testbed.switch(verb, "session/x1")).collect() };
    let (trips, resets): (Vec<CliOutput>, Vec<CliOutput>) = thread::scope(|scope| {
        let start = |verb| [(); 3].map(|()| scope.spawn(move || type_all(verb)));
        let (trips, resets) = (start("trip"), start("reset"));
        let all = |threads: [thread::ScopedJoinHandle<'_, Vec<CliOutput>>; 3]| {
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
        };
        (all(trips), all(resets))
    });
    // A trip may be reset before it is reported. A reset may find nothing to reset, or a new trip.
    for output in &trips {
        let overtaken =
            output.exit_code == Some(1) && output.stderr.contains("it was tripped, and reset since");
        assert!(output.exit_code == Some(0) || overtaken, "{output:?}");
    }
    for output in &resets {
        if output.exit_code == Some(1) && output.stderr.contains("has tripped again since") {
            continue;
        }
        let refused = output.exit_code == Some(4)
            && (output.stderr.contains("it is not tripped")
                || output.stderr.contains("it has tripped again since the check"));
        assert!(output.exit_code == Some(0) || refused, "{output:?}");
    }
    let done = resets.iter().filter(|output| output.exit_code == Some(0)).count();
    assert!(done > 0, "no reset was done");
    // A trip that finds the log locked leaves its line to a later writer.
    let log = || std::fs::read_to_string(testbed.audit()).expect("the log");
    let count = |kind: &str| log().matches(&format!("\"kind\":\"{kind}\"")).count();
    let until = Instant::now() + Duration::from_secs(10);
    let refusals = resets.iter().filter(|output| output.exit_code == Some(4)).count();
    while (count("tripped"), count("reset_refused")) != (3 * EACH, refusals) && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    audit::verify(&testbed.audit()).expect("a whole log");
    assert_eq!(count("tripped"), 3 * EACH);
    // A reset is logged before it is tried. A reset that came too late has a second line.
    let (begun, refused) = (count("reset"), count("reset_refused"));
    assert!(begun >= done && begun + refused >= 3 * EACH, "{done} done, {begun} begun, {refused} refused");
    assert_eq!(refused, refusals);
    // Each trip and each reset raised the epoch.
    let status = testbed.cli("status --json").json();
    let state = scope(&status, "session/x1");
    assert!(state["epoch"].as_u64() >= Some((3 * EACH + done) as u64), "{state}");
    // The last verb alone determines the state.
    testbed.switch("trip", "session/x1").expect_exit(0);
    testbed.cli("status").expect_exit(10);
    testbed.switch("reset", "session/x1").expect_exit(0);
    testbed.cli("status").expect_exit(0);
}

#[test]
fn a_trip_after_the_last_reset_stays() {
    require_root!();
    // One thread trips while another resets: a trip after the reset's look must remain.
    let testbed = Testbed::load(POLICY);
    testbed.with_breaker(|breaker| {
        let scope = breaker.find("session/x1").expect("a scope");
        for _ in 0..20_000 {
            breaker.trip(scope, 1).expect("tripping");
            let seen = breaker.switch(scope).expect("reading the switch");
            let (cleared, ()) = thread::scope(|threads| {
                let reset = threads.spawn(|| breaker.reset(scope, seen, u64::MAX).expect("resetting"));
                let trip = threads.spawn(|| breaker.trip(scope, 1).expect("tripping"));
                (reset.join().expect("a thread"), trip.join().expect("a thread"))
            });
            let now = breaker.switch(scope).expect("reading the switch");
            // The reset had not seen the second trip, whatever it reports of the first.
            assert_eq!(now.causes, 1, "a trip was lost; the reset returned {cleared:?}");
            // A trip whose cause is cleared meanwhile is raised again.
            let raised = now.epoch - seen.epoch;
            assert!(
                if cleared == Reset::Refused { raised == 1 } else { raised >= 2 },
                "{raised}: {cleared:?}"
            );
        }
    });
}
