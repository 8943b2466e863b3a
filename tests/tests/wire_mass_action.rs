//! OrderMassActionRequest (CA) on the wire: an order or a cancel, by MassActionType(1373).

use breaker_tests::frame::spelt;
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Line, Sink};
use breaker_user::testbed::TwoHosts;

const HEAD: &str = "49=FIRM|56=VENUE|34=7|52=20261122-09:30:00.000|";
const ORDER: [u64; 5] = [1, 0, 0, 0, 0];
const CANCEL: [u64; 5] = [0, 1, 0, 0, 0];

/// A rig with one session with these keys, and the venue's end.
fn rig(keys: &str) -> (Rig, Sink) {
    let rig = Rig::new(&format!("[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}\n"));
    let sink = Sink::listen(&rig.wire.venue, TwoHosts::venue_socket(9001));
    (rig, sink)
}

fn connect<'a>(rig: &Rig, sink: &'a Sink) -> Line<'a> {
    sink.connect(&rig.wire.firm)
}

/// A mass action with these fields behind its header.
fn mass(fields: &str) -> Vec<u8> {
    spelt(&format!("35=CA|{HEAD}11=M-1|{fields}"))
}

/// Fields, and what they make of it.
fn actions() -> Vec<(String, [u64; 5])> {
    let long = "x".repeat(2_000);
    [
        ("1373=1|1374=7|".to_owned(), CANCEL),
        ("1374=7|55=IBM|1373=3|".to_owned(), CANCEL),
        (format!("58={long}|1373=3|"), CANCEL),
        (format!("354=2000|355={long}|1373=1|"), CANCEL),
        ("354=12|355=|1373=2|358=|1373=3|".to_owned(), CANCEL),
        ("1373=2|1374=7|".to_owned(), ORDER),
        ("1374=7|".to_owned(), ORDER),
        ("".to_owned(), ORDER),
        ("1373=|".to_owned(), ORDER),
        ("1373=4|".to_owned(), ORDER),
        ("1373=13|".to_owned(), ORDER),
        ("1373=31|".to_owned(), ORDER),
        ("11373=3|13730=3|373=3|1374=3|".to_owned(), ORDER),
        ("58=1373=3|1374=1|".to_owned(), ORDER),
        ("354=10|355=x|1373=3|x|1374=1|".to_owned(), ORDER),
    ]
    .to_vec()
}

#[test]
fn it_counts_as_what_it_does() {
    if !privileged() {
        return;
    }
    let (rig, sink) = rig("");
    let mut line = connect(&rig, &sink);
    let mut expected = [0; 5];
    for (fields, counts) in actions() {
        line.deliver(&mass(&fields));
        expected.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
        assert_eq!(rig.counters(1).passed, expected, "{fields}");
    }
    // All of them at once, and what follows each is still found.
    let all: Vec<u8> =
        actions().iter().flat_map(|(fields, _)| [mass(fields), spelt("35=0|")].concat()).collect();
    line.deliver(&all);
    expected = expected.map(|sum| 2 * sum);
    expected[4] = actions().len() as u64;
    assert_eq!((rig.counters(1).passed, rig.counters(1).desyncs), (expected, 0));
}

#[test]
fn it_is_what_it_does_however_it_is_cut() {
    if !privileged() {
        return;
    }
    let (rig, sink) = rig("");
    let mut line = connect(&rig, &sink);
    let mut expected = [0; 5];
    let short = actions().into_iter().filter(|(fields, _)| fields.len() < 100);
    for (fields, counts) in short.step_by(2) {
        let message = spelt(&format!("35=CA|49=F|{fields}"));
        for cut in 1..message.len() {
            line.deliver(&message[..cut]);
            line.deliver(&message[cut..]);
            expected.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
        }
        message.iter().for_each(|byte| line.deliver(&[*byte]));
        expected.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
        assert_eq!((rig.counters(1).passed, rig.counters(1).desyncs), (expected, 0), "{fields}");
    }
}

#[test]
fn while_tripped_it_passes_where_it_reduces_risk() {
    if !privileged() {
        return;
    }
    let (rig, sink) = rig("");
    rig.trip("session/x1");
    for (fields, counts) in actions() {
        let mut line = connect(&rig, &sink);
        if counts == CANCEL {
            line.deliver(&mass(&fields));
        } else {
            line.offer(&mass(&fields));
            assert_eq!(line.reset().count("CA"), 0, "{fields}");
            // Or three of them would isolate it.
            rig.reset("session/x1");
            rig.trip("session/x1");
        }
    }
    let count = |class| actions().iter().filter(|(_, counts)| *counts == class).count() as u64;
    let counters = rig.counters(1);
    assert_eq!(
        (counters.passed, counters.withheld),
        ([0, count(CANCEL), 0, 0, 0], [count(ORDER), 0, 0, 0, 0])
    );
}

#[test]
fn while_tripped_its_end_is_withheld_where_only_that_tells_what_it_does() {
    if !privileged() {
        return;
    }
    let (rig, sink) = rig("");
    rig.trip("session/x1");
    for (fields, passes) in [("1373=3|55=A|", true), ("1373=2|55=A|", false), ("55=A|", false)] {
        let message = mass(fields);
        let tells = message
            .windows(8)
            .position(|window| window == b"\x011373=2\x01")
            .map_or(message.len(), |at| at + 8);
        for cut in 1..message.len() {
            let mut line = connect(&rig, &sink);
            if passes {
                line.deliver(&message[..cut]);
                line.deliver(&message[cut..]);
                assert_eq!(line.received().end, End::Open, "cut at {cut}");
                continue;
            }
            let crosses = if cut < tells { &message[..cut] } else { b"" };
            if crosses.is_empty() {
                line.offer(&message[..cut]);
            } else {
                line.deliver(crosses);
                line.offer(&message[cut..]);
            }
            // The venue executes no message that is not whole.
            assert_eq!(line.reset().bytes, crosses, "{fields} cut at {cut}");
            rig.reset("session/x1");
            rig.trip("session/x1");
        }
    }
}

#[test]
fn limits_count_it_as_what_it_does() {
    if !privileged() {
        return;
    }
    let (rig, sink) = rig(
        "limits = [{ class = \"order\", max = 2, per = \"total\" }, { class = \"cancel\", max = 3, per = \"total\" }]",
    );
    let mut line = connect(&rig, &sink);
    for fields in ["1373=1|", "1373=2|", "1373=3|", "", "1373=1|"] {
        line.deliver(&mass(fields));
    }
    line.offer(&mass("1373=2|"));
    assert_eq!(line.reset().whole("CA"), 5);
    rig.reset("session/x1");
    let mut line = connect(&rig, &sink);
    (0..3).for_each(|_| line.deliver(&mass("1373=3|")));
    line.offer(&mass("1373=3|"));
    assert_eq!(line.reset().whole("CA"), 3);
    assert_eq!((rig.counters(1).passed, rig.counters(1).withheld), ([2, 6, 0, 0, 0], [1, 1, 0, 0, 0]));
}

#[test]
fn a_sessions_own_opinion_of_it_stands() {
    if !privileged() {
        return;
    }
    let (rig, sink) = rig("classes = { CA = \"order\" }");
    let mut line = connect(&rig, &sink);
    line.deliver(&mass("1373=3|"));
    assert_eq!(rig.counters(1).passed, ORDER);
    rig.trip("session/x1");
    line.reset();
    let mut line = connect(&rig, &sink);
    line.offer(&mass("1373=3|"));
    assert_eq!(line.reset().count("CA"), 0);
}
