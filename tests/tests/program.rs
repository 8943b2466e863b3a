//! The program in the kernel against `decide` in user space: the same random packets and states, the same verdicts, counts and
//! scopes; and what a withheld segment is turned into.

#[path = "../../breaker-common/tests/model/mod.rs"]
#[expect(dead_code, reason = "the tests of breaker-common use more of it")]
mod model;

use std::net::{Ipv4Addr, SocketAddr};

use aya::programs::SchedClassifier;
use breaker_common::abi::{Scope, cause, reason};
use breaker_common::class::LimitClass;
use breaker_common::decide::{FIN, RST, SYN, Segment};
use breaker_tests::dice::Dice;
use breaker_tests::frame::{ACK, Frame, message, order};
use breaker_tests::rig::{Rig, run_pinned, try_run};
use breaker_tests::{privileged, slowness};
use breaker_user::config::ScopeIndex;
use breaker_user::kernel::Breaker;
use etherparse::{SlicedPacket, TransportSlice};
use model::{FIRST_PORT, HOST, Model, key};

/// "Drop", so that the verdict alone tells what is withheld.
const POLICY: &str = r#"
on_trip = "drop"
limits = [{ class = "message", max = 3000, per = "total" }]
[[group]]
name = "g1"
limits = [{ class = "order", max = 300, per = "24h" }]
[[group]]
name = "g2"
limits = [{ class = "cancel", max = 70, per = "total" }]
[[session]]
name = "s1"
remote = "0.0.0.0/0:9001"
groups = ["g1"]
limits = [{ class = "order", max = 137, per = "24h" }, { class = "message", max = 400, per = "24h" }]
[[session]]
name = "s2"
remote = "0.0.0.0/0:9002"
groups = ["g1", "g2"]
[[session]]
name = "s3"
remote = "0.0.0.0/0:9003"
groups = ["g2"]
armed = false
limits = [{ class = "order", max = 20, per = "24h" }]
"#;
const DAY: u64 = 86_400_000_000_000;
const SHOT: i32 = 2;

/// Random cases of each kind.
fn cases() -> usize {
    6_000 / slowness() as usize
}

/// The same policy for the model.
fn model() -> Model {
    let mut model = Model::new(2, &[&[1], &[1, 2], &[2]]);
    let [s1, s3] = [model.scope_of(1), model.scope_of(3)];
    model.add_limit(HOST, LimitClass::Message, 3000, 0);
    model.add_limit(1, LimitClass::Order, 300, DAY);
    model.add_limit(2, LimitClass::Cancel, 70, 0);
    model.add_limit(s1, LimitClass::Order, 137, DAY);
    model.add_limit(s1, LimitClass::Message, 400, DAY);
    model.add_limit(s3, LimitClass::Order, 20, DAY);
    model.set(s3, |scope| scope.armed = 0);
    model
}

/// A sender: what it has sent, what is still to come, and where it stands.
struct Sender {
    session: u32,
    port: u16,
    seq: u32,
    pending: Vec<u8>,
    last: Option<(u32, u8, Vec<u8>)>,
}

impl Sender {
    /// The next packet: sequence number, flags, payload.
    fn next(&mut self, dice: &mut Dice) -> (u32, u8, Vec<u8>) {
        let packet = match dice.below(40) {
            0 | 1 => {
                self.seq = dice.below(1 << 32) as u32;
                self.pending.clear();
                (self.seq.wrapping_sub(1), SYN, Vec::new())
            }
            2 => (self.seq, ACK | FIN, Vec::new()),
            3 => (self.seq, RST, Vec::new()),
            4 => (self.seq, ACK, Vec::new()),
            5..=7 if self.last.is_some() => return self.last.clone().expect("one"),
            // Bytes that never came, and bytes that are no FIX.
            8 => self.send(dice.below(200) as u32, vec![b'z'; 1 + dice.below(60) as usize]),
            9 => self.send(1 + dice.below(300) as u32, order(9)),
            _ => {
                while self.pending.len() < 1_200 {
                    let one = match dice.below(12) {
                        0 => message("FIX.4.2", "F", b"11=C\x0141=R\x01"),
                        1 => message("FIXT.1.1", "0", b""),
                        2 => message("FIX.4.4", "R", b"131=Q\x01"),
                        3 => message("FIX.4.4", "U77", b"58=own\x01"),
                        4 => message("FIX.4.4", "AE", b""),
                        _ => order(dice.below(1_000_000) as u32),
                    };
                    self.pending.extend(one);
                }
                let length = 1 + dice.below(1_100) as usize;
                let rest = self.pending.split_off(length);
                let payload = std::mem::replace(&mut self.pending, rest);
                self.send(0, payload)
            }
        };
        self.last = Some(packet.clone());
        packet
    }

