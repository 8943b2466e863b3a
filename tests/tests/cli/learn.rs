//! `breaker learn`: limits proposed from captures and from what is loaded.

use std::fs;
use std::path::PathBuf;

use breaker_tests::agent::Agent;
use breaker_tests::command::breaker;
use breaker_tests::frame::{message, order};
use breaker_tests::pcap_file::{PcapFile, Sender};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::POLICY;

/// 30 November 2026, 09:30 UTC, ns since 1970.
const OPEN: u64 = 1_796_031_000_000_000_000;
const MS: u64 = 1_000_000;
const DAY: u64 = 86_400_000 * MS;

fn open(file: &mut PcapFile, at: u64, port: u16) -> Sender {
    let socket = |address: &str, port| format!("{address}:{port}").parse().expect("a socket address");
    Sender::open(file, at, socket("10.9.0.1", 40_000 + port), socket("10.9.0.2", port))
}

/// Three days at two endpoints. On day N the first session sends 10 N orders at once, one a second before and
/// after, and a cancel.
fn days(directory: &TempDir) -> Vec<PathBuf> {
    let day = |number: u64| {
        let (mut file, at) = (PcapFile::default(), OPEN + number * DAY);
        let [mut first, mut second] = [9_001, 9_002].map(|port| open(&mut file, at, port));
        (1..30).for_each(|i| first.send(&mut file, at + i * 1_000 * MS, &order(i as u32)));
        (0..10 * number).for_each(|i| first.send(&mut file, at + 30_000 * MS + i, &order(i as u32)));
        first.send(&mut file, at + 31_000 * MS, &message("FIX.4.4", "F", b"11=C\x0141=R\x01"));
        second.send(&mut file, at + 32_000 * MS, &order(1));
        let path = directory.path().join(format!("day-{number}.pcap"));
        fs::write(&path, file.bytes()).expect("writing a capture");
        path
    };
    [1, 2, 3].map(day).into()
}

/// Runs `breaker learn` with these words and captures.
fn learn(words: &[&str], captures: &[PathBuf]) -> breaker_tests::command::CliOutput {
    let captures = captures.iter().map(|path| path.to_str().expect("UTF-8"));
    breaker(&["learn"].iter().copied().chain(words.iter().copied()).chain(captures).collect::<Vec<_>>())
}

/// The window of a class in the JSON of a session.
fn window<'a>(session: &'a Value, class: &str, per: &str) -> &'a Value {
    let windows = session["windows"].as_array().expect("windows");
    let found = windows.iter().find(|window| window["class"] == class && window["per"] == per);
    found.unwrap_or_else(|| panic!("no {class} per {per} in {session:#}"))
}

#[test]
fn peaks_are_those_of_each_window_and_percentiles_those_of_the_days() {
    let directory = TempDir::new().expect("a directory");
    let view = learn(&["--json"], &days(&directory)).expect_exit(0).json();
    let session = &view["sessions"][0];
    assert_eq!((&session["name"], &session["declared"]), (&json!("venue-1"), &json!(false)));
    assert_eq!((&session["remote"][0], &session["target"]), (&json!("10.9.0.2:9001"), &json!("VENUE")));
    for (per, peak, p50) in [("100ms", 30, 20), ("1s", 30, 20), ("3s", 32, 22), ("1m", 59, 49)] {
        let found = window(session, "order", per);
        assert_eq!((&found["peak"], &found["p50"]), (&json!(peak), &json!(p50)), "{per}: {found:#}");
        assert_eq!((&found["p90"], &found["days"]), (&json!(peak), &json!(3)));
        assert_eq!((&found["max"], &found["days_tripped"]), (&json!(2 * peak), &json!(0)));
    }
    assert_eq!(window(session, "order", "1s")["peak_at"], "2026-12-03T09:30:30.000000029Z");
    // Half of the limit is the highest peak.
    assert_eq!(window(session, "order", "1s")["days_warned"], 1);
    assert_eq!(
        (&window(session, "cancel", "1s")["max"], &window(session, "message", "1m")["peak"]),
        (&json!(2), &json!(60))
    );
    let third = learn(&["--json", "--factor", "1.5"], &days(&directory)).expect_exit(0).json();
    assert_eq!(window(&third["sessions"][0], "order", "1s")["max"], 45);
    learn(&["--factor", "0.5"], &days(&directory)).expect_exit(2).expect_stderr("from 1 to 100");
}

