//! The kernel program compared with `decide` in user space: random packets and states must give the same
//! verdicts, counts and scopes. A withheld segment must become a valid reset.

#[path = "program/replay.rs"]
mod replay;
#[path = "program/sender.rs"]
mod sender;

use std::net::{Ipv4Addr, SocketAddr};

use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use breaker_common::abi::{Connection, ConnectionKey, Rules, Scope, cause, flag, kind, reason};
use breaker_common::decide::{Segment, Verdict};
use breaker_common::message::LimitClass;
use breaker_replay::model::{FIRST_PORT, HOST, Model, key};
use breaker_tests::frame::Frame;
use breaker_tests::rng::Rng;
use breaker_tests::test_run::{run, try_run};
use breaker_tests::testbed::Testbed;
use breaker_tests::{require_root, slowness};
use breaker_user::config::ScopeIndex;
use breaker_user::kernel::{Breaker, Reset};
use etherparse::{SlicedPacket, TransportSlice};
use sender::Sender;

/// `drop`, so that the verdict alone shows a withheld segment.
const POLICY: &str = r#"
on_trip = "drop"
undeclared_trips = true
inbound = "watch"
limits = [{ class = "message", max = 3000, per = "total" }]
[[group]]
name = "g1"
limits = [{ class = "order", max = 300, per = "24h" }, { class = "fill", max = 90, per = "24h" }]
[[group]]
name = "g2"
limits = [{ class = "cancel", max = 70, per = "total" }]
[[session]]
name = "s1"
remote = "0.0.0.0/0:9001"
groups = ["g1"]
limits = [{ class = "order", max = 137, per = "24h" }, { class = "message", max = 400, per = "24h" },
          { class = "reject", max = 20, per = "24h" }, { class = "order", per_fill = 9, after = 60 }]
[[session]]
name = "s2"
remote = "0.0.0.0/0:9002"
groups = ["g1", "g2"]
possdup = "pass"
[[session]]
name = "s3"
remote = "0.0.0.0/0:9003"
groups = ["g2"]
armed = false
limits = [{ class = "order", max = 20, per = "24h" }]
[[session]]
name = "s4"
remote = "0.0.0.0/0:9004"
groups = ["g1"]
sender = "FIRM"
target = "VENUE-4"
[[session]]
name = "s5"
remote = "0.0.0.0/0:9004"
sender = "FIRM"
target = "VENUE-5"
"#;
const DAY: u64 = 86_400_000_000_000;
const SCOPES: u32 = 9;

/// Number of random cases of each kind.
fn cases() -> usize {
    6_000 / slowness() as usize
}

/// The same policy for the model.
fn model() -> Model {
    let mut model = Model::new(2, &[&[1], &[1, 2], &[2], &[1], &[]]);
    let [s1, s3] = [model.scope_of(1), model.scope_of(3)];
    model.add_limit(HOST, LimitClass::Message, 3000, 0);
    model.add_limit(1, LimitClass::Order, 300, DAY);
    model.add_limit(1, LimitClass::Fill, 90, DAY);
    model.add_limit(2, LimitClass::Cancel, 70, 0);
    model.add_limit(s1, LimitClass::Order, 137, DAY);
    model.add_limit(s1, LimitClass::Message, 400, DAY);
    model.add_limit(s1, LimitClass::Reject, 20, DAY);
    model.add_ratio(s1, 9, 60);
    model.add_limit(s3, LimitClass::Order, 20, DAY);
    model.set(s3, |scope| scope.armed = 0);
    for session in [0, 2] {
        model.maps.sessions[session].flags |= flag::REPLAYS_PASS;
    }
    // The only shared endpoint.
    model.share(0, &[(4, ["FIRM", "VENUE-4"]), (5, ["FIRM", "VENUE-5"])]);
    for session in [4, 5] {
        model.maps.sessions[session].comp_ids = model.maps.identities[session - 4].1;
    }
    model
}

/// A scope without fields that depend on the clock or on the layout of its rings.
fn without_times(scope: &Scope) -> Scope {
    let mut scope = *scope;
    scope.trip.at_ns = 0;
    scope.switch.raised_ns = 0;
    scope.withheld_ns = (scope.withheld_ns != 0) as u64;
    scope.rules[0].positions &= !(Rules::DECLARED | Rules::ARMED);
    for time in [&mut scope.fences.before_ns, &mut scope.fences.last_ns] {
        *time = (*time != 0) as u64;
    }
    for limit in &mut scope.limits[0] {
        limit.ring.base = 0;
    }
    scope
}