    fn send(&mut self, gap: u32, payload: Vec<u8>) -> (u32, u8, Vec<u8>) {
        let seq = self.seq.wrapping_add(gap);
        self.seq = seq.wrapping_add(payload.len() as u32);
        (seq, ACK, payload)
    }
}

/// A scope without what depends on the clock.
fn timeless(scope: &Scope) -> Scope {
    let mut scope = *scope;
    scope.trip.at_ns = 0;
    for limit in &mut scope.limits {
        limit.base = 0;
    }
    scope
}

fn compare(breaker: &Breaker, model: &Model, case: usize) {
    for number in 0..7 {
        let index: ScopeIndex = breaker.names().scope(number).expect("the scope");
        let found = timeless(&breaker.scope(index).expect("reading it"));
        let expected = timeless(&model.scope(number));
        assert_eq!(found, expected, "scope {number} after case {case}");
    }
    assert_eq!(breaker.counters().expect("counters"), model.counters, "counters after case {case}");
    let mut connections = breaker.connections().expect("connections");
    let mut expected = model.connections.clone();
    for (_, connection) in connections.iter_mut().chain(expected.iter_mut()) {
        connection.closed_ns = (connection.closed_ns != 0) as u64;
    }
    connections.sort_by_key(|(key, _)| (key.remote_port, key.local_port));
    expected.sort_by_key(|(key, _)| (key.remote_port, key.local_port));
    assert_eq!(connections, expected, "connections after case {case}");
}

#[test]
fn kernel_and_decide_agree_on_thousands_of_random_packets() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    for seed in [1, 2, 3] {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut model = model();
        let rig = if seed == 1 { &rig } else { &Rig::new(POLICY) };
        rig.inside(|| agree(&mut dice, &mut model));
    }
}

fn agree(dice: &mut Dice, model: &mut Model) {
    let breaker = Breaker::open(&Rig::root()).expect("opening it");
    let program = Rig::root().program();
    let mut senders: Vec<_> = (0..8)
        .map(|n| Sender { session: 1 + n % 3, port: 40_000 + n as u16, seq: 7_000, pending: Vec::new(), last: None })
        .collect();
    for case in 0..cases() {
        if dice.below(60) == 0 {
            throw(dice, &breaker, model);
        }
        let sender = &mut senders[dice.below(8) as usize];
        let (seq, flags, payload) = sender.next(dice);
        let from = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), sender.port);
        let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), FIRST_PORT + sender.session as u16);
        let frame = Frame::new(from, to, seq, &payload).with_flags(flags);
        let segment = Segment { seq, length: payload.len() as u32, flags, fragment: false, wire_segments: 1 };
        let expected = model.pass(&key(sender.session, sender.port), &segment, &payload);
        let ran = run_pinned(&program, &frame.bytes(), 1);
        let withheld = expected.is_ok_and(|verdict| verdict.withheld());
        assert_eq!(ran.verdict, if withheld { SHOT } else { -1 }, "case {case}: {segment:?} {expected:?}");
        if case % 100 == 99 {
            compare(&breaker, model, case);
        }
    }
    compare(&breaker, model, cases());
    let passed: u64 = model.counters.iter().map(|counters| counters.passed.iter().sum::<u64>()).sum();
    assert!(passed as usize > cases() / 6, "{passed} messages passed: the cases are too tame");
}

