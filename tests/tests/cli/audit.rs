//! The audit log: each action in order, by whom and why; and the detection of every change to it.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::command::{self, CliOutput, breaker};
use breaker_tests::frame::order;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::POLICY;

fn logged(testbed: &Testbed) -> Vec<Value> {
    let output =
        (testbed.cli_args(&["events", "--json", "--audit", testbed.audit().to_str().expect("UTF-8")]))
            .expect_exit(0);
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A host on which every action that is logged was done.
fn busy() -> Testbed {
    let testbed = Testbed::unloaded(&format!("{POLICY}\n"));
    testbed.load_cli();
    testbed.switch("disarm", "group/desk").expect_exit(0);
    testbed.switch("arm", "group/desk").expect_exit(0);
    testbed.cli_args(&["trip", "session/x1", "--reason", "  runaway \"x\"\n\u{1b}[31mred ü "]);
    testbed.switch("reset", "session/x2").expect_exit(4);
    testbed.switch("reset", "session/x1").expect_exit(0);
    testbed.switch("trip", "host").expect_exit(0);
    testbed.cli("unload --force").expect_exit(0);
    testbed
}

#[test]
fn events_list_each_action_with_its_actor_and_reason() {
    require_root!();
    let testbed = busy();
    let lines = logged(&testbed);
    let events: Vec<_> = lines
        .iter()
        .map(|line| json!([line["kind"], line["scope"], line["cause"], line["reason"]]))
        .collect();
    let runaway = "runaway \"x\"\n\u{1b}[31mred ü";
    let expected = [
        json!(["loaded", null, null, null]),
        json!(["disarmed", "group/desk", null, "test"]),
        json!(["armed", "group/desk", null, "test"]),
        json!(["tripped", "session/x1", "manual", runaway]),
        json!(["reset_refused", "session/x2", null, "test"]),
        json!(["reset", "session/x1", "manual", "test"]),
        json!(["tripped", "host", "manual", "test"]),
        json!(["unloaded", null, null, null]),
    ];
    assert_eq!(events, expected);
    let mut before = String::new();
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], n as u64 + 1);
        let actor = &line["actor"];
        assert_eq!((&actor["uid"], &actor["via"]), (&json!(0), &json!("cli")));
        assert!(
            actor["pid"].as_u64() > Some(1) && actor["user"].as_str().is_some_and(|user| !user.is_empty()),
            "{line}"
        );
        assert_eq!(line["policy"], "unnamed");
        let time = line["time"].as_str().expect("a time").to_owned();
        assert!(time.ends_with('Z') && time > before, "{line}");
        before = time;
    }
    assert_eq!(lines[4]["counts"]["found"], "it is not tripped");
    assert_eq!(lines[7]["counts"], json!({ "forced": true, "tripped": ["host"] }));
    // For people: one line each, without terminal control characters.
    let output =
        (testbed.cli_args(&["events", "--audit", testbed.audit().to_str().expect("UTF-8")])).expect_exit(0);
    assert_eq!(output.stdout.lines().count(), expected.len());
    assert!(
        output.stdout.contains(r#"session/x1 (manual) by "#) && !output.stdout.contains('\u{1b}'),
        "{output:?}"
    );
    assert!(output.stdout.contains(r#""runaway \"x\"\n\u{1b}[31mred ü""#), "{output:?}");
    let time = output.stdout.split(' ').next().expect("a time");
    assert_eq!(time.len(), "2026-11-22T23:06:11.795Z".len(), "{time}");
}

#[test]
fn environment_variables_do_not_change_the_actor() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let as_user = |variable: &str| {
        let args = ["trip", "host", "--reason", "x"];
        let ran = testbed.on_host(|| {
            command::command().args(args).env_remove("SUDO_USER").env(variable, "mallory").output()
        });
        CliOutput::new(ran.expect("running breaker")).expect_exit(0);
        logged(&testbed).pop().expect("a line")["actor"]["user"].clone()
    };
    for variable in ["USER", "LOGNAME", "USERNAME"] {
        assert_ne!(as_user(variable), "mallory", "{variable}");
    }
    // sudo names its caller, if the kernel knows no login user.
    let unknown =
        std::fs::read_to_string("/proc/self/loginuid").map_or(true, |uid| uid.trim() == u32::MAX.to_string());
    if unknown {
        assert_eq!(as_user("SUDO_USER"), "mallory");
    }
}

#[test]
fn followed_events_appear_as_they_happen() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let mut follow = testbed.on_host(|| {
        let mut command = command::command();
        command
            .args(["events", "--follow", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting breaker")
    });
    let mut lines = BufReader::new(follow.stdout.take().expect("its standard output")).lines();
    let mut next =
        || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("UTF-8")).expect("JSON") };
    assert_eq!(next()["kind"], "loaded");
    for (verb, kind) in [("trip", "tripped"), ("reset", "reset"), ("disarm", "disarmed")] {
        testbed.switch(verb, "session/x1").expect_exit(0);
        let line = next();
        assert_eq!((&line["kind"], &line["scope"]), (&json!(kind), &json!("session/x1")));
    }
    // After a rotation the output continues with the new file.
    std::fs::rename(testbed.audit(), testbed.audit().with_extension("old")).expect("rotating");
    testbed.switch("arm", "session/x1").expect_exit(0);
    let line = next();
    assert_eq!((&line["kind"], &line["seq"]), (&json!("armed"), &json!(5)));
    follow.kill().expect("ending it");
    follow.wait().expect("waiting for its end");
}