fn compare(breaker: &Breaker, model: &Model, case: usize) {
    for number in 0..SCOPES {
        let index: ScopeIndex = breaker.names().scope(number).expect("the scope");
        let found = without_times(&breaker.scope(index).expect("reading it"));
        let expected = without_times(&model.scope(number));
        assert_eq!(found, expected, "scope {number} after case {case}");
    }
    assert_eq!(breaker.counters().expect("counters"), model.counters, "counters after case {case}");
    let mut connections = breaker.connections().expect("connections");
    let mut expected: Vec<_> =
        model.connections.iter().chain(model.transient.iter()).map(|(key, at)| (*key, *at)).collect();
    for (_, connection) in connections.iter_mut().chain(expected.iter_mut()) {
        for time in [&mut connection.closed_ns, &mut connection.opened_ns] {
            *time = (*time != 0) as u64;
        }
        // Test runs have no socket, and the model has no routers.
        (connection.uid, connection.hops) = (0, 0);
    }
    let order =
        |(key, connection): &(ConnectionKey, Connection)| (key.remote_port, key.local_port, connection.isn);
    connections.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(connections, expected, "connections after case {case}");
    let inbound = breaker.maps().inbound().expect("what came in");
    let mut inbound: Vec<_> =
        inbound.iter().map(|entry| entry.expect("an entry")).map(|(key, at)| (key.0, at.0)).collect();
    let mut expected: Vec<_> = model.inbound.iter().map(|(key, at)| (*key, *at)).collect();
    inbound.sort_by_key(|(key, _)| key.local_port);
    expected.sort_by_key(|(key, _)| key.local_port);
    assert_eq!(inbound, expected, "what came in after case {case}");
}

/// The loaded program.
enum Program {
    Egress(SchedClassifier),
    Inline(Xdp),
}

impl Program {
    fn open(mode: &str) -> Self {
        let pin = Testbed::root().program();
        match mode {
            "egress" => Self::Egress(SchedClassifier::from_pin(pin).expect("opening the program")),
            _ => Self::Inline(Xdp::from_pin(pin, XdpAttachType::Interface).expect("opening the program")),
        }
    }

    /// Returns true if the frame is withheld.
    fn withholds(&self, frame: &[u8]) -> bool {
        match self {
            Self::Egress(program) => match run(program, frame, 1).verdict {
                -1 => false,
                2 => true,
                other => panic!("a verdict of {other}"),
            },
            Self::Inline(program) => match run(program, frame, 1).verdict {
                2 => false,
                1 => true,
                other => panic!("a verdict of {other}"),
            },
        }
    }
}

#[test]
fn kernel_and_decide_agree_on_thousands_of_random_packets() {
    require_root!();
    for (seed, mode) in [(1, "egress"), (2, "inline"), (3, "egress")] {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ seed);
        let testbed = Testbed::load(&format!("mode = \"{mode}\"\n{POLICY}"));
        testbed.on_host(|| agree(&mut rng, &mut model(), mode));
    }
}

fn agree(rng: &mut Rng, model: &mut Model, mode: &str) {
    let breaker = Breaker::open(&Testbed::root()).expect("opening it");
    let program = Program::open(mode);
    let reads = SchedClassifier::from_pin(Testbed::root().inbound_program()).expect("opening the program");
    let mut senders: Vec<_> = (0..8).map(Sender::new).collect();
    let mut settled = false;
    for case in 0..cases() {
        if rng.below(60) == 0 {
            switch_at_random(rng, &breaker, model);
        }
        model.maps.clock += 1;
        let sender = &mut senders[rng.below(8) as usize];
        let key = key(sender.session, sender.port);
        let from = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), sender.port);
        let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), FIRST_PORT + sender.session as u16);
        if rng.below(4) == 0 {
            let (seq, flags, payload) = sender.answer(rng);
            // Sometimes an acknowledgement that a forger makes up.
            let ack = if rng.below(8) == 0 { rng.below(1 << 32) as u32 } else { sender.seq };
            let segment = Segment { seq, length: payload.len() as u32, ack, flags, ..Segment::default() };
            model.observe(&key, &segment, &payload);
            let mut frame = Frame::new(to, from, seq, &payload).with_flags(flags);
            frame.ack = ack;
            assert_eq!(run(&reads, &frame.bytes(), 1).verdict, -1, "inbound packets pass");
        } else {
            let before = sender.seq;
            let (seq, flags, payload) = sender.next(rng);
            let segment = Segment { seq, length: payload.len() as u32, ack: 0, flags, ..Segment::default() };
            let expected = model.process(&key, &segment, &payload);
            let frame = Frame::new(from, to, seq, &payload).with_flags(flags);
            let withheld =
                expected.map_or_else(|reason| reason == reason::FOREIGN, |verdict| verdict.withheld());
            assert_eq!(program.withholds(&frame.bytes()), withheld, "case {case}: {segment:?} {expected:?}");
            // TCP goes back to the gap sooner or later.
            if expected == Ok(Verdict::Ahead) && rng.below(3) != 0 {
                sender.seq = before;
            }
            settled |= model.connection(&key).is_some_and(|found| [4, 5].contains(&found.session));
        }
        if case % 100 == 99 {
            compare(&breaker, model, case);
        }
    }
    compare(&breaker, model, cases());
    let passed: u64 = model.counters.iter().map(|counters| counters.passed.iter().sum::<u64>()).sum();
    assert!(passed as usize > cases() / 6, "{passed} messages passed: the cases are too few");
    if slowness() > 1 {
        return;
    }
    for kind in
        [kind::REPLAYED, kind::ISOLATED, kind::UNDECLARED, kind::TRIPPED, kind::DESYNCED, kind::WOULD_TRIP]
    {
        assert!(
            model.events().iter().any(|event| event.kind == kind),
            "no event {kind}: the cases are too few"
        );
    }
    assert!(settled, "no connection was identified: the cases are too few");
}

