//! `breaker top` in a real terminal and without one.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use breaker_tests::agent::Agent;
use breaker_tests::command::command;
use breaker_tests::frame::order;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_tests::tmux::{PROMPT, Tmux};
use breaker_tests::{require_root, slowness};
use serde_json::Value;

use super::POLICY;

const IN_FORCE: &str = "IN FORCE: every scope is armed and none is tripped";

#[test]
fn top_shows_a_trip_within_a_second_and_restores_the_terminal() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let agent = Agent::start(&testbed);
    let tmux = Tmux::start(&testbed);
    tmux.line("breaker top");
    let screen = tmux.wait_for(IN_FORCE);
    for text in ["agent running", "host", "group/desk", "  x1", "  x2", "order/1s", "EVENTS", "agent_started"]
    {
        assert!(screen.contains(text), "{text}: {screen}");
    }
    let _receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    (1..=5).for_each(|n| stream.write_all(&order(n)).expect("sending"));
    tmux.wait_for("5/5");
    let start = Instant::now();
    stream.write_all(&order(6)).expect("sending");
    tmux.wait_for("TRIPPED: session/x1 (rate)");
    let took = start.elapsed();
    println!("the trip was shown after {took:?}");
    assert!(took < Duration::from_secs(1) * slowness(), "{took:?}");
    tmux.wait_for("tripped session/x1 (rate) by kernel");

    tmux.line("/x2");
    let screen = tmux.wait_for("filter: x2");
    assert!(!screen.contains("  x1 "), "{screen}");
    assert!(screen.contains("TRIPPED: session/x1"), "{screen}");
    tmux.keys(&["Escape"]);
    tmux.wait_for("  x1 ");
    tmux.keys(&["Down", "Down", "Enter"]);
    let screen = tmux.wait_for("CONNECTIONS: 0 live, 0 blind, 1 fenced");
    for text in [
        "session/x1: TRIPPED (rate), armed, epoch 1",
        "last trip by the kernel",
        "6 in the",
        "window of 5 order per 2s",
        "5 order per 2s",
        "group/desk",
        "fenced  10.9.0.1:",
    ] {
        assert!(screen.contains(text), "{text}: {screen}");
    }
    tmux.keys(&["Escape", "Left"]);
    tmux.wait_for("s AGO, states of now");
    tmux.keys(&["q"]);
    tmux.expect_restored();
    agent.stop();
}

#[test]
fn a_detached_program_is_shown_first() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.switch("disarm", "session/x2").expect_exit(0);
    let tmux = Tmux::start(&testbed);
    tmux.line("breaker top");
    tmux.wait_for("DISARMED: session/x2");
    testbed.shell("ip link del eth1");
    let screen = tmux.wait_for("DETACHED: eth1: detached: nothing is enforced there");
    assert!(screen.find("DETACHED") < screen.find("DISARMED: session/x2"), "{screen}");
    tmux.line("p");
    tmux.wait_for("to do: `breaker attach` puts the program back");
    tmux.keys(&["q"]);
    tmux.expect_restored();
}

#[test]
fn top_continues_the_history_of_the_agent() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let agent = Agent::start(&testbed);
    std::thread::sleep(Duration::from_secs(4));
    let tmux = Tmux::start(&testbed);
    tmux.line("breaker top");
    tmux.wait_for(IN_FORCE);
    // Without the agent's history, three seconds ago are not known yet.
    tmux.keys(&["[", "[", "["]);
    tmux.wait_for("RATES OF 3 s AGO");
    agent.stop();
    tmux.wait_for("AGENT ABSENT: last seen");
    tmux.keys(&["q"]);
    tmux.expect_restored();
}

#[test]
fn top_trips_only_with_act_and_after_the_name_was_typed() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let tmux = Tmux::start(&testbed);
    tmux.line("breaker top");
    tmux.wait_for("AGENT ABSENT: none has run since the load");
    tmux.keys(&["Down", "t"]);
    tmux.wait_for("read-only: start `breaker top --act`");
    tmux.keys(&["q"]);
    tmux.expect_restored();
    tmux.line("breaker top --act");
    tmux.wait_for("t trip");
    tmux.keys(&["Down", "t"]);
    tmux.wait_for("Trip group/desk? Type its name");
    tmux.line("group/des");
    tmux.wait_for("group/desk is not tripped: \"group/des\" was typed");
    assert_eq!(testbed.tripped(), [""; 0]);
    tmux.keys(&["t"]);
    tmux.line("group/desk");
    tmux.wait_for("Reason for tripping group/desk");
    tmux.line("quote loop");
    tmux.wait_for("TRIPPED: group/desk (manual)");
    tmux.wait_for("group/desk: TRIPPED (manual), armed, epoch 1; connections ended: 0");
    assert_eq!(testbed.tripped(), ["group/desk"]);
    let log = fs::read_to_string(testbed.audit()).expect("the log");
    let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&line["kind"], &line["reason"]), (&"tripped".into(), &"quote loop".into()), "{line}");
    tmux.keys(&["q"]);
    tmux.expect_restored();
}

