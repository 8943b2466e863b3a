//! Fuzzes captures with arbitrary bytes.
//!
//! Nothing panics, no capture needs much memory, and no more messages pass than the capture has.
#![no_main]

use breaker_common::abi::Event;
use breaker_common::counts::SegmentCounts;
use breaker_common::message::LimitClass;
use breaker_replay::capture::Capture;
use breaker_replay::engine::{Engine, Observer, Outbound, Settings, Source};
use breaker_replay::model::Model;
use libfuzzer_sys::fuzz_target;

/// Orders that session 1 may send.
const MAX: u64 = 3;
const SECOND: u64 = 1_000_000_000;

fuzz_target!(|data: &[u8]| {
    let settings = |ordered, enforced| Settings { inbound: true, ordered, enforced };
    for settings in [settings(true, true), settings(false, true), settings(true, false)] {
        replay(data, settings);
    }
});

/// Messages that passed in each session.
#[derive(Default)]
struct Passed([u64; 3]);

impl Observer for Passed {
    fn outbound(&mut self, segment: &Outbound<'_>) {
        if let Some(passed) = self.0.get_mut(segment.session as usize)
            && !segment.verdict.withheld()
        {
            *passed += u64::from(segment.counts.messages[0]);
        }
    }

    fn inbound(&mut self, _: u64, _: u32, _: &SegmentCounts) {}

    fn event(&mut self, _: u64, _: &Event, _: Source) {}
}

/// Two sessions at the ports 9001 and 9002 of any address, the first one with a limit for ever.
fn model() -> Model {
    let mut model = Model::new(1, &[&[1], &[1]]);
    model.add_limit(model.scope_of(1), LimitClass::Order, MAX, 0);
    model.add_limit(1, LimitClass::Message, 20, SECOND);
    model.max_connections = 8;
    model.max_transient = 64;
    model
}

fn replay(data: &[u8], settings: Settings) {
    let Ok(mut capture) = Capture::open(data) else { return };
    let (mut engine, mut passed) = (Engine::new(model(), settings), Passed::default());
    while capture.advance() {
        let packet = capture.packet().expect("advance has found a packet");
        assert!(packet.data.len() <= packet.length as usize);
        engine.packet(&packet, &mut passed);
    }
    engine.finish(&mut passed);
    let figures = engine.figures();
    assert_eq!(figures.packets, capture.packets());
    for model in [engine.open(), engine.enforced()] {
        assert!(model.connections.len() <= 8 && model.transient.len() <= 64 && model.inbound.len() <= 72);
    }
    if settings.enforced {
        assert!(passed.0[1] <= MAX, "{} orders of {MAX}", passed.0[1]);
    }
}
