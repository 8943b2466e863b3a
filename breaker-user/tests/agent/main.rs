//! `breaker agent` as a service manager runs it, in throw-away namespaces: its life, and what it finds when it comes back.

mod health;
mod host;
mod http;
mod ring;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use aya::maps::MapData;
use host::{Agent, Host, ROOT, THREE, order, pin, privileged, swallow};
use rustix::process::Signal;

/// Sends orders till the connection is reset; returns how many went out before.
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
fn limits_trip_without_it_and_it_catches_up_when_it_is_back() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    swallow(&host, 9001);
    let agent = host.agent();
    assert!(
        agent.line.contains("loaded policy test on eth1; metrics at http://127.0.0.1:9469/metrics"),
        "{}",
        agent.line
    );
    host.wait_for("agent_started", 1);
    agent.kill();

    orders_until_reset(&host);
    assert_eq!(host.cli(&["status"]).status.code(), Some(10), "tripped with nobody home");
    assert!(host.told("tripped").is_empty(), "nobody was there to tell");

    let agent = host.agent();
    assert!(agent.line.contains("adopted policy test on eth1"), "{}", agent.line);
    let tripped = &host.wait_for("tripped", 1)[0];
    assert_eq!((tripped.scope.as_deref(), tripped.cause.as_deref()), (Some("session/x1"), Some("rate")));
    assert_eq!((&tripped.counts["session"], &tripped.counts["used"]), (&"x1".into(), &4.into()));
    assert_eq!(tripped.counts["limit"], "3 order per 1m");
    let connection = tripped.counts["connection"].as_str().expect("a connection");
    assert!(connection.starts_with("10.9.0.1:") && connection.ends_with(" > 10.9.0.2:9001"), "{connection}");
    let started = host.told("agent_started");
    assert!(tripped.time < started[1].time, "told of later, but with the time at which it was");
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
        // The fenced one is closed, and takes no place there.
        ("breaker_connection_table_used", 0.0),
        ("breaker_events_lost_total", 0.0),
    ] {
        assert_eq!(host.figure(sample), Some(value), "{sample}");
    }
    let age = host.figure("breaker_heartbeat_age_seconds").expect("a heartbeat");
    assert!(age < 0.5, "{age} s since the last heartbeat");
    agent.stop();
    host.verify();
}

#[test]
fn a_second_one_is_refused_and_told_who_the_first_is() {
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
    // The lock is no file to be cleaned up by hand.
    host.agent().kill();
    host.agent().stop();
}

#[test]
fn its_end_ends_no_enforcement_and_no_event_is_forgotten_over_it() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    swallow(&host, 9001);
    for signal in [Signal::TERM, Signal::INT] {
        let agent = host.agent();
        let before = host.told("tripped").len();
        orders_until_reset(&host);
        agent.signal(signal);
        let (status, text) = agent.wait();
        assert_eq!(status.code(), Some(0), "{text}");
        assert_eq!(text, "");
        assert_eq!(host.told("tripped").len(), before + 1);
        assert_eq!(host.cli(&["status"]).status.code(), Some(10));
        host.done(&["unload", "--force"]);
    }
    let stopped = host.told("agent_stopped");
    assert_eq!(stopped.iter().map(|line| &line.counts["for"]).collect::<Vec<_>>(), ["SIGTERM", "SIGINT"]);
    assert!(stopped.iter().all(|line| line.actor.via == "agent" && line.actor.pid != 0));
    host.verify();
}

#[test]
fn what_is_loaded_is_served_whatever_has_become_of_its_file() {
    if !privileged() {
        return;
    }
    let host = Host::new(&format!("deadman = {{ after = \"1s\", action = \"trip\" }}\n{THREE}"));
    swallow(&host, 9001);
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
        let before = host.told("policy_refused").len();
        let agent = host.agent();
        assert!(
            agent.line.contains("adopted policy test on eth1")
                && agent.line.contains("ITS FILE IS NOT IN FORCE")
        );
        let told = host.wait_for("policy_refused", before + 1).pop().expect("one");
        assert!(told.counts["found"].as_str().is_some_and(|text| text.contains(found)), "{told:?}");
        // Longer than the dead man waits for a beat, with orders on the way.
        let mut stream = host.connect(9001);
        for number in 1..=3 {
            stream.write_all(&order(number)).expect("sending");
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(host.figure("breaker_tripped{scope=\"host\",cause=\"deadman\"}"), Some(0.0));
        // Reading it again puts none of it in force either, where it cannot be read.
        if number > 2 {
            agent.signal(Signal::HUP);
            host.wait_for("policy_refused", before + 2);
        }
        assert_eq!(in_force(), loaded);
        let said = agent.stop();
        assert!(said.contains(found) && said.contains("stays in force"), "{said}");
        if number == 3 {
            fs::remove_file(host.config()).expect("the file away");
        }
        host.cli(&["trip", "session/x1"]);
        host.done(&["reset", "session/x1", "--reason", "x", "--force"]);
    }
    // With nothing loaded there is nothing to serve.
    fs::remove_file(host.config()).expect("the FIFO away");
    fs::write(host.config(), "max = many").expect("a broken file");
    host.done(&["unload"]);
    assert_eq!(host.refused_agent().status.code(), Some(2));
}

#[test]
fn a_map_of_another_shape_is_not_adopted() {
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
fn an_unload_ends_it_and_really_detaches() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    swallow(&host, 9001);
    let agent = host.agent();
    host.done(&["unload"]);
    let mut stream = host.connect(9001);
    for number in 1..=20 {
        stream.write_all(&order(number)).expect("nothing is enforced");
    }
    let (status, text) = agent.wait();
    assert_eq!(status.code(), Some(3), "{text}");
    assert_eq!(host.told("agent_stopped")[0].counts["for"], "unloaded");
    assert!(text.contains("it was unloaded meanwhile"), "{text}");
    stream.set_nonblocking(true).expect("not blocking");
    assert_eq!(stream.read(&mut [0; 1]).expect_err("open and silent").kind(), ErrorKind::WouldBlock);
    host.verify();
}

#[test]
fn a_service_manager_hears_of_it() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let place = host.audit().with_file_name("notify");
    let socket = UnixDatagram::bind(&place).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let agent = host.agent_with(|command| {
        command.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "5000000").env_remove("WATCHDOG_PID");
    });
    let hear = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a message");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    agent.stop();
    let last = std::iter::from_fn(|| Some(hear())).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn a_trip_that_no_line_tells_of_is_noted_once() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    // As if its event had been lost.
    host.breaker(|breaker| breaker.trip(breaker.find("session/x1").expect("the session"), 2))
        .expect("tripping");
    let told = host.wait_for("tripped", 1).pop().expect("one");
    assert_eq!((told.scope.as_deref(), told.cause.as_deref()), (Some("session/x1"), Some("rate")));
    assert_eq!(
        (told.actor.via.as_str(), &told.counts["found"]),
        ("agent", &"in its switch: no line told of it".into())
    );
    // One that a verb tells of is not noted again, nor is any by the next agent.
    host.done(&["trip", "host", "--reason", "x"]);
    std::thread::sleep(Duration::from_millis(3500));
    agent.stop();
    let agent = host.agent();
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(host.told("tripped").len(), 2);
    // After a reset it is another one.
    host.done(&["reset", "session/x1", "--reason", "x"]);
    host.breaker(|breaker| breaker.trip(breaker.find("session/x1").expect("the session"), 2))
        .expect("tripping");
    host.wait_for("tripped", 3);
    agent.stop();
    host.verify();
}
