//! A large policy and a full connection table: what they take in memory, what they cost a packet, and how long it takes to look.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::maps::MapData;
use aya::programs::SchedClassifier;
use breaker_common::decide::SYN;
use breaker_tests::dice::Dice;
use breaker_tests::frame::{Frame, order};
use breaker_tests::privileged;
use breaker_tests::rig::{Rig, binary, run};
use breaker_user::kernel::load::PINNED;
use breaker_user::lab::Wire;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SESSIONS: usize = 1_000;
const GROUPS: usize = 64;
const CONNECTIONS: usize = 60_000;
/// The first session's port at the venue.
const PORT: u16 = 10_000;
/// How much dearer a packet may become: nothing is searched for, and what is looked up is looked up by its number or its hash.
const FLAT: f64 = 1.5;
/// The same where memory must be fetched for each packet: of a connection, of three scopes and of the rings of their limits.
const COLD: f64 = 10.0;
const ROUNDS: usize = 7;
const SINGLES: usize = 3_000;
/// How long it may take to look. A build that is not optimised is several times slower, and runs beside other tests.
const LOOK: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 100 });

/// So many sessions in so many groups, all with four limits, and so have the groups and the host.
fn policy(sessions: usize, groups: usize) -> String {
    let limits = "limits = [{ class = \"order\", max = 1000000, per = \"1s\" }, { class = \"cancel\", max = 1000, per = \"3s\" }, \
                  { class = \"message\", max = 1000000, per = \"1s\" }, { class = \"reject\", max = 50, per = \"1m\" }]";
    let mut text = format!("connections = 65536\n{limits}\n");
    for group in 0..groups {
        writeln!(text, "[[group]]\nname = \"g{group}\"\n{limits}").expect("writing to memory");
    }
    for session in 0..sessions {
        let (port, group) = (PORT + session as u16, session % groups);
        let remote = SocketAddr::new(Wire::VENUE, port);
        writeln!(text, "[[session]]\nname = \"s{session}\"\nremote = \"{remote}\"\ngroups = [\"g{group}\"]\n{limits}")
            .expect("writing to memory");
    }
    text
}

/// The trading host's and the venue's end of a connection, by its number.
fn ends(connection: usize, sessions: usize) -> [SocketAddr; 2] {
    let host = IpAddr::V4(Ipv4Addr::new(10, 9, 1, (connection / 50_000) as u8));
    let port = PORT + (connection % sessions) as u16;
    [SocketAddr::new(host, 10_000 + (connection % 50_000) as u16), SocketAddr::new(Wire::VENUE, port)]
}

