//! Warnings stay until someone acknowledges them.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use breaker_tests::agent::{Agent, metrics};
use breaker_tests::frame::order;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use serde_json::Value;

/// A session that warns at half of its limit.
const POLICY: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
limits = [{ class = "order", max = 4, per = "1s", warn = [50] }]
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
"#;

/// The warnings in `status`: scope, limit and level.
fn warnings(testbed: &Testbed) -> Vec<(String, String, u64)> {
    let status = testbed.cli("status --json").json();
    let text = |warning: &Value, key: &str| warning[key].as_str().expect("a text").to_owned();
    let all = status["warnings"].as_array().expect("warnings").iter();
    all.map(|one| (text(one, "scope"), text(one, "limit"), one["level"].as_u64().expect("a level"))).collect()
}

/// The value of the metric of x1 with this name.
fn metric(testbed: &Testbed, name: &str) -> Option<f64> {
    let series = format!("{name}{{scope=\"session/x1\",class=\"order\",per=\"1s\"}} ");
    metrics(testbed).lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

/// Sends two orders, which is half of the limit.
fn warn(stream: &mut TcpStream) {
    (1..=2).for_each(|n| stream.write_all(&order(n)).expect("sending"));
}

#[test]
fn a_warning_stays_until_someone_acknowledges_it() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let agent = Agent::start(&testbed);
    testbed.cli("ack session/x1 --reason early").expect_exit(4).expect_stderr("it has no warning");
    let _receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    warn(&mut stream);
    let expected = [("session/x1".to_owned(), "4 order per 1s".to_owned(), 1)];
    wait_for("the warning", || (warnings(&testbed) == expected).then_some(()));
    // After the interval the window is empty, and the warning stays.
    let used = || testbed.scope("session/x1").limits[0].used;
    wait_for("an empty window", || (used() == 0).then_some(()));
    assert_eq!(warnings(&testbed), expected);
    assert_eq!(metric(&testbed, "breaker_warning"), Some(1.0));
    let age = metric(&testbed, "breaker_warning_age_seconds").expect("an age");
    assert!((0.5..60.0).contains(&age), "{age}");
    let screen = testbed.cli("top --once").expect_exit(0).stdout;
    assert!(screen.contains("WARNED: session/x1 (level 1, 2 used of 4 order per 1s"), "{screen}");
    let table = testbed.cli("status").expect_exit(0).stdout;
    assert!(table.contains("`breaker ack session/x1`"), "{table}");

    // A restart of the agent loses nothing, and without an agent the warning is still shown.
    agent.stop();
    assert_eq!(warnings(&testbed), expected);
    let agent = Agent::start(&testbed);
    assert_eq!(metric(&testbed, "breaker_warning"), Some(1.0));
    testbed.cli("ack session/x2 --reason other").expect_exit(4);
    let output = testbed.cli("ack session/x1 --reason seen").expect_exit(0);
    assert!(output.stdout.ends_with("; acknowledged: 4 order per 1s\n"), "{output:?}");
    assert_eq!(warnings(&testbed), []);
    let log = fs::read_to_string(testbed.audit()).expect("the log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let line = lines.iter().rfind(|line| line["kind"] == "acknowledged").expect("an event");
    assert_eq!((&line["scope"], &line["reason"]), (&"session/x1".into(), &"seen".into()), "{line}");
    assert_eq!(line["counts"]["warnings"][0]["limit"], "4 order per 1s");
    wait_for("the metric", || (metric(&testbed, "breaker_warning") == Some(0.0)).then_some(()));
    assert_eq!(metric(&testbed, "breaker_warning_age_seconds"), None);
    // A later warning is a new one.
    warn(&mut stream);
    wait_for("the next warning", || (warnings(&testbed) == expected).then_some(()));
    agent.stop();
    testbed.cli("ack session/x1 --reason again").expect_exit(0);
    assert_eq!(warnings(&testbed), []);
    let agent = Agent::start(&testbed);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(warnings(&testbed), []);
    agent.stop();
}
