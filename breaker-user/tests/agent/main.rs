//! `breaker agent` as a service manager runs it, in throw-away namespaces: start, end, and restart.

mod bad_files;
mod health;
mod host;
mod http;
mod ring;
mod upgrade;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use aya::maps::MapData;
use host::{Agent, Host, ROOT, THREE, discard_server, order, pin, privileged};
use rustix::process::Signal;

/// Sends orders until the connection is reset, and returns how many were written before.
fn orders_until_reset(host: &Host) -> u32 {
    let mut stream = host.connect(9001);
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    for number in 1..100 {
        if stream.write_all(&order(number)).is_err() {
            return number - 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let end = stream.read(&mut [0; 1]).expect_err("a reset");
    panic!("no reset after 99 orders: {end}");
}

fn assert_alive(agent: &Agent, host: &Host) {
    assert_eq!(host.get("/healthz"), (200, "ok\n".to_owned()), "agent {}", agent.pid());
}

#[test]
fn limits_trip_without_an_agent_and_the_next_agent_logs_it() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    discard_server(&host, 9001);
    let agent = host.agent();
    assert!(
        agent.line.contains("loaded policy test on eth1; metrics at http://127.0.0.1:9469/metrics"),
        "{}",
        agent.line
    );
    host.wait_for("agent_started", 1);
    agent.kill();

    orders_until_reset(&host);
    assert_eq!(host.cli(&["status"]).status.code(), Some(10), "tripped without an agent");
    assert!(host.entries("tripped").is_empty(), "no agent has logged it");

    let agent = host.agent();
    assert!(agent.line.contains("adopted policy test on eth1"), "{}", agent.line);
    let tripped = &host.wait_for("tripped", 1)[0];
    assert_eq!((tripped.scope.as_deref(), tripped.cause.as_deref()), (Some("session/x1"), Some("rate")));
    assert_eq!((&tripped.counts["session"], &tripped.counts["used"]), (&"x1".into(), &4.into()));
    assert_eq!(tripped.counts["limit"], "3 order per 1m");
    let connection = tripped.counts["connection"].as_str().expect("a connection");
    assert!(connection.starts_with("10.9.0.1:") && connection.ends_with(" > 10.9.0.2:9001"), "{connection}");
    let started = host.entries("agent_started");
    assert!(tripped.time < started[1].time, "logged later, with the time of the trip");
    assert_eq!(host.wait_for("connection_fenced", 1).len(), 1);
    let warned = &host.wait_for("warned", 1)[0];
    assert_eq!((&warned.counts["used"], &warned.counts["level"]), (&2.into(), &1.into()));

    for (sample, value) in [
        ("breaker_trips_total{scope=\"session/x1\",cause=\"rate\"}", 1.0),
        ("breaker_tripped{scope=\"session/x1\",cause=\"rate\"}", 1.0),
        ("breaker_tripped{scope=\"host\",cause=\"rate\"}", 0.0),
        ("breaker_epoch{scope=\"session/x1\"}", 1.0),
        ("breaker_messages_total{session=\"x1\",class=\"order\",verdict=\"passed\"}", 3.0),
        ("breaker_messages_total{session=\"x1\",class=\"order\",verdict=\"withheld\"}", 1.0),
        ("breaker_limit{scope=\"session/x1\",class=\"order\",per=\"1m\"}", 3.0),
        ("breaker_limit_used{scope=\"session/x1\",class=\"order\",per=\"1m\"}", 3.0),
        ("breaker_connections{session=\"x1\",state=\"fenced\"}", 1.0),
        // The fenced connection is closed, and uses no entry.
        ("breaker_connection_table_used", 0.0),
        ("breaker_events_lost_total", 0.0),
    ] {
        assert_eq!(host.metric(sample), Some(value), "{sample}");
    }
    let age = host.metric("breaker_heartbeat_age_seconds").expect("a heartbeat");
    assert!(age < 0.5, "{age} s since the last heartbeat");
    agent.stop();
    host.verify();
}

#[test]
fn a_second_agent_is_refused_with_the_pid_of_the_first() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    let second = host.refused_agent();
    assert_eq!(second.status.code(), Some(4));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&format!("pid {}", agent.pid())), "{text}");
    assert_alive(&agent, &host);
    agent.stop();
    // The lock leaves no file behind.
    host.agent().kill();
    host.agent().stop();
}

#[test]
fn the_agents_end_ends_no_enforcement_and_loses_no_event() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    discard_server(&host, 9001);
    for signal in [Signal::TERM, Signal::INT] {
        let agent = host.agent();
        let before = host.entries("tripped").len();
        orders_until_reset(&host);
        agent.signal(signal);
        let (status, text) = agent.wait();
        assert_eq!(status.code(), Some(0), "{text}");
        assert_eq!(text, "");
        assert_eq!(host.entries("tripped").len(), before + 1);
        assert_eq!(host.cli(&["status"]).status.code(), Some(10));
        host.cli_ok(&["reset", "session/x1", "--reason", "test", "--force"]);
        host.cli_ok(&["unload"]);
    }
    let stopped = host.entries("agent_stopped");
    assert_eq!(stopped.iter().map(|line| &line.counts["for"]).collect::<Vec<_>>(), ["SIGTERM", "SIGINT"]);
    assert!(stopped.iter().all(|line| line.actor.via == "agent" && line.actor.pid != 0));
    host.verify();
}

