//! An overflow of the event ring: every event without room or left out is counted. A connection table that
//! fills up.

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use breaker_common::abi::reason;
use rustix::process::Signal;

use crate::host::{Host, eventually, pin, privileged};

/// A segment with payload from this port to the session.
fn segment(port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 41, 0, 0, 0, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend(9001u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0, b'x']);
    frame
}

/// Runs the loaded program on a frame, `repeat` times.
fn send(host: &Host, frame: &[u8], repeat: u32) {
    host.inside(|| {
        let program = SchedClassifier::from_pin(pin("program")).expect("the program");
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        program.test_run(options).expect("running the program");
    });
}

#[test]
fn a_million_events_without_a_reader_are_each_logged_or_counted() {
    if !privileged() {
        return;
    }
    let host = Host::new("connections = 64\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n");
    let agent = host.agent();
    for port in 1..=64 {
        send(&host, &segment(port), 1);
    }
    let counted = |which| host.breaker(|breaker| breaker.reason(which).expect("a counter"));
    assert_eq!(counted(reason::TABLE_FULL), 0);
    assert_eq!(host.metric("breaker_connection_table_used"), Some(64.0));
    let level = |kind: &str| {
        let entries = host.entries(kind).into_iter().filter(|entry| entry.counts.get("size").is_some());
        entries
            .map(|entry| (entry.counts["used"].as_u64(), entry.counts["size"].as_u64()))
            .collect::<Vec<_>>()
    };
    for kind in ["table_filling", "table_full"] {
        host.wait_for(kind, 1);
        assert_eq!(level(kind), [(Some(64), Some(64))], "{kind}");
    }
    assert_eq!(host.metric("breaker_connection_table_size"), Some(64.0));
    // The table is full, so that each packet is one event.
    agent.signal(Signal::STOP);
    send(&host, &segment(100), 1_000_000);
    agent.signal(Signal::CONT);
    assert_eq!(counted(reason::TABLE_FULL), 1_000_000);
    let missing = || counted(reason::EVENT_LOST) + counted(reason::EVENT_LEFT_OUT);
    let lost = missing();
    assert!(lost > 900_000, "{lost}");

    let sum = |kind: &str, figure: &str| -> u64 {
        host.entries(kind).iter().map(|entry| entry.counts[figure].as_u64().unwrap_or(0)).sum()
    };
    let all_logged = || sum("events_lost", "lost") + sum("events_lost", "left_out");
    eventually(|| (sum("table_full", "events") + all_logged() == 1_000_000).then_some(()))
        .unwrap_or_else(|| panic!("{} and {}", sum("table_full", "events"), all_logged()));
    assert_eq!(all_logged(), lost);
    let metrics =
        ["breaker_events_lost_total", "breaker_events_left_out_total"].map(|name| host.metric(name));
    assert_eq!(metrics.into_iter().flatten().sum::<f64>(), lost as f64);
    assert!(host.entries("table_full").len() < 100, "a flood of packets does not flood the log");

    // Agents that are killed in between log each loss once.
    agent.kill();
    let agent = host.agent();
    host.wait_for("agent_started", 2);
    agent.kill();
    send(&host, &segment(100), 10_000);
    let agent = host.agent();
    let all = || sum("table_full", "events") + all_logged() == 1_010_000;
    eventually(|| all().then_some(())).expect("each of the later events");
    assert_eq!(all_logged(), missing());
    assert!(host.entries("events_lost").len() < 20, "a flood of events does not flood the log");
    agent.stop();
    host.verify();
}
