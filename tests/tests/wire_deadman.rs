//! The dead man: an agent that falls silent, and what the kernel makes of it at the next message, with no process alive.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::frame::{message, order};
use breaker_tests::privileged;
use breaker_tests::rig::{self, Rig};
use breaker_tests::sink::{End, Line, Sink};
use breaker_user::testbed::TwoHosts;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// How long the agent may be silent.
const AFTER: Duration = Duration::from_millis(300);
/// How much later the kernel may find out: two ticks of its coarse clock at 250 Hz, and 2 ms more.
const LATE: Duration = Duration::from_millis(10);
/// Messages follow each other this closely, as far as this host keeps to it.
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

/// An agent, killed where it is still there at the end.
struct Agent(Child);

impl Agent {
    fn start(rig: &Rig) -> Self {
        let mut command = rig::command();
        command.args(["agent", "--config"]).arg(rig.config()).env_remove("NOTIFY_SOCKET");
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut agent = rig.inside(|| command.spawn().expect("starting an agent"));
        let mut ready = String::new();
        BufReader::new(agent.stdout.take().expect("its output")).read_line(&mut ready).expect("its line");
        assert!(!ready.is_empty(), "the agent is ready");
        Self(agent)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a signal");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CLOCK_MONOTONIC: that of the heartbeat and of the kernel program.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The last heartbeat.
fn beat(rig: &Rig) -> Duration {
    Duration::from_nanos(
        rig.breaker(|breaker| breaker.maps().heartbeat().expect("the map").get(0).expect("a heartbeat")),
    )
}

/// When the host tripped, by the kernel's own clock.
fn tripped_at(rig: &Rig) -> Duration {
    let host =
        rig.breaker(|breaker| breaker.scope(breaker.find("host").expect("the host")).expect("its state"));
    Duration::from_nanos(host.trip.at_ns)
}

fn causes(rig: &Rig, name: &str) -> Vec<&'static str> {
    rig.status().scopes.into_iter().find(|scope| scope.scope == name).expect("the scope").causes
}

/// What was told of the silence: kind and scope of each.
fn told(rig: &Rig) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = |line: &Value| line["cause"] == "deadman";
    rig.told()
        .iter()
        .filter(|line| about(line))
        .map(|line| (text(&line["kind"]), text(&line["scope"])))
        .collect()
}

fn listen(rig: &Rig) -> Sink {
    Sink::listen(&rig.wire.venue, TwoHosts::venue_socket(9001))
}

/// Sends an order every millisecond until the connection dies, or a time is over. Returns the longest that two of them were apart.
fn send_for(line: &mut Line, time: Duration) -> (bool, Duration) {
    let (until, mut last, mut widest) = (Instant::now() + time, Instant::now(), Duration::ZERO);
    let mut id = 0;
    while Instant::now() < until {
        if !line.offer(&order(id)) {
            return (true, widest);
        }
        sleep(SPACING);
        widest = widest.max(last.elapsed());
        (id, last) = (id + 1, Instant::now());
    }
    (false, widest)
}

/// Kills the agent, or stops it.
const ENDS: [Signal; 2] = [Signal::KILL, Signal::STOP];

#[test]
fn an_agent_that_is_killed_or_stopped_trips_the_host_after_that_time_and_no_later() {
    if !privileged() {
        return;
    }
    for end in ENDS {
        let rig = Rig::new(&policy("trip"));
        let sink = listen(&rig);
        let agent = Agent::start(&rig);
        let mut line = sink.connect(&rig.wire.firm);
        let (dead, _) = send_for(&mut line, 3 * AFTER);
        assert!(!dead && causes(&rig, "host").is_empty(), "an agent that lives trips nothing");
        agent.signal(end);
        let (dead, widest) = send_for(&mut line, 10 * AFTER);
        assert!(dead, "the sender is told");
        let took = tripped_at(&rig) - beat(&rig);
        println!("{end:?}: tripped {took:?} after the last heartbeat; orders at most {widest:?} apart");
        assert!(
            took > AFTER - LATE && took <= AFTER + LATE + widest,
            "{took:?}, with {widest:?} between two orders"
        );
        // The venue too; and what it has is whole.
        let came = line.reset();
        assert_eq!((came.whole("D"), came.end), (came.count("D"), End::Reset));
        assert_eq!((causes(&rig, "host"), causes(&rig, "session/x1")), (vec!["deadman"], vec![]));
        assert_eq!(came.whole("D") as u64, rig.counters(1).passed[0]);
        assert_eq!(rig.status().packets["deadman"], 1);
        drop(agent);
        assert_eq!(
            told(&rig),
            [("warned", "host"), ("tripped", "host")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}

#[test]
fn a_reset_is_refused_while_it_is_silent_and_works_once_it_is_back() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&policy("trip"));
    let sink = listen(&rig);
    let agent = Agent::start(&rig);
    let mut line = sink.connect(&rig.wire.firm);
    // One that is stopped while it writes its first lines keeps the log from everybody else.
    assert!(!send_for(&mut line, 2 * AFTER).0);
    agent.signal(Signal::STOP);
    assert!(send_for(&mut line, 10 * AFTER).0);
    line.reset();
    let refused = rig.cli(&["reset", "host", "--reason", "test"]);
    let found = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), causes(&rig, "host")), (Some(4), vec!["deadman"]), "{found}");
    assert!(found.contains("silent"), "{found}");
    // While it is tripped what reduces risk passes, and silence is no further reason.
    let mut line = sink.connect(&rig.wire.firm);
    line.deliver(&message("FIX.4.4", "F", b"11=C-1\x0141=R-1\x01"));
    agent.signal(Signal::CONT);
    sleep(AFTER);
    rig.reset("host");
    let mut line = sink.connect(&rig.wire.firm);
    assert!(!send_for(&mut line, 2 * AFTER).0);
    assert_eq!(causes(&rig, "host"), [""; 0]);
    // Once more: it is told of each silence.
    agent.signal(Signal::STOP);
    assert!(send_for(&mut line, 10 * AFTER).0);
    drop(agent);
    let kinds: Vec<_> = told(&rig).into_iter().map(|(kind, _)| kind).collect();
    // The verb writes at once, and what the kernel tells waits in the ring for the agent to go on.
    assert_eq!(kinds, ["reset_refused", "warned", "tripped", "reset", "warned", "tripped"]);
}