#[test]
fn the_terminal_is_restored_after_a_signal() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let tmux = Tmux::start(&testbed);
    let file = testbed.config().with_file_name("pid");
    for signal in ["TERM", "INT", "HUP"] {
        tmux.line(&format!("clear; sh -c 'echo $$ > {}; exec breaker top'", file.display()));
        tmux.wait_for("AGENT ABSENT");
        assert!(tmux.is_alternate());
        let pid = fs::read_to_string(&file).expect("a process number");
        testbed.shell(&format!("kill -{signal} {pid}"));
        tmux.expect_restored();
    }
}

#[test]
fn the_terminal_is_restored_after_a_panic() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let tmux = Tmux::start(&testbed);
    tmux.line(&format!("{}; echo code=$?", env!("CARGO_BIN_EXE_panic_on_screen")));
    wait_for("the alternate screen", || tmux.is_alternate().then_some(()));
    let screen = tmux.wait_for("code=1");
    assert!(screen.contains("a panic in a thread") && screen.contains(PROMPT), "{screen}");
    tmux.expect_restored();
}

#[test]
fn an_unload_is_shown_and_a_later_load_too() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let tmux = Tmux::start(&testbed);
    tmux.line("breaker top");
    tmux.wait_for("AGENT ABSENT");
    testbed.cli("unload").expect_exit(0);
    let screen = tmux.wait_for("NO STATE: ");
    assert!(screen.contains("group/desk"), "{screen}");
    testbed.load_policy();
    wait_for("the new load", || (!tmux.screen().contains("NO STATE")).then_some(()));
    tmux.keys(&["q"]);
    tmux.expect_restored();
}

#[test]
fn once_prints_a_screen_and_json_a_document_a_second() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    let output = testbed.cli("top --once").expect_exit(0);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 24, "{output:#?}");
    assert_eq!(lines[1], "TRIPPED: session/x1 (manual)", "{output:#?}");
    assert!(lines[4].starts_with("host") && lines[4].contains(" 0/5000 "), "{output:#?}");
    assert!(!output.stdout.contains('\x1b'), "{output:#?}");

    let document = testbed.cli("top --once --json").expect_exit(0).json();
    assert_eq!(document["scopes"][3]["scope"], "session/x1");
    assert_eq!(document["scopes"][3]["tripped"], true);
    assert_eq!(document["sessions"][1]["name"], "x1");
    assert_eq!(document["sessions"][1]["groups"], serde_json::json!(["desk"]));
    assert_eq!(document["sessions"][1]["order_per_s"], 0);
    assert_eq!(document["agent"]["running"], false);
    assert_eq!(document["enforced"]["ok"], true);

    let run = || command().args(["top", "--json"]).stdout(Stdio::piped()).spawn();
    let mut top = testbed.on_host(run).expect("starting top");
    let mut documents = BufReader::new(top.stdout.take().expect("its output")).lines();
    let mut next = || -> Value {
        serde_json::from_str(&documents.next().expect("a line").expect("a line")).expect("JSON")
    };
    let first = next();
    testbed.trip("session/x2");
    let start = Instant::now();
    let second = next();
    let third = next();
    assert!(start.elapsed() < Duration::from_secs(3) * slowness(), "{:?}", start.elapsed());
    assert_eq!(first["scopes"][4]["tripped"], false);
    assert_eq!(third["scopes"][4]["tripped"], true);
    let kinds: Vec<_> =
        [&second, &third].into_iter().flat_map(|one| one["events"].as_array()).flatten().collect();
    assert!(
        kinds.iter().any(|event| event["kind"] == "tripped" && event["scope"] == "session/x2"),
        "{kinds:?}"
    );
    top.kill().expect("ending top");
    top.wait().expect("its end");
}

#[test]
fn top_refuses_what_it_cannot_show() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.cli("top --once").expect_exit(3).expect_stderr("load first");
    testbed.load_policy();
    let found = "standard output is not a terminal: use --once or --json";
    testbed.cli("top").expect_exit(2).expect_stderr(found);
    testbed.cli("top --act --json").expect_exit(2);
}
