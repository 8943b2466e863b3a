//! The dead man's switch: an agent falls silent, and the kernel acts at the next message, with no process
//! alive.

use std::io::{Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::agent::Agent;
use breaker_tests::frame::{message, order};
use breaker_tests::receiver::{End, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// Time that the agent may be silent.
const AFTER: Duration = Duration::from_millis(300);
/// Tolerance of the kernel's decision: two ticks of its coarse clock at 250 Hz, and 2 ms.
const LATE: Duration = Duration::from_millis(10);
/// Interval between two messages, as far as this host keeps to it.
const SPACING: Duration = Duration::from_millis(1);

fn policy(action: &str) -> String {
    format!(
        r#"
deadman = {{ after = "{}ms", action = "{action}" }}
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
"#,
        AFTER.as_millis()
    )
}

/// CLOCK_MONOTONIC, the clock of the heartbeat and of the kernel program.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time of the last heartbeat.
fn last_heartbeat(testbed: &Testbed) -> Duration {
    Duration::from_nanos(
        testbed.with_breaker(|breaker| {
            breaker.maps().heartbeat().expect("the map").get(0).expect("a heartbeat")
        }),
    )
}

/// Time of the host's trip, on the kernel's clock.
fn tripped_at(testbed: &Testbed) -> Duration {
    let host = testbed
        .with_breaker(|breaker| breaker.scope(breaker.find("host").expect("the host")).expect("its state"));
    Duration::from_nanos(host.trip.at_ns)
}

/// Kind and scope of each event on the silence.
fn deadman_events(testbed: &Testbed) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = |event: &Value| event["cause"] == "deadman";
    testbed
        .events()
        .iter()
        .filter(|event| about(event))
        .map(|event| (text(&event["kind"]), text(&event["scope"])))
        .collect()
}

/// Sends an order every millisecond until the connection dies or the time is over. Returns whether the
/// connection died, and the longest interval between two orders.
fn send_for(connection: &mut TcpConnection, time: Duration) -> (bool, Duration) {
    let (until, mut last, mut widest) = (Instant::now() + time, Instant::now(), Duration::ZERO);
    let mut id = 0;
    while Instant::now() < until {
        if !connection.try_send(&order(id)) {
            return (true, widest);
        }
        sleep(SPACING);
        widest = widest.max(last.elapsed());
        (id, last) = (id + 1, Instant::now());
    }
    (false, widest)
}

/// Signals that kill or stop the agent.
const SIGNALS: [Signal; 2] = [Signal::KILL, Signal::STOP];

#[test]
fn a_killed_or_stopped_agent_trips_the_host_in_time() {
    require_root!();
    for end in SIGNALS {
        let testbed = Testbed::load(&policy("trip"));
        let receiver = testbed.listen(9001);
        let agent = Agent::start(&testbed);
        let mut connection = receiver.connect(&testbed);
        let (dead, _) = send_for(&mut connection, 3 * AFTER);
        assert!(!dead && testbed.causes("host").is_empty(), "an agent that lives trips nothing");
        agent.signal(end);
        let (dead, widest) = send_for(&mut connection, 10 * AFTER);
        assert!(dead, "the sender sees the reset");
        let took = tripped_at(&testbed) - last_heartbeat(&testbed);
        println!("{end:?}: tripped {took:?} after the last heartbeat; orders at most {widest:?} apart");
        assert!(
            took > AFTER - LATE && took <= AFTER + LATE + widest,
            "{took:?}, with {widest:?} between two orders"
        );
        // The venue sees the reset too, and has complete orders only.
        let received = connection.wait_for_reset();
        assert_eq!((received.complete("D"), received.end), (received.count("D"), End::Reset));
        assert_eq!((testbed.causes("host"), testbed.causes("session/x1")), (vec!["deadman"], vec![]));
        assert_eq!(received.complete("D") as u64, testbed.counters(1).passed[0]);
        assert_eq!(testbed.status().packets["deadman"], 1);
        drop(agent);
        assert_eq!(
            deadman_events(&testbed),
            [("warned", "host"), ("tripped", "host")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}

#[test]
fn a_reset_is_refused_until_the_agent_is_back() {
    require_root!();
    let testbed = Testbed::load(&policy("trip"));
    let receiver = testbed.listen(9001);
    let agent = Agent::start(&testbed);
    let mut connection = receiver.connect(&testbed);
    // An agent that is stopped while it writes its first lines would keep the log locked.
    assert!(!send_for(&mut connection, 2 * AFTER).0);
    agent.signal(Signal::STOP);
    assert!(send_for(&mut connection, 10 * AFTER).0);
    connection.wait_for_reset();
    let refused = testbed.cli("reset host --reason test");
    refused.expect_exit(4).expect_stderr("silent");
    assert_eq!(testbed.causes("host"), ["deadman"]);
    // While the host is tripped, messages that reduce risk pass, and the silence is no further cause.
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&message("FIX.4.4", "F", b"11=C-1\x0141=R-1\x01"));
    agent.signal(Signal::CONT);
    sleep(AFTER);
    testbed.reset("host");
    let mut connection = receiver.connect(&testbed);
    assert!(!send_for(&mut connection, 2 * AFTER).0);
    assert_eq!(testbed.causes("host"), [""; 0]);
    // Each silence has its own event.
    agent.signal(Signal::STOP);
    assert!(send_for(&mut connection, 10 * AFTER).0);
    drop(agent);
    let kinds: Vec<_> = deadman_events(&testbed).into_iter().map(|(kind, _)| kind).collect();
    // The verb writes to the log at once. The kernel's events wait in the ring until the agent continues.
    assert_eq!(kinds, ["reset_refused", "warned", "tripped", "reset", "warned", "tripped"]);
}

#[test]
fn with_action_warn_every_order_passes_and_each_silence_has_one_event() {
    require_root!();
    // A disarmed host has the events too.
    for keys in [policy("warn"), policy("trip")] {
        let testbed = Testbed::load(&keys);
        if keys.contains("trip") {
            testbed.cli("disarm host --reason test").expect_exit(0);
        }
        let receiver = testbed.listen(9001);
        let agent = Agent::start(&testbed);
        let mut connection = receiver.connect(&testbed);
        let mut silences = 0;
        for _ in 0..2 {
            agent.signal(Signal::STOP);
            assert!(!send_for(&mut connection, 3 * AFTER).0);
            agent.signal(Signal::CONT);
            silences += 1;
            assert!(!send_for(&mut connection, AFTER).0);
        }
        assert_eq!((testbed.causes("host"), testbed.counters(1).withheld), (vec![], [0; 5]));
        drop(agent);
        let events = deadman_events(&testbed);
        assert_eq!(events, vec![("warned".to_owned(), "host".to_owned()); silences], "{keys}");
    }
}

#[test]
fn without_an_agent_the_time_counts_from_the_load() {
    require_root!();
    let before = now();
    let testbed = Testbed::load(&policy("trip"));
    let loaded = last_heartbeat(&testbed);
    assert!(loaded > before && loaded < now(), "the load is the first sign of life");
    assert!(!testbed.status().agent.running && testbed.status().agent.heartbeat_age_ms.is_none());
    let receiver = testbed.listen(9001);
    let mut connection = receiver.connect(&testbed);
    let (dead, widest) = send_for(&mut connection, 10 * AFTER);
    assert!(dead);
    connection.wait_for_reset();
    let took = tripped_at(&testbed) - loaded;
    println!("never started: tripped {took:?} after the load; orders at most {widest:?} apart");
    assert!(took > AFTER - LATE && took <= AFTER + LATE + widest, "{took:?}");
    assert_eq!(testbed.causes("host"), ["deadman"]);
    assert_eq!(testbed.cli("reset host --reason test").exit_code, Some(4));
    // The switch waits for a first agent.
    let _agent = Agent::start(&testbed);
    testbed.reset("host");
    connection = receiver.connect(&testbed);
    connection.send_and_wait(&order(1));
}

#[test]
fn only_a_message_triggers_the_dead_mans_switch() {
    require_root!();
    // Another application's traffic does not trip either: the next message does.
    let testbed = Testbed::load(&policy("trip"));
    let receiver = testbed.listen(9001);
    let other = testbed.listen(9005);
    let mut connection = receiver.connect(&testbed);
    let (head, rest) = (order(1)[..40].to_vec(), order(1)[40..].to_vec());
    connection.send_and_wait(&head);
    sleep(2 * AFTER);
    // The rest of a message that has begun, a handshake, and bytes of another application.
    connection.send_and_wait(&rest);
    let mut second = receiver.connect(&testbed);
    let mut theirs = other.connect(&testbed);
    theirs.send_and_wait(b"hello");
    assert_eq!(testbed.causes("host"), [""; 0]);
    second.try_send(&message("FIX.4.4", "0", b""));
    second.wait_for_reset();
    assert_eq!(testbed.causes("host"), ["deadman"]);
    theirs.send_and_wait(b"still here");
    let mut buffer = [0; 1];
    theirs.stream.set_nonblocking(true).expect("not waiting");
    assert!(
        theirs.stream.read(&mut buffer).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
    theirs.stream.flush().expect("a connection that lives");
}
