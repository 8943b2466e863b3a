//! Viewers: what they cost the agent, and that none of them delays a scrape.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::agent::{Agent, metrics};
use breaker_tests::many_sessions::policy;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_tests::{require_root, slowness};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::desk;
use crate::safety::request;

/// Time of a measurement.
const SPAN: Duration = Duration::from_secs(5);
/// Largest cost of 100 viewers, as a share of a core. A build without optimisation is ten times slower.
const COST: f64 = if cfg!(debug_assertions) { 0.5 } else { 0.05 };
/// Most viewers.
const VIEWERS: usize = 128;

/// A viewer that receives compressed events.
struct Viewer {
    stream: TcpStream,
    received: usize,
}

impl Viewer {
    fn join(testbed: &Testbed) -> Self {
        let mut stream = testbed.on_host(|| TcpStream::connect("127.0.0.1:9469")).expect("connecting");
        stream
            .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
            .expect("sending the request");
        Self { stream, received: 0 }
    }

    /// Reads what has arrived. Returns false after the end of the stream.
    fn read(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("not waiting");
        let mut bytes = [0; 1 << 16];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(length) => self.received += length,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// Processor time of a process so far, from `/proc/PID/stat` in ticks of 10 ms.
fn processor_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
    let fields: Vec<_> = text.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 =
        [11, 12].map(|field: usize| fields[field].parse::<u64>().expect("a number")).iter().sum();
    Duration::from_millis(ticks * 10)
}

/// Share of a core that the agent takes while the viewers read.
fn share(agent: &Agent, viewers: &mut [Viewer]) -> f64 {
    let (before, start) = (processor_time(agent.id()), Instant::now());
    while start.elapsed() < SPAN {
        for viewer in viewers.iter_mut() {
            assert!(viewer.read(), "a viewer was disconnected");
        }
        sleep(Duration::from_millis(50));
    }
    (processor_time(agent.id()) - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

fn measure(sessions: &str, what: &str) -> f64 {
    let testbed = Testbed::load(sessions);
    let agent = Agent::start(&testbed);
    // The start of the agent takes a while longer than its first line of output.
    sleep(Duration::from_secs(2));
    let alone = share(&agent, &mut []);
    let one = share(&agent, &mut [Viewer::join(&testbed)]);
    let mut viewers: Vec<_> = (0..100).map(|_| Viewer::join(&testbed)).collect();
    let hundred = share(&agent, &mut viewers);
    let fewest = viewers.iter().map(|viewer| viewer.received).min().expect("viewers");
    println!(
        "{what}: the agent takes {:.1} % of a core without viewers, {:.1} % with one, {:.1} % with 100 \
         ({fewest} bytes for each in {SPAN:?})",
        alone * 100.0,
        one * 100.0,
        hundred * 100.0
    );
    assert!(fewest > 1_000, "{fewest} bytes");
    agent.stop();
    hundred - alone
}

#[test]
fn a_hundred_viewers_cost_the_agent_little() {
    require_root!();
    let cost = measure(&desk(), "12 sessions");
    assert!(cost < COST * f64::from(slowness()), "{cost}");
    let cost = measure(&policy(1_000, 64), "1,000 sessions");
    assert!(cost < 2.0 * COST * f64::from(slowness()), "{cost}");
}

#[test]
fn a_viewer_that_stops_reading_is_disconnected() {
    require_root!();
    let testbed = Testbed::load(&policy(200, 8));
    let agent = Agent::start(&testbed);
    let connections = || testbed.shell("ss -Htn state established 'sport = :9469'").lines().count();
    let mut reader = Viewer::join(&testbed);
    let stopped: Vec<_> = (0..4).map(|_| Viewer::join(&testbed)).collect();
    for viewer in &stopped {
        set_socket_recv_buffer_size(&viewer.stream, 4096).expect("a small window");
    }
    assert!(reader.read());
    let start = Instant::now();
    sleep(Duration::from_secs(2));
    assert_eq!(connections(), 5, "all of them are connected");
    while connections() > 1 {
        assert!(start.elapsed() < Duration::from_secs(60) * slowness(), "{} are left", connections());
        assert!(reader.read(), "the viewer that reads stays");
        sleep(Duration::from_millis(100));
    }
    println!("disconnected after {:?}", start.elapsed());
    let received = reader.received;
    sleep(Duration::from_secs(2));
    assert!(reader.read() && reader.received > received);
    agent.stop();
}

#[test]
fn viewers_take_no_place_from_scrapes_and_end_at_a_limit() {
    require_root!();
    let testbed = Testbed::load(&desk());
    let agent = Agent::start(&testbed);
    let mut viewers: Vec<_> = (0..VIEWERS).map(|_| Viewer::join(&testbed)).collect();
    wait_for("every viewer has a state", || {
        viewers.iter_mut().for_each(|viewer| assert!(viewer.read()));
        viewers.iter().all(|viewer| viewer.received > 1_000).then_some(())
    });
    let answer = request(&testbed, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many viewers"), "{answer}");
    // Silent peers push each other out, and no viewer.
    let silent: Vec<_> = (0..400)
        .map(|_| testbed.on_host(|| TcpStream::connect("127.0.0.1:9469")).expect("connecting"))
        .collect();
    for _ in 0..5 {
        let start = Instant::now();
        assert!(metrics(&testbed).contains("breaker_build_info"));
        assert!(start.elapsed() < Duration::from_secs(1) * slowness(), "{:?}", start.elapsed());
    }
    let received: Vec<_> = viewers.iter().map(|viewer| viewer.received).collect();
    sleep(Duration::from_secs(2));
    for (viewer, before) in viewers.iter_mut().zip(received) {
        assert!(viewer.read() && viewer.received > before, "a viewer was disconnected");
    }
    drop((silent, viewers));
    wait_for("a place is free", || {
        let mut viewer = Viewer::join(&testbed);
        sleep(Duration::from_millis(1500));
        (viewer.read() && viewer.received > 1_000).then_some(())
    });
    agent.stop();
}
