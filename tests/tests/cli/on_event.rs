//! The program that the agent runs for events.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use breaker_tests::agent::{Agent, metrics};
use breaker_tests::frame::order;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use super::POLICY;

/// A testbed whose agent runs a program.
struct Host {
    testbed: Testbed,
}

impl Host {
    /// A program that is a shell script. `keys` are further keys of `[agent]`.
    fn new(script: &str, keys: &str) -> Self {
        let host = Self { testbed: Testbed::unloaded(POLICY) };
        let path = host.path("program");
        let script = script.replace("OUT", &host.path("out").display().to_string());
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writing a program");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("making it executable");
        host.set_keys(&format!("on_event = [{path:?}]\n{keys}"));
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.testbed.config().with_file_name(name)
    }

    /// Sets keys of `[agent]` in the configuration.
    fn set_keys(&self, keys: &str) {
        let text = fs::read_to_string(self.testbed.config()).expect("the configuration");
        let old = text.split_once("[agent]\n").expect("[agent]").1;
        let old = old.split_once("audit = ").expect("audit").1;
        fs::write(self.testbed.config(), format!("[agent]\n{keys}\naudit = {old}")).expect("writing it");
    }

    /// What the program has written.
    fn out(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("out")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits for an event of a kind in the log.
    #[track_caller]
    fn wait_for_event(&self, kind: &str) -> Value {
        wait_for(kind, || {
            let text = fs::read_to_string(self.testbed.audit()).ok()?;
            let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.rfind(|line| line["kind"] == kind)
        })
    }
}

#[test]
fn the_program_runs_for_events_of_verbs_and_of_the_kernel() {
    require_root!();
    let host = Host::new("cat >> OUT", "notify = [\"tripped\", \"armed\"]");
    let agent = Agent::start(&host.testbed);
    host.testbed.trip("group/desk");
    host.testbed.reset("group/desk");
    let _receiver = host.testbed.listen(9001);
    let mut stream = host.testbed.connect(9001);
    (1..=6).for_each(|n| stream.write_all(&order(n)).expect("sending"));
    let events = wait_for("two events", || Some(host.out()).filter(|events| events.len() == 2));
    let found: Vec<_> =
        events.iter().map(|event| [&event["kind"], &event["scope"], &event["cause"]]).collect();
    assert_eq!(found, [["tripped", "group/desk", "manual"], ["tripped", "session/x1", "rate"]]);
    assert_eq!(events[0]["reason"], "test");
    assert_eq!(events[1]["counts"]["limit"], "5 order per 2s");
    // The program gets the line of the log.
    let log = fs::read_to_string(host.testbed.audit()).expect("the log");
    let seq = events[1]["seq"].as_u64().expect("a number") as usize;
    let line: Value = serde_json::from_str(log.lines().nth(seq - 1).expect("the line")).expect("JSON");
    assert_eq!(line["time"], events[1]["time"]);
    agent.stop();
}

#[test]
fn a_program_that_hangs_is_killed_and_delays_neither_a_trip_nor_the_heartbeat() {
    require_root!();
    let host = Host::new("echo $$ > OUT; sleep 600 & wait", "notify = [\"tripped\"]");
    let agent = Agent::start(&host.testbed);
    let start = Instant::now();
    host.testbed.trip("session/x2");
    wait_for("the program", || fs::read_to_string(host.path("out")).ok().filter(|text| text.ends_with('\n')));
    let _receiver = host.testbed.listen(9001);
    let mut stream = host.testbed.connect(9001);
    (1..=6).for_each(|n| stream.write_all(&order(n)).expect("sending"));
    wait_for("the trip", || (host.testbed.causes("session/x1") == ["rate"]).then_some(()));
    while start.elapsed() < Duration::from_secs(8) {
        let status = host.testbed.cli("status --json").json();
        assert!(status["agent"]["heartbeat_age_ms"].as_u64().expect("an age") < 1000, "{}", status["agent"]);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(!metrics(&host.testbed).contains("breaker_notify_failures_total 1"));
    let failed = host.wait_for_event("notify_failed");
    assert_eq!(failed["counts"]["found"], "it was killed after 10 s", "{failed}");
    assert_eq!(
        (&failed["counts"]["event"], &failed["counts"]["scope"]),
        (&"tripped".into(), &"session/x2".into())
    );
    assert!(metrics(&host.testbed).contains("\nbreaker_notify_failures_total 1\n"));
    // The second trip waited, and its program runs now. The agent ends with its program.
    wait_for("the second run", || {
        let pid = fs::read_to_string(host.path("out")).ok()?;
        fs::exists(format!("/proc/{}", pid.trim())).ok()?.then_some(())
    });
    let pid = fs::read_to_string(host.path("out")).expect("a process number");
    agent.stop();
    wait_for("the end of the program", || (!fs::exists(format!("/proc/{}", pid.trim())).ok()?).then_some(()));
}

#[test]
fn a_program_that_cannot_run_is_an_event_and_a_reload_replaces_it() {
    require_root!();
    let host = Host::new("cat >> OUT", "");
    let program = host.path("program");
    fs::rename(&program, host.path("other")).expect("renaming the program");
    let agent = Agent::start(&host.testbed);
    host.testbed.trip("session/x1");
    let failed = host.wait_for_event("notify_failed");
    let found = failed["counts"]["found"].as_str().expect("a text");
    assert!(found.starts_with("it cannot be started: No such file"), "{failed}");
    host.set_keys(&format!("on_event = [{:?}]\nnotify = [\"armed\"]", host.path("other")));
    agent.signal(Signal::HUP);
    host.wait_for_event("policy_changed");
    std::thread::sleep(Duration::from_millis(500));
    host.testbed.switch("arm", "session/x1").expect_exit(0);
    let events = wait_for("an event", || Some(host.out()).filter(|events| !events.is_empty()));
    assert_eq!((events.len(), &events[0]["kind"]), (1, &"armed".into()));
    agent.stop();
}

#[test]
fn an_event_reaches_the_program_while_the_log_cannot_be_written() {
    require_root!();
    let host = Host::new("cat >> OUT", "notify = [\"tripped\"]");
    let agent = Agent::start(&host.testbed);
    host.wait_for_event("agent_started");
    let log = host.testbed.audit().display().to_string();
    host.testbed.shell(&format!("mv {log} {log}.kept && mkdir {log}"));
    let _receiver = host.testbed.listen(9001);
    let mut stream = host.testbed.connect(9001);
    (1..=6).for_each(|n| stream.write_all(&order(n)).expect("sending"));
    let events = wait_for("the event", || Some(host.out()).filter(|events| !events.is_empty()));
    assert_eq!((&events[0]["scope"], &events[0]["seq"]), (&"session/x1".into(), &0.into()));
    host.testbed.shell(&format!("rmdir {log} && mv {log}.kept {log}"));
    host.wait_for_event("tripped");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(host.out().len(), 1);
    agent.stop();
}