fn segment(connection: usize, sessions: usize, seq: u32, payload: &[u8]) -> Frame {
    let [from, to] = ends(connection, sessions);
    let mut frame = Frame::new(from, to, seq, payload);
    frame.options = 12;
    frame
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A load, and where each of its connections stands.
struct Load {
    rig: Rig,
    sessions: usize,
    next: Vec<u32>,
}

impl Load {
    fn new(sessions: usize, groups: usize, connections: usize) -> Self {
        let mut load = Self { rig: Rig::new(&policy(sessions, groups)), sessions, next: Vec::new() };
        load.open(connections);
        load
    }

    /// Opens more connections, until there are so many.
    fn open(&mut self, connections: usize) {
        let syn = |connection| segment(connection, self.sessions, 0, b"").with_flags(SYN).bytes();
        let syns: Vec<_> = (self.next.len()..connections).map(syn).collect();
        self.rig.inject(&syns);
        self.next.resize(connections, 1);
    }

    /// What an order costs, ns: the median of many, each on a connection that `choose` says, and each new there.
    fn order(&mut self, mut choose: impl FnMut() -> usize + Send) -> f64 {
        let (next, sessions) = (&mut self.next, self.sessions);
        let order = order(1);
        self.rig.inside(|| {
            let program = SchedClassifier::from_pin(Rig::root().program()).expect("opening the program");
            let times = (0..SINGLES).map(|_| {
                let connection = choose();
                let frame = segment(connection, sessions, next[connection], &order).bytes();
                next[connection] = next[connection].wrapping_add(order.len() as u32);
                run(&program, &frame, 1).ns as f64
            });
            median(times.collect())
        })
    }
}

#[test]
fn a_packet_costs_the_same_whatever_the_number_of_sessions_and_connections() {
    if !privileged() {
        return;
    }
    let (mut one, mut many) = (Load::new(1, 1, 1), Load::new(SESSIONS, GROUPS, 1));
    let (mut crowd, mut full) = (Load::new(1, 1, CONNECTIONS), Load::new(SESSIONS, GROUPS, CONNECTIONS));
    let mut dice = Dice(0x5ca1e);
    let mut ratios: [Vec<f64>; 5] = Default::default();
    let mut zero = Vec::new();
    for _ in 0..ROUNDS {
        let base = one.order(|| 0);
        zero.push(base);
        ratios[0].push(many.order(|| 0) / base);
        ratios[1].push(full.order(|| 59_999) / base);
        ratios[2].push(crowd.order(|| dice.below(CONNECTIONS as u64) as usize) / base);
        ratios[3].push(full.order(|| dice.below(SESSIONS as u64) as usize) / base);
        ratios[4].push(full.order(|| dice.below(CONNECTIONS as u64) as usize) / base);
    }
    let [sessions, connections, crowd_spread, sessions_spread, spread] = ratios.map(median);
    println!(
        "an order: {:.0} ns with one session and one connection; of {SESSIONS} sessions {sessions:.2} times that, in a table of \
         {CONNECTIONS} {connections:.2} times",
        median(zero)
    );
    println!(
        "each order on any connection, with nothing of it in the caches: of {CONNECTIONS} of one session {crowd_spread:.2} times; of one \
         each of {SESSIONS} sessions {sessions_spread:.2} times; of {CONNECTIONS} of {SESSIONS} sessions {spread:.2} times"
    );
    assert!(sessions < FLAT && connections < FLAT, "{sessions:.2}, {connections:.2}");
    let cold = crowd_spread.max(sessions_spread).max(spread);
    assert!(cold < COLD, "{cold:.2}");
    let counted = |load: &Load| load.rig.status().sessions.iter().map(|one| one.messages["order"].passed).sum::<u64>();
    assert_eq!(
        [counted(&one), counted(&many), counted(&crowd), counted(&full)],
        [1, 1, 1, 3].map(|each| each * (ROUNDS * SINGLES) as u64),
        "each of them was counted"
    );
}

/// Kernel memory of the pinned maps, bytes.
fn memory(rig: &Rig) -> u64 {
    let of = |name: &&str| {
        let map = MapData::from_pin(Rig::root().map(name)).expect("opening a map");
        let path = format!("/proc/thread-self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let facts = std::fs::read_to_string(path).expect("reading what the kernel says of it");
        let word = facts.lines().find_map(|line| line.strip_prefix("memlock:")).expect("its memory");
        let bytes = word.trim().parse::<u64>().expect("a number");
        println!("{name}: {} KiB", bytes / 1024);
        bytes
    };
    rig.inside(|| PINNED.iter().map(of).sum())
}

#[test]
fn the_maps_take_no_more_memory_than_check_says() {
    if !privileged() {
        return;
    }
    for (sessions, groups, more) in [(SESSIONS, GROUPS, ""), (1, 1, ""), (SESSIONS, GROUPS, "inbound = \"watch\"\n")] {
        let mut text = policy(sessions, groups);
        if more.is_empty() {
            text = text.replace(", { class = \"reject\", max = 50, per = \"1m\" }", "");
        }
        let mut load = Load { rig: Rig::new(&format!("{more}{text}")), sessions, next: Vec::new() };
        load.open(CONNECTIONS);
        let config = load.rig.config().display().to_string();
        let ran = load.rig.cli(&["check", "--json", "--config", &config]);
        let said: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
        let said = said["kernel_memory_bytes"].as_u64().expect("a number");
        let taken = memory(&load.rig);
        println!("{sessions} sessions {more:?}: {} KiB taken, {} KiB said", taken / 1024, said / 1024);
        assert!(taken <= said, "{taken} bytes are taken where {said} were said");
        assert!(said < 2 * taken, "{said} bytes were said where {taken} are taken: that tells nobody anything");
    }
}

/// The fastest of some tries.
fn fastest<R>(mut look: impl FnMut() -> R) -> (Duration, R) {
    let tries = (0..5).map(|_| {
        let start = Instant::now();
        let seen = look();
        (start.elapsed(), seen)
    });
    tries.min_by_key(|(took, _)| *took).expect("a try")
}

#[test]
fn looking_at_it_takes_no_time_to_speak_of() {
    if !privileged() {
        return;
    }
    let load = Load::new(SESSIONS, GROUPS, CONNECTIONS);
    let (took, status) = fastest(|| load.rig.cli(&["status", "--json"]));
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let live: u64 =
        status["sessions"].as_array().expect("sessions").iter().filter_map(|one| one["connections"].as_u64()).sum();
    assert_eq!(live, CONNECTIONS as u64);
    println!("status --json of {SESSIONS} sessions and {CONNECTIONS} connections: {took:?}");
    assert!(took < LOOK, "status took {took:?}");

    let mut command = Command::new(binary());
    command.args(["agent", "--config"]).arg(load.rig.config()).env_remove("NOTIFY_SOCKET");
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut agent = load.rig.inside(|| command.spawn().expect("starting an agent"));
    let mut ready = String::new();
    BufReader::new(agent.stdout.take().expect("its output")).read_line(&mut ready).expect("its line");
    let scrape = || {
        let mut stream = load.rig.inside(|| TcpStream::connect("127.0.0.1:9469")).expect("connecting");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asking");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let (took, answer) = fastest(scrape);
    kill_process(Pid::from_child(&agent), Signal::TERM).expect("stopping it");
    agent.wait().expect("its end");
    assert!(answer.contains(&format!("breaker_connection_table_used {CONNECTIONS}\n")), "{ready}{answer:.300}");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    println!("/metrics of the same, {} KiB: {took:?}", body.len() / 1024);
    assert!(took < LOOK, "/metrics took {took:?}");
    for series in [
        "breaker_inbound_messages_total{session=\"s999\",kind=\"fill\"} 0\n",
        "breaker_limit_used{scope=\"group/g63\",",
    ] {
        assert!(body.contains(series), "{series}");
    }
    is_clean(body);
}

/// promtool finds nothing to object to, where it is installed.
fn is_clean(metrics: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        println!("promtool is not installed: the metrics are not checked by it");
        return;
    };
    promtool.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("handing it the metrics");
    let found = promtool.wait_with_output().expect("its verdict");
    let text = String::from_utf8_lossy(&found.stdout).into_owned() + &String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success() && text.is_empty(), "promtool: {text:.500}");
}