/// A trip or a reset of some scope, on both sides.
fn throw(dice: &mut Dice, breaker: &Breaker, model: &mut Model) {
    let number = dice.below(7) as u32;
    let index = breaker.names().scope(number).expect("the scope");
    if dice.below(3) == 0 {
        breaker.trip(index, cause::MANUAL).expect("tripping");
        model.trip(number, cause::MANUAL);
        return;
    }
    for number in 0..7 {
        let index = breaker.names().scope(number).expect("the scope");
        let seen = breaker.switch(index).expect("reading it");
        assert!(breaker.reset(index, seen).expect("resetting"));
        model.reset(number);
    }
}

#[test]
fn a_withheld_segment_becomes_a_well_formed_reset() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(
        &POLICY
            .replace("on_trip = \"drop\"", "")
            .replace("\"0.0.0.0/0:9001\"", "[\"0.0.0.0/0:9001\", \"[fd00::/8]:9001\"]"),
    );
    rig.trip("session/s1");
    for (from, to) in [("10.0.0.1:4000", "10.0.0.2:9001"), ("[fd00::1]:4000", "[fd00::2]:9001")] {
        for (options, vlan, length) in [(0, None, 1), (12, None, 1_400), (40, Some(100), 3_000)] {
            let mut frame =
                Frame::new(from.parse().expect("one"), to.parse().expect("one"), 77_000, &vec![b'8'; length]);
            (frame.options, frame.vlan) = (options, vlan);
            let ran = rig.run(&frame.bytes(), 1);
            assert_eq!(ran.verdict, -1, "the reset goes on");
            let packet = SlicedPacket::from_ethernet(&ran.packet).expect("well formed");
            let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("it is TCP") };
            assert!(tcp.rst() && tcp.ack() && !tcp.psh() && !tcp.fin());
            assert_eq!((tcp.sequence_number(), tcp.options().len(), tcp.payload().len()), (77_000, 0, 0));
            let sum = match packet.net.as_ref().expect("IP") {
                etherparse::NetSlice::Ipv4(ip) => {
                    assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).expect("a sum")
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).expect("a sum")
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(tcp.checksum(), sum);
        }
    }
}

#[test]
fn malformed_and_foreign_frames_pass_untouched_whatever_they_hold() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("host");
    let whole =
        Frame::new("10.0.0.1:4000".parse().expect("one"), "10.0.0.2:80".parse().expect("one"), 1, b"GET /").bytes();
    let mut dice = Dice(4711);
    let mut short = Vec::new();
    let ran = rig.inside(|| {
        let program = SchedClassifier::from_pin(Rig::root().program()).expect("opening the program");
        let mut ran = 0;
        for case in 0..cases() {
            let mut frame = whole.clone();
            for _ in 0..dice.below(6) {
                let place = 12 + dice.below(frame.len() as u64 - 12) as usize;
                frame[place] = dice.below(256) as u8;
            }
            frame.truncate(15 + dice.below(frame.len() as u64 - 14) as usize);
            let at_session =
                frame.len() >= 38 && [9001, 9002, 9003].contains(&u16::from_be_bytes([frame[36], frame[37]]));
            match try_run(&program, &frame, 1) {
                Ok(result) if !at_session => {
                    assert_eq!((result.verdict, &result.packet), (-1, &frame), "case {case}");
                    ran += 1;
                }
                Ok(_) => {}
                Err(_) => short.push(frame),
            }
        }
        ran
    });
    assert!(ran > cases() / 3, "{ran} frames ran");
    // Those that the kernel runs no program over are sent through the hook instead. An older one (6.18.15) has run it over all.
    let malformed = || rig.breaker(|breaker| breaker.reasons().expect("reasons")[reason::MALFORMED as usize]);
    let before = if short.is_empty() { 0 } else { malformed() };
    rig.inject(&short);
    assert!(malformed() > before, "{} short frames, none counted", short.len());
}
