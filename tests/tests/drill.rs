//! `breaker drill`: its scenarios succeed, and its report holds the measured figures.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::{sleep, spawn};
use std::time::Duration;

use breaker_tests::cli::argument;
use breaker_tests::command::binary;
use breaker_tests::frame::order;
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::Value;

fn drill(args: &[&str]) -> Output {
    Command::new(binary()).arg("drill").args(args).output().expect("running breaker")
}

/// Runs a scenario, which must keep every promise. Returns its part of the report, and its output.
#[track_caller]
fn scenario(name: &str) -> (Value, String) {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("report.json");
    let ran = drill(&["--scenario", name, "--report", argument(&path)]);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("every promise was kept"), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON");
    assert_eq!(
        (&report["kept"], report["scenarios"].as_array().map(Vec::len)),
        (&Value::Bool(true), Some(1))
    );
    assert_eq!(report["command"], format!("breaker drill --scenario {name}"));
    let found = report["scenarios"][0].clone();
    assert_eq!(found["scenario"], name);
    let promises = found["promises"].as_array().expect("promises");
    assert!(promises.len() >= 4 && promises.iter().all(|promise| promise["kept"] == true), "{promises:?}");
    (found, said)
}

/// A figure of a report.
#[track_caller]
fn figure(report: &Value, what: &str) -> f64 {
    let figures = report["figures"].as_array().expect("figures");
    let found = figures.iter().find(|figure| figure["what"] == what).expect(what);
    found["value"].as_f64().expect("a number")
}

#[test]
fn the_knight_drill_succeeds_and_reports_its_figures() {
    require_root!();
    let (report, _) = scenario("knight");
    // 212 in the morning, exactly N = 500 of the runaway, and 10 after the reset.
    assert_eq!(figure(&report, "orders that crossed"), 722.0);
    assert_eq!(figure(&report, "stale orders after the reset"), 0.0);
    assert_eq!(figure(&report, "orders written by the engine"), 722.0 + figure(&report, "orders withheld"));
    assert!(figure(&report, "order N+1 handed to TCP, to the trip in the kernel") > 0.0);
    assert!(report["promises"].as_array().is_some_and(|promises| promises.len() >= 9));
}

#[test]
fn one_session_is_tripped_and_the_other_trades_on() {
    require_root!();
    let (report, _) = scenario("one-session");
    assert!(figure(&report, "orders of the other session") > figure(&report, "orders that crossed"));
    assert!(figure(&report, "the switch, to the reset at the venue") > 0.0);
}

#[test]
fn a_coalesced_burst_shares_segments_and_is_cut_off() {
    require_root!();
    let (report, _) = scenario("coalesced-burst");
    assert!(figure(&report, "segments that crossed") * 10.0 < figure(&report, "orders that crossed"));
}

#[test]
fn everything_works_with_a_dead_agent() {
    require_root!();
    let (report, _) = scenario("agent-dead");
    assert_eq!(figure(&report, "orders that crossed"), 220.0);
}

#[test]
fn a_replay_of_the_engine_is_withheld() {
    require_root!();
    let (report, _) = scenario("engine-replays");
    assert_eq!(figure(&report, "orders that crossed"), 70.0);
    assert!(figure(&report, "orders withheld") >= 1.0);
}

#[test]
fn orders_behind_a_shut_window_do_not_cross() {
    require_root!();
    let (report, _) = scenario("window-shut");
    assert!(figure(&report, "orders withheld") > 100.0);
}

#[test]
fn an_upgrade_under_load_loses_no_order() {
    require_root!();
    let (report, _) = scenario("upgrade-under-load");
    assert_eq!(figure(&report, "orders withheld"), 0.0);
    assert!(figure(&report, "orders that crossed") > 100.0);
}

#[test]
fn a_tripped_session_cancels() {
    require_root!();
    let (report, _) = scenario("cancel-while-tripped");
    assert_eq!(figure(&report, "orders withheld"), 1.0);
}

#[test]
fn a_trip_outlives_what_a_reboot_loses() {
    require_root!();
    let (report, _) = scenario("reboot");
    assert_eq!(figure(&report, "orders that crossed"), 70.0);
    assert!(report["title"].as_str().is_some_and(|title| title.contains("the kernel is not restarted")));
}