/// Trips or resets a random scope, in the kernel and in the model.
fn switch_at_random(rng: &mut Rng, breaker: &Breaker, model: &mut Model) {
    let number = rng.below(SCOPES.into()) as u32;
    let index = breaker.names().scope(number).expect("the scope");
    model.maps.clock += 1;
    if rng.below(3) == 0 {
        breaker.trip(index, cause::MANUAL).expect("tripping");
        model.trip(number, cause::MANUAL);
        return;
    }
    for number in 0..SCOPES {
        let index = breaker.names().scope(number).expect("the scope");
        let seen = breaker.switch(index).expect("reading it");
        assert_eq!(breaker.reset(index, seen, u64::MAX).expect("resetting"), Reset::Done);
        model.reset(number);
    }
}

#[test]
fn a_withheld_segment_becomes_a_well_formed_reset() {
    require_root!();
    let testbed = Testbed::load(
        &POLICY
            .replace("on_trip = \"drop\"", "")
            .replace("\"0.0.0.0/0:9001\"", "[\"0.0.0.0/0:9001\", \"[fd00::/8]:9001\"]"),
    );
    testbed.trip("session/s1");
    for (from, to) in [("10.0.0.1:4000", "10.0.0.2:9001"), ("[fd00::1]:4000", "[fd00::2]:9001")] {
        for (options, vlan, length) in [(0, None, 1), (12, None, 1_400), (40, Some(100), 3_000)] {
            let mut frame =
                Frame::new(from.parse().expect("one"), to.parse().expect("one"), 77_000, &vec![b'8'; length]);
            (frame.options, frame.vlan) = (options, vlan);
            let ran = testbed.run(&frame.bytes(), 1);
            assert_eq!(ran.verdict, -1, "the reset passes");
            let packet = SlicedPacket::from_ethernet(&ran.packet).expect("well formed");
            let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("a TCP segment") };
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
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("host");
    let whole =
        Frame::new("10.0.0.1:4000".parse().expect("one"), "10.0.0.2:80".parse().expect("one"), 1, b"GET /")
            .bytes();
    let mut rng = Rng(4711);
    let mut short = Vec::new();
    let ran = testbed.on_host(|| {
        let program = SchedClassifier::from_pin(Testbed::root().program()).expect("opening the program");
        let mut ran = 0;
        for case in 0..cases() {
            let mut frame = whole.clone();
            for _ in 0..rng.below(6) {
                let place = 12 + rng.below(frame.len() as u64 - 12) as usize;
                frame[place] = rng.below(256) as u8;
            }
            frame.truncate(15 + rng.below(frame.len() as u64 - 14) as usize);
            let at_session =
                frame.len() >= 38 && [9001, 9002, 9003].contains(&u16::from_be_bytes([frame[36], frame[37]]));
            match try_run(&program, &frame, 1) {
                // A fragment that may hide a TCP header.
                Ok(result) if result.verdict == 2 && frame[20..22] != [0x40, 0] => {}
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
    // Frames that the kernel refuses to run are sent through the hook. An older kernel (6.18.15) has run all
    // of them.
    let malformed =
        || testbed.with_breaker(|breaker| breaker.reasons().expect("reasons")[reason::MALFORMED as usize]);
    let before = if short.is_empty() { 0 } else { malformed() };
    testbed.inject_frames(&short);
    assert!(malformed() > before, "{} short frames, none counted", short.len());
}