#[test]
fn a_connection_that_becomes_blind_or_readable_has_an_event() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let receiver = testbed.listen(9002);
    let mut stream = testbed.connect(9002);
    for bytes in [order(1), vec![b'?'; 300], order(2)] {
        stream.write_all(&bytes).expect("sending");
        sleep(Duration::from_millis(20));
    }
    receiver.wait("all of it", |all| all[0].count("D") == 2);
    let events = testbed.events();
    for kind in ["blind", "sighted"] {
        let found: Vec<_> = events.iter().filter(|line| line["kind"] == kind).collect();
        assert_eq!(found.len(), 1, "{kind}: {events:#?}");
        assert_eq!(
            (&found[0]["scope"], &found[0]["counts"]["session"]),
            (&json!("session/x2"), &json!("x2"))
        );
        assert!(
            found[0]["counts"]["connection"].as_str().is_some_and(|text| text.ends_with(" > 10.9.0.2:9002"))
        );
    }
}

#[test]
fn verify_accepts_an_unchanged_log_and_prints_its_last_hash() {
    require_root!();
    let testbed = busy();
    let path = testbed.audit();
    let path = path.to_str().expect("UTF-8");
    let output = breaker(&["audit", "verify", "--audit", path]).expect_exit(0);
    assert!(
        output.stdout.starts_with(&format!(
            "{path}: 8 lines, none changed, removed or moved; hash of the last line: "
        )),
        "{output:?}"
    );
    let found = breaker(&["audit", "verify", "--json", "--audit", path]).expect_exit(0).json();
    assert_eq!(found["lines"], 8);
    let hash = found["hash"].as_str().expect("a hash");
    assert!(output.stdout.contains(hash));
    // The same hash without breaker.
    let sum = testbed.shell(&format!("tail -n1 {path} | tr -d '\\n' | sha256sum"));
    assert_eq!(sum.split(' ').next(), Some(hash));
    breaker(&["audit", "verify", "--audit", "/nonexistent"])
        .expect_exit(1)
        .expect_stderr("opening /nonexistent");
}

#[test]
fn verify_names_a_changed_line() {
    require_root!();
    let testbed = busy();
    let text = std::fs::read_to_string(testbed.audit()).expect("the log");
    let forged = text.replacen("\"reason\":\"test\"", "\"reason\":\"text\"", 1);
    std::fs::write(testbed.audit(), &forged).expect("forging");
    let output =
        breaker(&["audit", "verify", "--audit", testbed.audit().to_str().expect("UTF-8")]).expect_exit(1);
    output.expect_stderr("line 2: its `hash` does not match its text: the line was changed");
    // The changed log is shown all the same.
    assert_eq!(logged(&testbed).len(), 8);
    // A line that is no event hides no other line.
    std::fs::write(
        testbed.audit(),
        format!("{}garbage\n{}", &text[..text.find('\n').expect("a line") + 1], forged),
    )
    .expect("forging");
    let output =
        breaker(&["events", "--json", "--audit", testbed.audit().to_str().expect("UTF-8")]).expect_exit(0);
    assert_eq!(output.stdout.lines().count(), 9);
    output.expect_stderr("\"garbage\" is not an event: run `breaker audit verify`");
}