/// Prints a page with Chromium to a file.
fn chromium(page: &Path, option: &str) {
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", option])
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("running chromium");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_of_all_scenarios_prints_on_two_pages_and_needs_nothing_else() {
    require_root!();
    let directory = tempfile::TempDir::new().expect("a directory");
    let (page, pdf) = (directory.path().join("drill.html"), directory.path().join("drill.pdf"));
    let ran = drill(&["--all", "--report", argument(&page)]);
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let html = std::fs::read_to_string(&page).expect("a page");
    for text in ["Every promise was kept.", "<svg", "breaker drill --all", "@media print", "sha256"] {
        assert!(html.contains(text), "{text:?} is not in the page");
    }
    assert_eq!(html.matches("<section>").count(), 9);
    for text in ["http://", "https://", "<script", "src=", "url(", "@import"] {
        assert!(!html.contains(text), "the page loads something: {text:?}");
    }
    chromium(&page, &format!("--print-to-pdf={}", pdf.display()));
    let info = Command::new("pdfinfo").arg(&pdf).output().expect("running pdfinfo");
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    let pages = info.lines().find_map(|line| line.strip_prefix("Pages:")).expect("a number of pages");
    assert!((1..=2).contains(&pages.trim().parse::<u32>().expect("a number")), "{info}");
    let text = Command::new("pdftotext").arg(&pdf).arg("-").output().expect("running pdftotext");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for name in ["knight", "one-session", "window-shut", "reboot", "every cancel reaches the venue"] {
        assert!(text.contains(name), "{name:?} is not on paper: {text}");
    }
}

/// Two sessions, of which a live drill may trip the first.
const LIVE: &str = r#"
[[group]]
name = "desk"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
drill = true
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
"#;

#[test]
fn a_live_drill_trips_the_session_and_measures_both_ends() {
    require_root!();
    let testbed = Testbed::load(LIVE);
    let receiver = testbed.listen(9001);
    let mut streams = [testbed.connect(9001), testbed.connect(9001)];
    for stream in &mut streams {
        stream.write_all(&order(1)).expect("sending");
    }
    receiver.wait("the orders", |all| all.len() == 2 && all.iter().all(|one| one.complete("D") == 1));
    let mut busy = streams[0].try_clone().expect("a descriptor");
    let sender = spawn(move || {
        while busy.write_all(&order(2)).is_ok() {
            sleep(Duration::from_millis(1))
        }
    });
    receiver.wait("orders of a busy engine", |all| all.iter().any(|one| one.complete("D") > 20));
    let path = testbed.config().with_file_name("live.json");
    let output = testbed.cli(&format!("drill --live session/x1 --report {}", path.display())).expect_exit(0);
    assert!(output.stdout.contains("session/x1 stays tripped: breaker reset session/x1"), "{output:?}");
    receiver.wait("the resets", |all| all.iter().all(|one| one.end == End::Reset));
    sender.join().expect("the sender ends with its connection");
    assert_eq!(testbed.causes("session/x1"), ["manual"]);
    assert!(testbed.causes("session/x2").is_empty());
    let report: Value = serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON");
    assert_eq!(report["command"], "breaker drill --live session/x1");
    let live = &report["scenarios"][0];
    assert_eq!(figure(live, "connections of the session"), 2.0);
    assert!(figure(live, "the switch, to the last reset that left to the venue") > 0.0);
    assert!(figure(live, "the switch, to the end of the last socket of the engine") > 0.0);
    let promises = live["promises"].as_array().expect("promises");
    assert!(promises.len() == 5 && promises.iter().all(|promise| promise["kept"] == true), "{promises:?}");
}

#[test]
fn a_live_drill_refuses_everything_that_is_not_allowed() {
    require_root!();
    let testbed = Testbed::load(LIVE);
    let refused = |scope: &str, text: &str| {
        testbed.cli(&format!("drill --live {scope}")).expect_exit(4).expect_stderr(text);
    };
    refused("session/x2", "its configuration does not allow a live drill: write drill = true");
    refused("group/desk", "it is no session");
    refused("host", "it is no session");
    refused("session/x1", "it has no open connection on this host");
    assert!(testbed.tripped().is_empty());
    testbed.cli("drill --live session/none").expect_exit(2);
    testbed.cli("drill --live session/x1 --report /nowhere/x.html").expect_exit(2).expect_stderr("/nowhere");
    testbed.trip("session/x1");
    refused("session/x1", "it is tripped already");
}
