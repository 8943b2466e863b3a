//! The agent during reloads, and its own on SIGHUP.

use breaker_tests::agent::Agent;
use breaker_tests::cli::scope;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::testbed::wait_for;
use rustix::process::Signal;
use serde_json::json;

use super::{changed, events};
use crate::POLICY;

#[test]
fn the_agent_follows_reloads_of_the_command_line() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let config = testbed.config().display().to_string();
    let agent = Agent::with_config(&testbed, config.as_ref());
    let path = changed(&testbed, &[("name = \"x2\"", "name = \"x9\""), ("max = 5,", "max = 7,")]);
    testbed.cli(&format!("reload --config {path}")).expect_exit(0);
    let metrics = || testbed.shell("curl -s http://127.0.0.1:9469/metrics");
    let text = wait_for("the metrics of the new policy", || {
        Some(metrics()).filter(|text| text.contains("session/x9"))
    });
    assert!(!text.contains("session/x2"), "{text}");
    let limit =
        text.lines().find(|line| line.starts_with("breaker_limit{scope=\"session/x1\",class=\"order\""));
    assert!(limit.is_some_and(|line| line.ends_with(" 7")), "{limit:?}");
    testbed.switch("trip", "session/x9").expect_exit(0);
    let trips = "breaker_trips_total{scope=\"session/x9\",cause=\"manual\"} 1";
    wait_for("the trip", || metrics().lines().any(|line| line == trips).then_some(()));
    agent.stop();
    // An agent with the old file serves the policy in force, and reports the difference. With the new file
    // there is no difference.
    let agent = Agent::with_config(&testbed, config.as_ref());
    assert!(
        agent.ready.contains("adopted policy") && agent.ready.contains("THE FILE IS NOT IN FORCE"),
        "{}",
        agent.ready
    );
    agent.stop();
    let agent = Agent::with_config(&testbed, path.as_ref());
    assert!(
        agent.ready.contains("adopted policy") && !agent.ready.contains("NOT IN FORCE"),
        "{}",
        agent.ready
    );
    agent.stop();
}

#[test]
fn sighup_makes_the_agent_reload_its_file() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config().display().to_string();
    let first = std::fs::read_to_string(&config).expect("the configuration");
    let agent = Agent::with_config(&testbed, config.as_ref());
    let wait_for_events = |kind: &str, count: usize| {
        wait_for(kind, || {
            let of: Vec<_> = events(&testbed).into_iter().filter(|event| event["kind"] == kind).collect();
            of.get(count - 1).cloned()
        })
    };
    std::fs::write(&config, first.replace("max = 5,", "max = 9,")).expect("another policy");
    agent.signal(Signal::HUP);
    let changed = wait_for_events("policy_changed", 1);
    assert_eq!(changed["actor"]["via"], "agent");
    assert_eq!(changed["counts"]["loosened"], json!(["session/x1: 5 order per 2s becomes 9 order per 2s"]));
    // The line of the reload is logged before the policy is in force.
    wait_for("the new policy", || {
        let status = testbed.cli("status --json").expect_exit(0).json();
        let now = (&status["policy"]["sha256"], &status["agent"]["running"]);
        (now == (&changed["counts"]["sha256"], &json!(true))).then_some(())
    });
    // An invalid file, a change that needs a load, and a loosening while tripped: the last valid policy
    // stays.
    testbed.switch("trip", "session/x1").expect_exit(0);
    let refusals = [
        (first.replace("max = 5,", "max = 0,"), "the configuration is refused"),
        (first.replace("[\"eth1\"]", "[\"eth1\"]\nconnections = 4096"), "[host].connections is"),
        (first.replace("max = 5,", "max = 10,"), "session/x1 is tripped, and it would loosen"),
    ];
    for (n, (text, found)) in refusals.iter().enumerate() {
        std::fs::write(&config, text).expect("a file");
        agent.signal(Signal::HUP);
        let refused = wait_for_events("policy_refused", n + 1);
        assert!(refused["counts"]["found"].as_str().is_some_and(|text| text.contains(found)), "{refused}");
    }
    assert_eq!(
        scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["limits"][0]["max"],
        9
    );
    agent.stop();
}
