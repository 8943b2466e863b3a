//! `breaker trip --explain`, and the explanation at the end of a trip.

use std::io::Write;

use breaker_tests::frame::{message, order};
use breaker_tests::many_sessions::ManySessions;
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::{Value, json};

/// Four sessions that differ in everything an explanation says.
const POLICY: &str = r#"
[[group]]
name = "desk"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
cancel_on_disconnect = "day"
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
groups = ["desk"]
on_trip = "drop"
while_tripped = "admin-only"
cancel_on_disconnect = "all"
[[session]]
name = "x3"
remote = "10.9.0.2:9003"
while_tripped = "isolate"
cancel_on_disconnect = "all"
[[session]]
name = "x4"
remote = "10.9.0.2:9004"
wire = "opaque"
"#;

#[test]
fn an_explanation_names_the_connections_and_changes_nothing() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    stream.write_all(&order(1)).expect("sending");
    receiver.wait("the order", |all| all[0].complete("D") == 1);
    let local = stream.local_addr().expect("its address").to_string();
    let log = std::fs::read(testbed.audit()).ok();
    let output = testbed.cli("trip --explain session/x1").expect_exit(0);
    for text in [
        "a trip of session/x1, which is not done now:\n",
        &format!("1 connection, by a TCP reset to both ends: {local} > 10.9.0.2:9001\n"),
        "passes   on a new connection: cancel, query, admin; the first message of order, interest ends it",
        "venue    cancels the day orders of the session at once\n",
        "stays    orders with another time in force than day (GTC, GTD): cancel them at the venue\n",
        "breaker reset session/x1 --reason TEXT\n",
    ] {
        assert!(output.stdout.contains(text), "{text:?} is not in {output:#?}");
    }
    let found = testbed.cli("trip session/x1 --explain --json").expect_exit(0).json();
    assert_eq!((&found["scope"], &found["tripped"]), (&json!("session/x1"), &json!(false)));
    let session = &found["sessions"][0];
    assert_eq!(session["connections"], json!([{ "local": local, "remote": "10.9.0.2:9001" }]));
    assert_eq!(session["cancel_on_disconnect"], "day");
    assert_eq!(session["passes"], json!(["cancel", "query", "admin"]));
    // Nothing is changed: the switch, the log and the connection are as before.
    assert!(testbed.tripped().is_empty());
    assert_eq!(testbed.scope("session/x1").epoch, 0);
    assert_eq!(std::fs::read(testbed.audit()).ok(), log);
    stream.write_all(&order(2)).expect("sending");
    receiver.wait("the second order", |all| all[0].complete("D") == 2);
}

#[test]
fn an_explanation_of_a_group_has_the_rules_of_each_session() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let found = testbed.cli("trip --explain host --json").expect_exit(0).json();
    let facts: Vec<_> = found["sessions"]
        .as_array()
        .expect("sessions")
        .iter()
        .map(|session| {
            let words =
                ["name", "on_trip", "while_tripped"].map(|key| session[key].as_str().expect("a word"));
            (words, session["passes"].clone(), session["cancel_on_disconnect"].clone())
        })
        .collect();
    assert_eq!(
        facts,
        [
            (["x1", "reset", "reduce-only"], json!(["cancel", "query", "admin"]), json!("day")),
            (["x2", "drop", "admin-only"], json!(["admin"]), json!("all")),
            (["x3", "reset", "isolate"], json!([]), json!("all")),
            (["x4", "reset", "reduce-only"], json!([]), json!(null)),
        ]
    );
    let text = testbed.cli("trip --explain group/desk").expect_exit(0).stdout;
    assert!(!text.contains("session/x3") && text.contains("no connection is open"), "{text}");
    assert!(text.contains("nothing: the connection stays open without payload"), "{text}");
    let text = testbed.cli("trip --explain session/x4").expect_exit(0).stdout;
    assert!(text.contains("the configuration has no cancel_on_disconnect: ask the venue"), "{text}");
    assert!(text.contains("possibly every resting order: cancel them at the venue"), "{text}");
    testbed.cli("trip --explain session/x5").expect_exit(2).expect_stderr("did you mean");
}

#[test]
fn a_trip_ends_with_its_explanation_and_what_it_says_passes_does_pass() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let stream = testbed.connect(9001);
    receiver.wait("the connection", |all| all.len() == 1);
    let local = stream.local_addr().expect("its address").to_string();
    let output = testbed.cli("trip session/x1 --reason test").expect_exit(0).stdout;
    let (result, explanation) = output.split_once('\n').expect("lines");
    assert!(
        result.starts_with("session/x1: TRIPPED (manual), armed, epoch 1; connections ended: 1"),
        "{output}"
    );
    assert!(explanation.starts_with("the trip of session/x1:\n"), "{output}");
    assert!(
        explanation.contains(&format!("1 connection, by a TCP reset to both ends: {local} >")),
        "{output}"
    );
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    let mut again = testbed.connect(9001);
    for msg_type in ["A", "F", "H"] {
        again.write_all(&message("FIX.4.2", msg_type, b"11=1\x01")).expect("sending");
        receiver.wait(msg_type, |all| all.get(1).is_some_and(|one| one.complete(msg_type) == 1));
    }
    again.write_all(&order(1)).expect("sending");
    receiver.wait("the reset of the order", |all| all[1].end == End::Reset);
    assert_eq!(receiver.last().complete("D"), 0);
    let found = testbed.cli("trip session/x1 --reason again --json").expect_exit(0).json();
    assert_eq!(found["explanation"]["scope"], "session/x1");
    let output = testbed.cli("trip --explain session/x1").expect_exit(0).stdout;
    assert!(output.starts_with("session/x1 is tripped already"), "{output}");
}

#[test]
fn an_explanation_lists_a_thousand_connections_and_counts_the_others() {
    require_root!();
    let many = ManySessions::new(2, 1, 1_204);
    let found = many.testbed.cli("trip --explain group/g0 --json").expect_exit(0).json();
    let sessions = found["sessions"].as_array().expect("sessions");
    let counts = |session: &Value| {
        let listed = session["connections"].as_array().map(Vec::len);
        (listed, session["connections_left_out"].as_u64())
    };
    let counts: Vec<_> = sessions.iter().map(counts).collect();
    assert_eq!(counts, [(Some(602), Some(0)), (Some(398), Some(204))]);
    let text = many.testbed.cli("trip --explain group/g0").expect_exit(0).stdout;
    assert!(text.contains("1204 connections, by a TCP reset to both ends: "), "{text}");
    assert!(text.contains(" and 1198 more\n"), "{text}");
}
