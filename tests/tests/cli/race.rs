//! Many people at once: every trip that was reported is in the log, and what is left is one state that all agree on.

use std::thread;
use std::time::{Duration, Instant};

use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_user::audit;
use breaker_user::kernel::Reset;

use super::host::{Host, POLICY, Said, scope};

const EACH: usize = 12;

#[test]
fn concurrent_trips_and_resets_leave_one_state_that_all_agree_on() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let type_all = |verb: &str| -> Vec<Said> { (0..EACH).map(|_| rig.switch(verb, "session/x1")).collect() };
    let (trips, resets): (Vec<Said>, Vec<Said>) = thread::scope(|scope| {
        let start = |verb| [(); 3].map(|()| scope.spawn(move || type_all(verb)));
        let (trips, resets) = (start("trip"), start("reset"));
        let all = |threads: [thread::ScopedJoinHandle<'_, Vec<Said>>; 3]| {
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
        };
        (all(trips), all(resets))
    });
    // A trip may find that it was reset before it could tell; a reset that there was nothing to reset, or that somebody tripped anew.
    for said in &trips {
        let overtaken = said.code == Some(1) && said.err.contains("somebody has reset it since");
        assert!(said.code == Some(0) || overtaken, "{said:?}");
    }
    for said in &resets {
        if said.code == Some(1) && said.err.contains("has tripped again since") {
            continue;
        }
        let refused = said.code == Some(4)
            && (said.err.contains("it is not tripped") || said.err.contains("it tripped again meanwhile"));
        assert!(said.code == Some(0) || refused, "{said:?}");
    }
    let done = resets.iter().filter(|said| said.code == Some(0)).count();
    assert!(done > 0, "no reset was done");
    // A trip that found the log locked has left its line to be written behind it.
    let log = || std::fs::read_to_string(rig.audit()).expect("the log");
    let count = |kind: &str| log().matches(&format!("\"kind\":\"{kind}\"")).count();
    let until = Instant::now() + Duration::from_secs(10);
    let refusals = resets.iter().filter(|said| said.code == Some(4)).count();
    while (count("tripped"), count("reset_refused")) != (3 * EACH, refusals) && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    audit::verify(&rig.audit()).expect("a whole log");
    assert_eq!(count("tripped"), 3 * EACH);
    // A reset is noted before it is tried; one that then came too late has a second line.
    let (begun, refused) = (count("reset"), count("reset_refused"));
    assert!(begun >= done && begun + refused >= 3 * EACH, "{done} done, {begun} begun, {refused} refused");
    assert_eq!(refused, refusals);
    // Each trip and each reset raised the epoch.
    let status = rig.types("status --json").json();
    let state = scope(&status, "session/x1");
    assert!(state["epoch"].as_u64() >= Some((3 * EACH + done) as u64), "{state}");
    // Whoever comes last, alone, has their way.
    rig.switch("trip", "session/x1").expect_exit(0);
    rig.types("status").expect_exit(10);
    rig.switch("reset", "session/x1").expect_exit(0);
    rig.types("status").expect_exit(0);
}

#[test]
fn a_trip_after_the_last_reset_stays() {
    if !privileged() {
        return;
    }
    // One thread trips once while two reset without end: a trip that came after a reset had looked must still be there.
    let rig = Rig::new(POLICY);
    rig.breaker(|breaker| {
        let scope = breaker.find("session/x1").expect("a scope");
        for _ in 0..20_000 {
            breaker.trip(scope, 1).expect("tripping");
            let seen = breaker.switch(scope).expect("looking");
            let (cleared, ()) = thread::scope(|threads| {
                let reset = threads.spawn(|| breaker.reset(scope, seen).expect("resetting"));
                let trip = threads.spawn(|| breaker.trip(scope, 1).expect("tripping"));
                (reset.join().expect("a thread"), trip.join().expect("a thread"))
            });
            let now = breaker.switch(scope).expect("looking");
            // The second trip was not seen, whatever the reset says of the first.
            assert_eq!(now.causes, 1, "a trip was lost; the reset said {cleared:?}");
            // A trip that finds its cause cleared under its hands raises it again.
            let raised = now.epoch - seen.epoch;
            assert!(
                if cleared == Reset::Refused { raised == 1 } else { raised >= 2 },
                "{raised}: {cleared:?}"
            );
        }
    });
}