#[test]
fn where_it_is_only_to_be_told_of_every_order_passes_and_it_is_told_once_a_silence() {
    if !privileged() {
        return;
    }
    // A disarmed host is only told of it as well.
    for keys in [policy("warn"), policy("trip")] {
        let rig = Rig::new(&keys);
        if keys.contains("trip") {
            let ran = rig.cli(&["disarm", "host", "--reason", "test"]);
            assert_eq!(ran.status.code(), Some(0));
        }
        let sink = listen(&rig);
        let agent = Agent::start(&rig);
        let mut line = sink.connect(&rig.wire.firm);
        let mut silences = 0;
        for _ in 0..2 {
            agent.signal(Signal::STOP);
            assert!(!send_for(&mut line, 3 * AFTER).0);
            agent.signal(Signal::CONT);
            silences += 1;
            assert!(!send_for(&mut line, AFTER).0);
        }
        assert_eq!((causes(&rig, "host"), rig.counters(1).withheld), (vec![], [0; 5]));
        drop(agent);
        let told = told(&rig);
        assert_eq!(told, vec![("warned".to_owned(), "host".to_owned()); silences], "{keys}");
    }
}

#[test]
fn an_agent_that_never_came_counts_from_the_load() {
    if !privileged() {
        return;
    }
    let before = now();
    let rig = Rig::new(&policy("trip"));
    let loaded = beat(&rig);
    assert!(loaded > before && loaded < now(), "the load is the first sign of life");
    assert!(!rig.status().agent.running && rig.status().agent.heartbeat_age_ms.is_none());
    let sink = listen(&rig);
    let mut line = sink.connect(&rig.wire.firm);
    let (dead, widest) = send_for(&mut line, 10 * AFTER);
    assert!(dead);
    line.reset();
    let took = tripped_at(&rig) - loaded;
    println!("never started: tripped {took:?} after the load; orders at most {widest:?} apart");
    assert!(took > AFTER - LATE && took <= AFTER + LATE + widest, "{took:?}");
    assert_eq!(causes(&rig, "host"), ["deadman"]);
    assert_eq!(rig.cli(&["reset", "host", "--reason", "test"]).status.code(), Some(4));
    // A first agent is what it waits for.
    let _agent = Agent::start(&rig);
    rig.reset("host");
    line = sink.connect(&rig.wire.firm);
    line.deliver(&order(1));
}

#[test]
fn what_is_no_message_finds_nothing_out() {
    if !privileged() {
        return;
    }
    // Nor does another application's: it is the next message that finds out.
    let rig = Rig::new(&policy("trip"));
    let sink = listen(&rig);
    let other = Sink::listen(&rig.wire.venue, TwoHosts::venue_socket(9005));
    let mut line = sink.connect(&rig.wire.firm);
    let (head, rest) = (order(1)[..40].to_vec(), order(1)[40..].to_vec());
    line.deliver(&head);
    sleep(2 * AFTER);
    // The rest of a message that has begun, a handshake, and bytes of somebody else.
    line.deliver(&rest);
    let mut second = sink.connect(&rig.wire.firm);
    let mut theirs = other.connect(&rig.wire.firm);
    theirs.deliver(b"hello");
    assert_eq!(causes(&rig, "host"), [""; 0]);
    second.offer(&message("FIX.4.4", "0", b""));
    second.reset();
    assert_eq!(causes(&rig, "host"), ["deadman"]);
    theirs.deliver(b"still here");
    let mut buffer = [0; 1];
    theirs.stream.set_nonblocking(true).expect("not waiting");
    assert!(
        theirs.stream.read(&mut buffer).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
    theirs.stream.flush().expect("a connection that lives");
}
