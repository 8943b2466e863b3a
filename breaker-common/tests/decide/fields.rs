//! Messages that a field classifies: replays and mass actions.

use breaker_common::abi::{cause, flag, kind};
use breaker_common::decide::Verdict;

use super::messages::build;
use super::{Line, event_scopes, model};
use breaker_replay::model::HOST;

/// Returns an order with PossDupFlag(43)=Y behind a data field that contains PossDupFlag(43)=N.
fn replay() -> Vec<u8> {
    build("FIX.4.4", 1, "D", b"34=9\x0149=FIRM\x0195=6\x0196=x\x0143=N\x0143=Y\x0156=ONE\x0111=R\x01")
}

#[test]
fn a_repeated_order_trips_after_a_trip_only() {
    let mut model = model();
    let scope = model.scope_of(1);
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, &replay()), Verdict::Passed);
    model.trip(scope, cause::MANUAL);
    model.reset(scope);
    let mut line = Line::open(&mut model, 1, 2);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(line.send(&mut model, &replay()), Verdict::Replay);
    assert_eq!(
        (model.scope(scope).switch.causes, event_scopes(&model, kind::REPLAYED)),
        (cause::REPLAY, vec![scope])
    );
    model.reset(scope);
    // A new day of the agent starts.
    model.maps.sessions[1].day_epoch = (0..7).map(|scope| model.scope(scope).switch.epoch).sum();
    let mut line = Line::open(&mut model, 1, 3);
    assert_eq!(line.send(&mut model, &replay()), Verdict::Passed);
}

#[test]
fn a_replay_is_found_at_any_cut_and_passes_if_allowed_or_disarmed() {
    let bytes = replay();
    for cut in 1..bytes.len() {
        let mut model = model();
        model.trip(HOST, cause::MANUAL);
        model.reset(HOST);
        let [mut guarded, mut passing, mut disarmed] =
            [1, 2, 3].map(|session| Line::open(&mut model, session, 1));
        model.maps.sessions[2].flags = flag::REPLAYS_PASS;
        model.set(model.scope_of(3), |scope| scope.armed = 0);
        let verdicts = [guarded.send(&mut model, &bytes[..cut]), guarded.send(&mut model, &bytes[cut..])];
        assert!(verdicts.contains(&Verdict::Replay), "cut at {cut}: {verdicts:?}");
        for line in [&mut passing, &mut disarmed] {
            assert_eq!(
                [line.send(&mut model, &bytes[..cut]), line.send(&mut model, &bytes[cut..])],
                [Verdict::Passed; 2]
            );
        }
        assert_eq!(event_scopes(&model, kind::REPLAYED), [model.scope_of(1), model.scope_of(3)]);
    }
}

#[test]
fn a_length_before_a_field_without_a_tag_hides_nothing_behind_it() {
    let bytes = build("FIX.4.4", 1, "D", b"34=9\x0195=5\x01AB\x0143=Y\x0111=R\x01");
    for cut in 1..bytes.len() {
        let mut model = model();
        model.trip(HOST, cause::MANUAL);
        model.reset(HOST);
        let mut line = Line::open(&mut model, 1, 1);
        let verdicts = [line.send(&mut model, &bytes[..cut]), line.send(&mut model, &bytes[cut..])];
        assert!(verdicts.contains(&Verdict::Replay), "cut at {cut}: {verdicts:?}");
    }
}

#[test]
fn a_mass_action_is_classified_by_its_field() {
    for (action, class) in
        [("1373=1\x01", 1), ("1373=3\x01", 1), ("1373=2\x01", 0), ("1373=31\x01", 0), ("", 0)]
    {
        let bytes = build("FIXT.1.1", 1, "CA", format!("11=M\x01{action}1374=1\x01").as_bytes());
        for cut in 1..bytes.len() {
            let mut model = model();
            let mut line = Line::open(&mut model, 1, 1);
            line.send(&mut model, &bytes[..cut]);
            line.send(&mut model, &bytes[cut..]);
            let mut expected = [0; 5];
            expected[class] = 1;
            assert_eq!(model.counters[1].passed, expected, "{action:?} cut at {cut}");
        }
    }
}
