//! The metrics over HTTP: the responses, and that no peer blocks the agent.

use std::io::{Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::host::{Host, THREE, eventually, privileged, promtool};

#[test]
fn promtool_accepts_the_metrics() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    let (head, classic) = host.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let (head, open) = host.request(
        "GET /metrics HTTP/1.1\r\nHost: x\r\n\
         Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n",
    );
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(open.ends_with("\n# EOF\n"));
    assert_eq!(promtool(&classic), (true, String::new()));
    let (_, stderr) = promtool(&open);
    // It reads Prometheus text only, in which HELP names a counter with its `_total`.
    let complaints: Vec<_> = stderr.lines().filter(|line| !line.ends_with("_total no help text")).collect();
    assert_eq!(complaints, Vec::<&str>::new());
    agent.stop();
}

#[test]
fn the_server_is_read_only_and_limits_requests() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    assert_eq!(host.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(host.get("/nothing").0, 404);
    assert_eq!(host.get("/metrics/../../etc/passwd").0, 404);
    let (head, _) = host.request("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET, HEAD"), "{head}");
    let (head, body) = host.request("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}");
    let fits = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(7_000));
    assert!(host.request(&fits).0.starts_with("HTTP/1.1 200 "));
    let large = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(9_000));
    let mut stream = host.peer();
    stream.write_all(large.as_bytes()).expect("sending");
    let mut answer = String::new();
    // The agent does not read the rest of the request, so that the connection may end with an RST.
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    for junk in ["\0\0\0\0", "GET\r\n\r\n", "GET /metrics HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02"] {
        let mut stream = host.peer();
        stream.write_all(junk.as_bytes()).expect("sending");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(host.get("/healthz").0, 200);
    agent.stop();
}

#[test]
fn silent_and_slow_peers_are_disconnected() {
    if !privileged() {
        return;
    }
    let sessions = |number: u32| {
        format!(
            "[[session]]\nname = \"session-{number}\"\nremote = \"10.8.{}.{}:9001\"\npreset = \"cme\"\n",
            number / 250,
            number % 250 + 1
        )
    };
    let host = Host::new(&(0..200).map(sessions).collect::<String>());
    // Half a megabyte of metrics, and sockets that buffer a tenth of it.
    host.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 32768"))
        .expect("small send buffers");
    let agent = host.agent();
    let whole = host.get("/metrics").1.len();
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("its descriptors");
        let targets = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    // Longer than the close of a finished exchange takes.
    sleep(Duration::from_millis(300));
    let before = sockets();
    let mut silent: Vec<_> = (0..8).map(|_| host.peer()).collect();
    let mut slow: Vec<_> = (0..8).map(|_| host.peer()).collect();
    for stream in &mut slow {
        rustix::net::sockopt::set_socket_recv_buffer_size(&*stream, 4096).expect("a small window");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("asking");
    }
    let start = Instant::now();
    assert_eq!(host.get("/healthz").0, 200);
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    for stream in &mut silent {
        assert_eq!(stream.read_to_end(&mut Vec::new()).map_or(0, |length| length), 0, "there was no request");
    }
    eventually(|| (sockets() <= before).then_some(())).expect("it disconnects all of them");
    // In the middle of a response: the data in flight still arrives, and then the end.
    let mut stream = slow.pop().expect("one of them");
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 1 << 20).expect("a window again");
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    assert!(received.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(received.len() < whole, "the sockets buffered the whole response: the test shows nothing");
    let age = host.metric("breaker_heartbeat_age_seconds").expect("a heartbeat");
    assert!(age < 1.0, "{age} s since the last heartbeat");
    agent.stop();
}

#[test]
fn silent_peers_do_not_delay_a_scrape() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    // More than the agent keeps; they reconnect after it closes them.
    let mut silent: Vec<_> = (0..300).map(|_| host.peer()).collect();
    for round in 0..5 {
        let start = Instant::now();
        let (code, text) = host.get("/metrics");
        assert!(code == 200 && text.contains("breaker_build_info"), "{code}: {text}");
        assert!(start.elapsed() < Duration::from_secs(1), "round {round}: {:?}", start.elapsed());
        silent.extend((0..60).map(|_| host.peer()));
    }
    agent.stop();
}
