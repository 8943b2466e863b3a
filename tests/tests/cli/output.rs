//! Output: JSON for scripts, tables for people, and colours on terminals only.

use breaker_tests::cli::scope;
use breaker_tests::command::{self, CliOutput, binary};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::POLICY;

/// The documented keys of `status --json`, with a value of each type.
fn contract() -> Value {
    let verdicts = json!({ "passed": 0, "withheld": 0 });
    json!({
        "breaker": { "version": "", "git": "", "abi": 1, "program_tag": "", "loaded_at": "" },
        "policy": { "name": "", "sha256": "" },
        "agent": { "running": true, "heartbeat_age_ms": null },
        "interfaces": [{ "name": "", "ifindex": 2, "mode": "", "hook": "", "attached": true, "first": true }],
        "scopes": [{
            "scope": "", "armed": true, "tripped": false, "causes": [""], "epoch": 0,
            "limits": [{ "class": "", "max": 500, "per": "", "used": 12, "peak": 77 }],
        }],
        "sessions": [{
            "name": "", "connections": 1, "fenced": 0,
            "messages": {
                "order": verdicts, "cancel": verdicts, "interest": verdicts,
                "query": verdicts, "admin": verdicts
            },
            "packets": verdicts, "retransmitted": 0, "desyncs": 0, "blind": 0, "unread": 0,
        }],
        "enforced": { "ok": true, "problems": [{ "what": "", "where": "", "cure": "" }] },
        "failure_policy": [{ "failure": "", "then": "" }],
    })
}

/// Keys added since. A key that is not listed fails the test.
const ADDED: [&str; 8] = [
    "packets",
    "state",
    "interfaces[].pinned",
    "scopes[].last_trip",
    "sessions[].groups",
    "warnings",
    "enforced.notes",
    "enforced.problems[].found",
];

/// Asserts that a value has the keys and types of a sample, and no unknown keys.
fn conforms(found: &Value, sample: &Value, path: &str) {
    match (found, sample) {
        (Value::Object(found), Value::Object(sample)) => {
            let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            for (key, sample) in sample {
                conforms(
                    found.get(key).unwrap_or_else(|| panic!("{} is missing", at(key))),
                    sample,
                    &at(key),
                );
            }
            for key in found.keys().filter(|key| !sample.contains_key(*key)) {
                assert!(ADDED.contains(&at(key).as_str()), "{} is not documented", at(key));
            }
        }
        (Value::Array(found), Value::Array(sample)) => {
            found.iter().for_each(|one| conforms(one, &sample[0], &format!("{path}[]")));
        }
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, Value::Null) => {}
        (Value::Number(found), Value::Number(_)) => assert!(found.is_u64(), "{path} is {found}"),
        (found, sample) => panic!("{path} is {found} where {sample} has another type"),
    }
}

#[test]
fn status_as_json_has_the_documented_keys_and_no_others() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    conforms(&testbed.cli("status --json").expect_exit(0).json(), &contract(), "");
    testbed.trip("session/x1");
    let status = testbed.cli("status --json").expect_exit(10).json();
    conforms(&status, &contract(), "");
    let names = |key: &str, name: &str| -> Vec<String> {
        status[key]
            .as_array()
            .expect(key)
            .iter()
            .map(|one| one[name].as_str().expect(name).to_owned())
            .collect()
    };
    assert_eq!(
        names("scopes", "scope"),
        ["host", "group/desk", "session/undeclared", "session/x1", "session/x2"]
    );
    assert_eq!(names("sessions", "name"), ["undeclared", "x1", "x2"]);
    assert_eq!(status["interfaces"][0]["hook"], "tcx");
    assert_eq!(scope(&status, "session/x1")["causes"], json!(["manual"]));
    let limits = json!([
        { "class": "order", "max": 5, "per": "2s", "used": 0, "peak": 0 },
        { "class": "cancel", "max": 1000, "per": "2s", "used": 0, "peak": 0 },
    ]);
    assert_eq!(scope(&status, "session/x1")["limits"], limits);
    let at = status["breaker"]["loaded_at"].as_str().expect("a time");
    assert!(at.len() == 20 && at.as_bytes()[10] == b'T' && at.ends_with('Z'), "{at} is RFC 3339 UTC");
    // For one scope: the scope and its sessions.
    let status = testbed.cli("status group/desk --json").expect_exit(0).json();
    conforms(&status, &contract(), "");
    assert_eq!(status["scopes"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["sessions"].as_array().map(Vec::len), Some(2));
    testbed.cli("unload --force").expect_exit(0);
    let config = testbed.config();
    conforms(
        &testbed.cli(&format!("load --json --config {}", config.display())).expect_exit(0).json(),
        &contract(),
        "",
    );
}

#[test]
fn a_closed_output_pipe_is_not_an_error() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("host");
    for args in
        [&["status"][..], &["status", "--json"], &["--help"], &["trip", "host", "--reason", "x"], &["events"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = testbed
            .on_host(|| command::command().args(args).stdout(writer).output().expect("running breaker"));
        let output = CliOutput::new(ran).expect_exit(0);
        // On a slow machine `trip` reports that a background process still writes the state file.
        let mut lines = output.stderr.lines().filter(|line| !line.contains("state file is not written yet"));
        assert_eq!(lines.next(), None, "{args:?}");
    }
    assert_eq!(testbed.shell(&format!("{} status | head -1", binary().display())).lines().count(), 1);
}

#[test]
fn colour_is_for_terminals_without_no_color_only() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    testbed.switch("disarm", "session/x2").expect_exit(0);
    let status = format!("{} status", binary().display());
    // To a pipe, whatever the terminal and the environment say.
    let piped = format!("env -u NO_COLOR TERM=xterm-256color CLICOLOR_FORCE=1 {status} || true");
    assert!(!testbed.shell(&piped).contains('\u{1b}'));
    let on_a_terminal = |environment: &str| {
        testbed.shell(&format!("script -qc 'env {environment} {status}' /dev/null || true"))
    };
    let coloured = on_a_terminal("-u NO_COLOR TERM=xterm");
    for shout in ["TRIPPED: manual", "DISARMED"] {
        assert!(
            coloured.lines().any(|line| line.contains(shout) && line.contains("\u{1b}[")),
            "{shout}: {coloured:?}"
        );
    }
    let plain = on_a_terminal("NO_COLOR=1 TERM=xterm");
    assert!(plain.contains("TRIPPED: manual") && !plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn tables_are_narrow_enough_to_read_and_have_no_trailing_blanks() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    // The widest state of a switch: all causes, and a trip by the kernel.
    testbed.with_breaker(|breaker| {
        let scope = breaker.find("session/x1").expect("a scope");
        breaker.trip(scope, (1 << 7) - 1).expect("tripping");
    });
    let output = testbed.cli("status").expect_exit(10);
    for line in output.stdout.lines() {
        assert_eq!(line, line.trim_end(), "{line:?}");
        assert!(line.chars().count() <= 120, "{line:?} is too wide");
    }
    for cause in ["TRIPPED: manual,", "rate,", "deadman,", "desync,", "replay,", "undeclared,", "fleet"] {
        assert!(output.stdout.lines().any(|line| line.contains(&format!(" {cause}"))), "{cause}: {output:?}");
    }
    // Times have at most milliseconds. The JSON has more.
    let digits = |word: &str| word.split_once('.').map_or(0, |(_, rest)| rest.trim_end_matches('Z').len());
    let times = output.stdout.split_whitespace().filter(|word| word.ends_with('Z') && word.contains('T'));
    times.for_each(|time| assert!(digits(time) <= 3, "{time}"));
}
