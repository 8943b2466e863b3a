//! A policy of many sessions and a full connection table.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use aya::programs::SchedClassifier;
use breaker_common::decide::SYN;
use breaker_user::kernel::load::PINNED;
use breaker_user::testbed::TwoHosts;

use crate::frame::{ACK, Frame, order};
use crate::test_run::run;
use crate::testbed::Testbed;

/// Port of the first session at the venue.
const PORT: u16 = 10_000;
/// Limits of each scope.
const LIMITS: &str = "limits = [{ class = \"order\", max = 1000000, per = \"1s\" }, \
                      { class = \"cancel\", max = 1000, per = \"3s\" }, \
                      { class = \"message\", max = 1000000, per = \"1s\" }, \
                      { class = \"reject\", max = 50, per = \"1m\" }]";

/// A loaded policy, and the next sequence number of each connection.
pub struct ManySessions {
    /// The testbed of the policy.
    pub testbed: Testbed,
    sessions: usize,
    next: Vec<u32>,
}

/// A policy with this number of sessions and groups. The host, each group and each session have four limits.
pub fn policy(sessions: usize, groups: usize) -> String {
    let mut text = format!("connections = 65536\n{LIMITS}\n");
    for group in 0..groups {
        writeln!(text, "[[group]]\nname = \"g{group}\"\n{LIMITS}").expect("writing to memory");
    }
    for session in 0..sessions {
        let (port, group) = (PORT + session as u16, session % groups);
        let remote = SocketAddr::new(TwoHosts::VENUE, port);
        writeln!(
            text,
            "[[session]]\nname = \"s{session}\"\nremote = \"{remote}\"\ngroups = [\"g{group}\"]\n{LIMITS}"
        )
        .expect("writing to memory");
    }
    text
}

impl ManySessions {
    /// Loads [`policy`] and opens connections, evenly over the sessions.
    pub fn new(sessions: usize, groups: usize, connections: usize) -> Self {
        Self::with_policy(&policy(sessions, groups), sessions, connections)
    }

    /// Loads a policy and opens connections, evenly over the sessions.
    pub fn with_policy(policy: &str, sessions: usize, connections: usize) -> Self {
        let mut many = Self { testbed: Testbed::load(policy), sessions, next: Vec::new() };
        many.open(connections);
        many
    }

    /// Opens connections until there are that many.
    pub fn open(&mut self, connections: usize) {
        let part =
            |connection, (seq, flags)| segment(connection, self.sessions, seq, b"").with_flags(flags).bytes();
        let opens = |connection| [(0, SYN), (1, ACK)].map(|step| part(connection, step));
        let handshakes: Vec<_> = (self.next.len()..connections).flat_map(opens).collect();
        self.testbed.inject_frames(&handshakes);
        self.next.resize(connections, 1);
    }

    /// Runs orders in the hook, each with the next sequence number of the connection that `choose` returns.
    /// Returns their times, ns.
    pub fn orders(&mut self, count: usize, mut choose: impl FnMut() -> usize + Send) -> Vec<f64> {
        let (next, sessions) = (&mut self.next, self.sessions);
        let order = order(1);
        self.testbed.on_host(|| {
            let program = SchedClassifier::from_pin(Testbed::root().program()).expect("opening the program");
            let once = |_| {
                let connection = choose();
                let frame = segment(connection, sessions, next[connection], &order).bytes();
                next[connection] = next[connection].wrapping_add(order.len() as u32);
                run(&program, &frame, 1).ns as f64
            };
            (0..count).map(once).collect()
        })
    }

    /// Number of orders counted, over all sessions.
    pub fn counted(&self) -> u64 {
        self.testbed.status().sessions.iter().map(|one| one.messages["order"].passed).sum()
    }

    /// Kernel memory of each pinned map, bytes, from its fdinfo.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let of = |name: &&'static str| {
            let map = MapData::from_pin(Testbed::root().map(name)).expect("opening a map");
            let path = format!("/proc/thread-self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
            let facts = std::fs::read_to_string(path).expect("reading what the kernel says of it");
            let word = facts.lines().find_map(|line| line.strip_prefix("memlock:")).expect("its memory");
            (*name, word.trim().parse().expect("a number"))
        };
        self.testbed.on_host(|| PINNED.iter().map(of).collect())
    }
}

/// A segment of a connection by its number.
pub fn segment(connection: usize, sessions: usize, seq: u32, payload: &[u8]) -> Frame {
    let host = IpAddr::V4(Ipv4Addr::new(10, 9, 1, (connection / 50_000) as u8));
    let from = SocketAddr::new(host, 10_000 + (connection % 50_000) as u16);
    let to = SocketAddr::new(TwoHosts::VENUE, PORT + (connection % sessions) as u16);
    let mut frame = Frame::new(from, to, seq, payload);
    frame.options = 12;
    frame
}
