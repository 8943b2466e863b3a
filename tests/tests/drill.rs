//! `breaker drill`: its scenarios succeed, and its report holds the measured figures.

use std::process::Command;

use breaker_tests::command::binary;
use breaker_tests::require_root;
use serde_json::Value;

#[test]
fn the_knight_drill_succeeds_and_reports_its_figures() {
    require_root!();
    let directory = tempfile::TempDir::new().expect("a directory");
    let report = directory.path().join("report.json");
    let ran = Command::new(binary())
        .args(["drill", "--scenario", "knight", "--report"])
        .arg(&report)
        .output()
        .expect("running breaker");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");
    let figure = |what: &str| {
        let figures = report["figures"].as_array().expect("figures");
        let found = figures.iter().find(|figure| figure["what"] == what).expect(what);
        found["value"].as_f64().expect("a number")
    };
    // 212 in the morning, exactly N = 500 of the runaway, and 10 after the reset.
    assert_eq!(figure("orders that crossed"), 722.0);
    assert_eq!(figure("stale orders after the reset"), 0.0);
    assert_eq!(figure("orders written by the engine"), 722.0 + figure("orders withheld"));
    assert!(figure("order N+1 handed to TCP, to the trip in the kernel") > 0.0);
    let promises = report["promises"].as_array().expect("promises");
    assert!(promises.len() >= 9 && promises.iter().all(|promise| promise["kept"] == true), "{promises:?}");
    assert!(said.contains("every promise was kept"));
}