#[test]
fn the_proposal_is_a_valid_configuration_under_which_the_days_would_not_have_tripped() {
    require_root!();
    let directory = TempDir::new().expect("a directory");
    let (captures, testbed) = (days(&directory), Testbed::unloaded(POLICY));
    for words in [&[][..], &["--config", testbed.config().to_str().expect("UTF-8")]] {
        let text = learn(words, &captures).expect_exit(0).stdout;
        assert!(
            text.contains("{ class = \"order\", max = 60, per = \"1s\" }, # peak 30 at 2026-12-03"),
            "{text}"
        );
        assert!(text.contains("# { class = \"order\", max = 60, per = \"100ms\" }"), "{text}");
        let learnt = testbed.write_config("learnt.toml", &text);
        let learnt = learnt.to_str().expect("UTF-8");
        // Without a configuration the interface is one of the machine, which the host of the test lacks.
        let output = if words.is_empty() {
            breaker(&["check", "--config", learnt])
        } else {
            testbed.cli_args(&["check", "--config", learnt])
        };
        assert!(output.stdout.contains("policy learnt is valid; sessions: 2"), "{output:#?}\n{text}");
        let files = captures.iter().map(|path| path.to_str().expect("UTF-8"));
        let replayed = ["replay", "--json", "--config", learnt].into_iter().chain(files);
        let view = breaker(&replayed.collect::<Vec<_>>()).expect_exit(0).json();
        assert_eq!((&view["trips"], &view["undeclared"]), (&json!([]), &json!([])), "{text}");
    }
}

#[test]
fn two_sessions_at_an_endpoint_are_told_apart_by_their_comp_ids() {
    let directory = TempDir::new().expect("a directory");
    let mut file = PcapFile::default();
    for (i, target) in ["A", "B"].into_iter().enumerate() {
        let from = format!("10.9.0.1:{}", 40_000 + i).parse().expect("an address");
        let mut sender = Sender::open(&mut file, OPEN, from, "10.9.0.2:9001".parse().expect("an address"));
        let logon = order(1).split(|byte| *byte == 1).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let text =
            String::from_utf8(logon.join(&1)).expect("text").replace("56=VENUE", &format!("56={target}-XYZ"));
        sender.send(&mut file, OPEN + MS, text.as_bytes());
    }
    let path = directory.path().join("shared.pcap");
    fs::write(&path, file.bytes()).expect("writing a capture");
    let text = learn(&[], std::slice::from_ref(&path)).expect_exit(0).stdout;
    for word in ["name = \"a-xyz-1\"", "target = \"A-XYZ\"", "target = \"B-XYZ\"", "sender = \"FIRM\""] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    breaker_user::config::parse("learnt", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
}

#[test]
fn without_captures_the_peaks_are_those_of_the_kernel() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    (0..3).for_each(|id| std::io::Write::write_all(&mut stream, &order(id)).expect("sending"));
    breaker_tests::testbed::wait_for("three orders", || (testbed.counters(1).passed[0] == 3).then_some(()));
    let config = testbed.config();
    let words = format!("learn --config {}", config.display());
    let view = testbed.cli(&format!("{words} --json")).expect_exit(0).json();
    let found = window(&view["sessions"][0], "order", "2s");
    assert_eq!((&found["peak"], &found["max"]), (&json!(3), &json!(6)));
    let text = testbed.cli(&words).expect_exit(0).stdout;
    assert!(text.contains("{ class = \"order\", max = 6, per = \"2s\" }, # peak 3 since the load"), "{text}");
    let learnt = testbed.write_config("learnt.toml", &text);
    testbed.cli(&format!("check --config {}", learnt.display())).expect_exit(0);
    drop((stream, receiver));
    Testbed::unloaded(POLICY).cli(&words).expect_exit(3);
}

#[test]
fn a_peak_from_before_the_load_comes_from_the_warnings_in_the_audit_log() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let agent = Agent::start(&testbed);
    let _receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    (0..4).for_each(|id| std::io::Write::write_all(&mut stream, &order(id)).expect("sending"));
    let is_logged = || fs::read_to_string(testbed.audit()).is_ok_and(|log| log.contains("\"used\":4"));
    breaker_tests::testbed::wait_for("the warning at 4 of 5 orders", || is_logged().then_some(()));
    agent.stop();
    testbed.cli("unload --force").expect_exit(0);
    let config = testbed.config().display().to_string();
    testbed.cli_args(&["load", "--config", &config]).expect_exit(0);
    let view = testbed.cli_args(&["learn", "--config", &config, "--json"]).expect_exit(0).json();
    let found = window(&view["sessions"][0], "order", "2s");
    assert_eq!((&found["peak"], &found["days"], &found["max"]), (&json!(4), &json!(1), &json!(8)));
    assert!(found["peak_at"].is_string(), "{found:#}");
    let text = testbed.cli_args(&["learn", "--config", &config]).expect_exit(0).stdout;
    assert!(text.contains("daily peaks of 1 days: p50 4, p90 4; would have warned on 1 days"), "{text}");
    fs::write(testbed.audit(), "").expect("emptying the log");
    let view = testbed.cli_args(&["learn", "--config", &config, "--json"]).expect_exit(0).json();
    assert_eq!(view["sessions"][0]["windows"], json!([]));
}
