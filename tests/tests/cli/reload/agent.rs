//! The agent during reloads, and its own on SIGHUP.

use breaker_tests::cli::{self, scope};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::POLICY;

use super::{changed, events};

/// An agent on a host, stopped at the end of the test.
struct Agent(Child, String);

impl Agent {
    fn start(testbed: &Testbed, config: &str) -> Self {
        let mut command = cli::command();
        command
            .args(["agent", "--config", config])
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut agent = testbed.on_host(|| command.spawn().expect("starting an agent"));
        let mut ready = String::new();
        BufReader::new(agent.stdout.take().expect("its output")).read_line(&mut ready).expect("its line");
        Self(agent, ready)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a signal");
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.0.wait().expect("its end").success(), "{}", self.1);
    }
}

fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_agent_follows_reloads_of_the_command_line() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let config = testbed.config().display().to_string();
    let agent = Agent::start(&testbed, &config);
    let path = changed(&testbed, &[("name = \"x2\"", "name = \"x9\""), ("max = 5,", "max = 7,")]);
    testbed.cli(&format!("reload --config {path}")).expect_exit(0);
    let metrics = || testbed.shell("curl -s http://127.0.0.1:9469/metrics");
    let text =
        wait("the metrics of the new policy", || Some(metrics()).filter(|text| text.contains("session/x9")));
    assert!(!text.contains("session/x2"), "{text}");
    let limit =
        text.lines().find(|line| line.starts_with("breaker_limit{scope=\"session/x1\",class=\"order\""));
    assert!(limit.is_some_and(|line| line.ends_with(" 7")), "{limit:?}");
    testbed.switch("trip", "session/x9").expect_exit(0);
    let trips = "breaker_trips_total{scope=\"session/x9\",cause=\"manual\"} 1";
    wait("the trip", || metrics().lines().any(|line| line == trips).then_some(()));
    agent.stop();
    // An agent with the old file serves the policy in force, and reports the difference. With the new file
    // there is no difference.
    let agent = Agent::start(&testbed, &config);
    assert!(
        agent.1.contains("adopted policy") && agent.1.contains("THE FILE IS NOT IN FORCE"),
        "{}",
        agent.1
    );
    agent.stop();
    let agent = Agent::start(&testbed, &path);
    assert!(agent.1.contains("adopted policy") && !agent.1.contains("NOT IN FORCE"), "{}", agent.1);
    agent.stop();
}

#[test]
fn sighup_makes_the_agent_reload_its_file() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config().display().to_string();
    let first = std::fs::read_to_string(&config).expect("the configuration");
    let agent = Agent::start(&testbed, &config);
    let told = |kind: &str, count: usize| {
        wait(kind, || {
            let of: Vec<_> = events(&testbed).into_iter().filter(|event| event["kind"] == kind).collect();
            of.get(count - 1).cloned()
        })
    };
    std::fs::write(&config, first.replace("max = 5,", "max = 9,")).expect("another policy");
    agent.signal(Signal::HUP);
    let changed = told("policy_changed", 1);
    assert_eq!(changed["actor"]["via"], "agent");
    assert_eq!(changed["counts"]["loosened"], json!(["session/x1: 5 order per 2s becomes 9 order per 2s"]));
    // The line of the reload is logged before the policy is in force.
    wait("the new policy", || {
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
        let refused = told("policy_refused", n + 1);
        assert!(refused["counts"]["found"].as_str().is_some_and(|text| text.contains(found)), "{refused}");
    }
    assert_eq!(
        scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["limits"][0]["max"],
        9
    );
    agent.stop();
}