#[test]
fn a_load_is_served_whatever_its_file_contains() {
    if !privileged() {
        return;
    }
    let host = Host::new(&format!("deadman = {{ after = \"1s\", action = \"trip\" }}\n{THREE}"));
    discard_server(&host, 9001);
    host.load();
    let text = fs::read_to_string(host.config()).expect("the file");
    let in_force = || host.breaker(|breaker| breaker.policy().sha256);
    let loaded = in_force();
    let changed = text.replace("max = 3", "max = 4");
    let broken = text.replace("max = 3", "max = many");
    let fifo = host.config().with_file_name("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    for (number, file, found) in [
        (1, Some(format!("# A comment.\n{text}")), "was changed: it is policy test with sha256"),
        (2, Some(changed), "was changed: it is policy test with sha256"),
        (3, Some(broken), "the configuration is refused"),
        (4, None, "cannot be read: it is a FIFO"),
    ] {
        match file {
            Some(file) => fs::write(host.config(), file).expect("another file"),
            None => fs::rename(&fifo, host.config()).expect("a FIFO in place of the file"),
        }
        let before = host.entries("policy_refused").len();
        let agent = host.agent();
        assert!(
            agent.line.contains("adopted policy test on eth1")
                && agent.line.contains("THE FILE IS NOT IN FORCE")
        );
        let entry = host.wait_for("policy_refused", before + 1).pop().expect("one");
        assert!(entry.counts["found"].as_str().is_some_and(|text| text.contains(found)), "{entry:?}");
        // Longer than `deadman.after`, with orders in between.
        let mut stream = host.connect(9001);
        for number in 1..=3 {
            stream.write_all(&order(number)).expect("sending");
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(host.metric("breaker_tripped{scope=\"host\",cause=\"deadman\"}"), Some(0.0));
        // A SIGHUP does not put an unreadable file in force either.
        if number > 2 {
            agent.signal(Signal::HUP);
            host.wait_for("policy_refused", before + 2);
        }
        assert_eq!(in_force(), loaded);
        let stderr = agent.stop();
        assert!(stderr.contains(found) && stderr.contains("stays in force"), "{stderr}");
        if number == 3 {
            fs::remove_file(host.config()).expect("removing the file");
        }
        host.cli(&["trip", "session/x1"]);
        host.cli_ok(&["reset", "session/x1", "--reason", "x", "--force"]);
    }
    // With nothing loaded, an invalid file is an error.
    fs::remove_file(host.config()).expect("removing the FIFO");
    fs::write(host.config(), "max = many").expect("a broken file");
    host.cli_ok(&["unload"]);
    assert_eq!(host.refused_agent().status.code(), Some(2));
}

#[test]
fn a_map_with_another_definition_is_not_adopted() {
    if !privileged() {
        return;
    }
    for (name, other) in [("events", "reasons"), ("heartbeat", "sessions"), ("connections", "endpoints")] {
        let host = Host::new(THREE);
        host.load();
        host.inside(|| {
            fs::remove_file(pin(name)).expect("removing a pin");
            MapData::from_pin(pin(other)).expect("a map").pin(pin(name)).expect("pinning it");
        });
        let refused = host.refused_agent();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(5), "{name}: {text}");
        assert!(text.contains(&format!("{ROOT}/{name}")), "{text}");
    }
}

#[test]
fn an_unload_ends_the_agent_and_detaches() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    discard_server(&host, 9001);
    let agent = host.agent();
    host.cli_ok(&["unload"]);
    let mut stream = host.connect(9001);
    for number in 1..=20 {
        stream.write_all(&order(number)).expect("sending unlimited orders");
    }
    let (status, text) = agent.wait();
    assert_eq!(status.code(), Some(3), "{text}");
    assert_eq!(host.entries("agent_stopped")[0].counts["for"], "unloaded");
    assert!(text.contains("it was unloaded meanwhile"), "{text}");
    stream.set_nonblocking(true).expect("not blocking");
    assert_eq!(stream.read(&mut [0; 1]).expect_err("open and silent").kind(), ErrorKind::WouldBlock);
    host.verify();
}

#[test]
fn a_service_manager_is_notified() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let path = host.audit().with_file_name("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let agent = host.agent_with(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "5000000").env_remove("WATCHDOG_PID");
    });
    let receive = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a message");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!(receive(), "READY=1");
    assert_eq!(receive(), "WATCHDOG=1");
    agent.stop();
    let last = std::iter::from_fn(|| Some(receive())).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn a_trip_without_an_entry_is_logged_once() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    // As if the event had been lost.
    host.breaker(|breaker| breaker.trip(breaker.find("session/x1").expect("the session"), 2))
        .expect("tripping");
    let entry = host.wait_for("tripped", 1).pop().expect("one");
    assert_eq!((entry.scope.as_deref(), entry.cause.as_deref()), (Some("session/x1"), Some("rate")));
    assert_eq!(
        (entry.actor.via.as_str(), &entry.counts["found"]),
        ("agent", &"in its switch: the log had no entry".into())
    );
    // A trip that a verb has logged is not logged again, nor is any by the next agent.
    host.cli_ok(&["trip", "host", "--reason", "x"]);
    std::thread::sleep(Duration::from_millis(3500));
    agent.stop();
    let agent = host.agent();
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(host.entries("tripped").len(), 2);
    // After a reset it is another trip.
    host.cli_ok(&["reset", "session/x1", "--reason", "x"]);
    host.breaker(|breaker| breaker.trip(breaker.find("session/x1").expect("the session"), 2))
        .expect("tripping");
    host.wait_for("tripped", 3);
    agent.stop();
    host.verify();
}
