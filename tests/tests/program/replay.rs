//! The kernel program compared with `breaker replay`: the same random packets, from a capture.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use aya::programs::SchedClassifier;
use breaker_common::abi::{Event, cause, kind, reason};
use breaker_common::counts::SegmentCounts;
use breaker_replay::capture::Capture;
use breaker_replay::engine::{Engine, Observer, Outbound, Source};
use breaker_tests::frame::Frame;
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::test_run::run;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::{Breaker, Reset};
use breaker_user::replay::engine;

use super::sender::Sender;
use super::{FIRST_PORT, POLICY, Program, SCOPES, cases, without_times};

/// What the kernel did.
#[derive(Debug)]
enum Step {
    /// The verdict on a packet: true if it was withheld.
    Packet(bool),
    /// A person tripped a scope.
    Trip(u32),
    /// A person reset all scopes.
    Reset,
}

/// Verdicts and trips of a replay.
#[derive(Default)]
struct Found {
    withheld: Option<bool>,
    trips: Vec<(u32, u64, u64)>,
}

impl Observer for Found {
    fn outbound(&mut self, segment: &Outbound<'_>) {
        self.withheld = Some(segment.verdict.withheld());
    }

    fn inbound(&mut self, _: u64, _: u32, _: &SegmentCounts) {}

    fn without_verdict(&mut self, found: u32) {
        self.withheld = Some(found == reason::FOREIGN);
    }

    fn event(&mut self, _: u64, event: &Event, source: Source) {
        if event.kind == kind::TRIPPED && source != Source::Open {
            self.trips.push((event.scope, event.cause, event.used));
        }
    }
}

#[test]
fn kernel_and_replay_agree_on_thousands_of_random_packets() {
    require_root!();
    for seed in [11, 12] {
        let testbed = Testbed::load(POLICY);
        let (steps, capture) = testbed.on_host(|| record(&mut Rng(0x9e37_79b9_7f4a_7c15 ^ seed)));
        let mut engine = engine(&testbed.policy(), false).expect("laying the policy out");
        let found = replay(&mut engine, &steps, &capture);
        testbed.with_breaker(move |breaker| compare(breaker, &engine, &found));
    }
}

/// Runs random packets through the kernel program, and records them as a capture.
fn record(rng: &mut Rng) -> (Vec<Step>, Vec<u8>) {
    let breaker = Breaker::open(&Testbed::root()).expect("opening it");
    let program = Program::open("egress");
    let reads = SchedClassifier::from_pin(Testbed::root().inbound_program()).expect("opening the program");
    let mut senders: Vec<_> = (0..8).map(Sender::new).collect();
    let mut capture = Vec::new();
    capture.extend([0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 1 << 18, 1].map(u32::to_le_bytes).concat());
    let mut steps = Vec::new();
    for case in 0..cases() {
        if rng.below(60) == 0 {
            steps.push(switch(rng, &breaker));
        }
        let sender = &mut senders[rng.below(8) as usize];
        let from = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), sender.port);
        let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), FIRST_PORT + sender.session as u16);
        let frame = if rng.below(4) == 0 {
            let (seq, flags, payload) = sender.answer(rng);
            let mut frame = Frame::new(to, from, seq, &payload).with_flags(flags);
            frame.ack = if rng.below(8) == 0 { rng.below(1 << 32) as u32 } else { sender.seq };
            assert_eq!(run(&reads, &frame.bytes(), 1).verdict, -1, "inbound packets pass");
            steps.push(Step::Packet(false));
            frame.bytes()
        } else {
            let before = sender.seq;
            let (seq, flags, payload) = sender.next(rng);
            let frame = Frame::new(from, to, seq, &payload).with_flags(flags).bytes();
            let withheld = program.withholds(&frame);
            steps.push(Step::Packet(withheld));
            // TCP goes back to a withheld segment sooner or later.
            if withheld && rng.below(3) != 0 {
                sender.seq = before;
            }
            frame
        };
        let length = frame.len() as u32;
        let header = [1_700_000_000, case as u32, length, length].map(u32::to_le_bytes).concat();
        capture.write_all(&[header, frame].concat()).expect("writing to memory");
    }
    (steps, capture)
}

/// Trips a random scope, or resets all scopes.
fn switch(rng: &mut Rng, breaker: &Breaker) -> Step {
    let number = rng.below(SCOPES.into()) as u32;
    if rng.below(3) == 0 {
        let index = breaker.names().scope(number).expect("the scope");
        breaker.trip(index, cause::MANUAL).expect("tripping");
        return Step::Trip(number);
    }
    for number in 0..SCOPES {
        let index = breaker.names().scope(number).expect("the scope");
        let seen = breaker.switch(index).expect("reading it");
        assert_eq!(breaker.reset(index, seen, u64::MAX).expect("resetting"), Reset::Done);
    }
    Step::Reset
}

fn replay(engine: &mut Engine, steps: &[Step], bytes: &[u8]) -> Found {
    let mut capture = Capture::open(bytes).expect("a capture");
    let mut found = Found::default();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Trip(scope) => engine.trip(*scope, cause::MANUAL),
            Step::Reset => (0..SCOPES).for_each(|scope| engine.reset(scope)),
            Step::Packet(expected) => {
                assert!(capture.advance(), "the capture ends at step {number}");
                let packet = capture.packet().expect("a packet");
                found.withheld = None;
                engine.packet(&packet, &mut found);
                let withheld = found.withheld.unwrap_or(false);
                assert_eq!(withheld, *expected, "step {number}: {packet:?}");
            }
        }
    }
    assert!(!capture.advance() && capture.broken().is_none(), "{:?}", capture.broken());
    found
}

fn compare(breaker: &Breaker, engine: &Engine, found: &Found) {
    let model = engine.enforced();
    for number in 0..SCOPES {
        let index = breaker.names().scope(number).expect("the scope");
        let expected = without_times(&breaker.scope(index).expect("reading it"));
        assert_eq!(without_times(&model.scope(number)), expected, "scope {number}");
    }
    assert_eq!(model.counters, breaker.counters().expect("counters"));
    let passed: u64 = model.counters.iter().map(|counters| counters.passed.iter().sum::<u64>()).sum();
    assert!(passed as usize > cases() / 10, "{passed} messages passed: the cases are too few");
    assert!(found.trips.len() > 3, "{} trips: the cases are too few", found.trips.len());
}
