//! The initial state of each scope after a load.

use super::*;

#[test]
fn a_host_without_a_history_comes_up_as_in_its_policy() {
    let fresh = Wanted { has_history: false, ..wanted() };
    let plan = plan(&Found::Nothing, &fresh);
    assert_eq!((plan.closed, plan.restored, plan.absent, plan.notes), Default::default());
    assert!(plan.states.values().all(|state| state.causes == 0));
    assert!(!plan.states["session/x2"].armed && plan.states["host"].armed);
}

#[test]
fn a_missing_file_on_a_host_with_a_history_trips_armed_scopes() {
    let plan = plan(&Found::Nothing, &wanted());
    assert_eq!(plan.closed_scopes().collect::<Vec<_>>(), ["host", "session/x1"]);
    assert!(plan.closed.is_some_and(|found| found.contains("missing")));
}

#[test]
fn a_boot_after_an_agent_that_did_not_end_trips_armed_scopes() {
    use AgentRun::{Ended, Never, Running};
    let rebooted = |agent, loaded, unclean_boot| {
        let found = Found::Whole(Box::new(Contents { agent, loaded, ..contents(1) }));
        plan(&found, &Wanted { boot_id: "other".to_owned(), unclean_boot, ..wanted() })
    };
    let (trip, pass) = (UncleanBoot::Trip, UncleanBoot::Pass);
    for (agent, loaded, unclean_boot, closed, notes) in [
        (Running, true, trip, true, 0),
        (Running, true, pass, false, 1),
        (Running, false, trip, false, 0),
        (Ended, true, trip, false, 0),
        (Never, true, trip, false, 1),
        (Never, true, pass, false, 1),
    ] {
        let plan = rebooted(agent, loaded, unclean_boot);
        assert_eq!((plan.closed.is_some(), plan.notes.len()), (closed, notes), "{agent:?} {loaded}");
        assert_eq!(plan.states["host"].causes, if closed { cause::STATE } else { 0 });
        assert_eq!(plan.states["session/x1"].causes & cause::MANUAL, cause::MANUAL);
    }
    let same = Found::Whole(Box::new(Contents { agent: Running, ..contents(1) }));
    assert_eq!(plan(&same, &wanted()).closed, None, "the same boot");
}

#[test]
fn a_persons_decision_to_arm_holds_until_the_policy_changes() {
    for (armed, by_policy_then, by_policy_now, expected) in [
        (false, true, true, false),
        (true, true, true, true),
        (true, false, false, true),
        (false, true, false, false),
        (true, true, false, false),
        (false, false, true, true),
    ] {
        let scope = Scope { armed, armed_by_policy: by_policy_then, ..Scope::default() };
        let scopes = BTreeMap::from([("host".to_owned(), scope)]);
        let found = Found::Whole(Box::new(Contents { scopes, ..contents(1) }));
        let armed = BTreeMap::from([("host".to_owned(), by_policy_now)]);
        let state = &plan(&found, &Wanted { armed, ..wanted() }).states["host"];
        assert_eq!((state.armed, state.armed_by_policy), (expected, by_policy_now));
    }
}

#[test]
fn the_guard_against_replays_ends_with_its_day_unless_the_scope_is_tripped() {
    for (causes, day, expected) in [
        (0, date(2026, 11, 21), false),
        (0, TODAY, true),
        (0, date(2026, 11, 23), true),
        (cause::RATE, date(2026, 11, 1), true),
    ] {
        let scope = Scope::of(&ScopeState { guarded: true, ..tripped(causes) }, Some(day));
        let scopes = BTreeMap::from([("session/x1".to_owned(), scope)]);
        let found = Found::Whole(Box::new(Contents { scopes, ..contents(1) }));
        assert_eq!(plan(&found, &wanted()).states["session/x1"].guarded, expected, "{causes} {day}");
    }
    // The day is that of the last trip or reset.
    let state = |epoch| ScopeState { guarded: true, epoch, ..ScopeState::default() };
    let states = |epoch| BTreeMap::from([("session/x1".to_owned(), state(epoch))]);
    let before = Contents { scopes: merge(None, &states(4), TODAY), ..contents(1) };
    // A trip of the host counts for its sessions.
    let mut with_host = states(4);
    with_host.insert("host".to_owned(), tripped(0));
    assert_eq!(
        merge(Some(&before), &with_host, date(2026, 11, 23))["session/x1"].replay_guard,
        Some(date(2026, 11, 23))
    );
    let tomorrow = date(2026, 11, 23);
    for (epoch, expected) in [(4, TODAY), (5, tomorrow)] {
        let merged = merge(Some(&before), &states(epoch), tomorrow);
        assert_eq!(merged["session/x1"].replay_guard, Some(expected));
    }
}

#[test]
fn a_removed_scope_is_kept_if_it_differs_from_an_untouched_scope() {
    let total = |used| vec![Total { class: 0, per_fill: false, used, fills: 0 }];
    let states = BTreeMap::from([
        ("group/tripped".to_owned(), tripped(cause::RATE)),
        ("group/used".to_owned(), ScopeState { totals: total(5), ..ScopeState::default() }),
        ("group/disarmed".to_owned(), ScopeState { armed_by_policy: true, ..ScopeState::default() }),
        ("group/untouched".to_owned(), ScopeState { totals: total(0), ..ScopeState::default() }),
    ]);
    let before = Contents { scopes: merge(None, &states, TODAY), ..contents(1) };
    let host = BTreeMap::from([("host".to_owned(), ScopeState::default())]);
    let merged = merge(Some(&before), &host, TODAY);
    assert_eq!(merged.keys().collect::<Vec<_>>(), ["group/disarmed", "group/tripped", "group/used", "host"]);
    let found = Found::Whole(Box::new(Contents { scopes: merged, ..contents(1) }));
    let plan = plan(&found, &wanted());
    assert_eq!(plan.absent, [("group/tripped".to_owned(), cause::RATE)]);
    // A later policy with the scope restores it unchanged.
    let armed = BTreeMap::from([("group/tripped".to_owned(), true), ("group/used".to_owned(), false)]);
    let again = super::plan(&found, &Wanted { armed, ..wanted() });
    assert_eq!(again.states["group/tripped"].causes, cause::RATE);
    assert_eq!(again.states["group/used"].totals, total(5));
}
