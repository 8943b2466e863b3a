//! OrderMassActionRequest(CA) is an order or a cancel, by MassActionType(1373).

use breaker_tests::frame::message_with_body;
use breaker_tests::receiver::{End, Receiver};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

const HEAD: &str = "49=FIRM|56=VENUE|34=7|52=20261122-09:30:00.000|";
const ORDER: [u64; 5] = [1, 0, 0, 0, 0];
const CANCEL: [u64; 5] = [0, 1, 0, 0, 0];

/// A testbed with one session with these keys, and the venue's end.
fn testbed(keys: &str) -> (Testbed, Receiver) {
    let testbed = Testbed::load(&format!("[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}\n"));
    let receiver = testbed.listen(9001);
    (testbed, receiver)
}

/// A mass action with these fields behind its header.
fn mass(fields: &str) -> Vec<u8> {
    message_with_body(&format!("35=CA|{HEAD}11=M-1|{fields}"))
}

/// Fields of mass actions, and the counts of each.
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
fn a_mass_action_counts_by_its_type() {
    require_root!();
    let (testbed, receiver) = testbed("");
    let mut connection = receiver.connect(&testbed);
    let mut expected = [0; 5];
    for (fields, counts) in actions() {
        connection.send_and_wait(&mass(&fields));
        expected.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
        assert_eq!(testbed.counters(1).passed, expected, "{fields}");
    }
    // All of them in one write: the messages behind each are still found.
    let all: Vec<u8> = actions()
        .iter()
        .flat_map(|(fields, _)| [mass(fields), message_with_body("35=0|")].concat())
        .collect();
    connection.send_and_wait(&all);
    expected = expected.map(|sum| 2 * sum);
    expected[4] = actions().len() as u64;
    assert_eq!((testbed.counters(1).passed, testbed.counters(1).desyncs), (expected, 0));
}

#[test]
fn a_mass_action_counts_by_its_type_however_cut() {
    require_root!();
    let (testbed, receiver) = testbed("");
    let mut connection = receiver.connect(&testbed);
    let mut expected = [0; 5];
    let short = actions().into_iter().filter(|(fields, _)| fields.len() < 100);
    for (fields, counts) in short.step_by(2) {
        let message = message_with_body(&format!("35=CA|49=F|{fields}"));
        for cut in 1..message.len() {
            connection.send_and_wait(&message[..cut]);
            connection.send_and_wait(&message[cut..]);
            expected.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
        }
        message.iter().for_each(|byte| connection.send_and_wait(&[*byte]));
        expected.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
        assert_eq!((testbed.counters(1).passed, testbed.counters(1).desyncs), (expected, 0), "{fields}");
    }
}

#[test]
fn while_tripped_a_mass_action_passes_if_it_reduces_risk() {
    require_root!();
    let (testbed, receiver) = testbed("");
    testbed.trip("session/x1");
    for (fields, counts) in actions() {
        let mut connection = receiver.connect(&testbed);
        if counts == CANCEL {
            connection.send_and_wait(&mass(&fields));
        } else {
            connection.try_send(&mass(&fields));
            assert_eq!(connection.wait_for_reset().count("CA"), 0, "{fields}");
            // Without the reset, three of them would isolate the session.
            testbed.reset("session/x1");
            testbed.trip("session/x1");
        }
    }
    let count = |class| actions().iter().filter(|(_, counts)| *counts == class).count() as u64;
    let counters = testbed.counters(1);
    assert_eq!(
        (counters.passed, counters.withheld),
        ([0, count(CANCEL), 0, 0, 0], [count(ORDER), 0, 0, 0, 0])
    );
}

#[test]
fn while_tripped_the_end_of_a_mass_action_is_withheld_if_it_is_an_order() {
    require_root!();
    let (testbed, receiver) = testbed("");
    testbed.trip("session/x1");
    for (fields, passes) in [("1373=3|55=A|", true), ("1373=2|55=A|", false), ("55=A|", false)] {
        let message = mass(fields);
        let tells = message
            .windows(8)
            .position(|window| window == b"\x011373=2\x01")
            .map_or(message.len(), |at| at + 8);
        for cut in 1..message.len() {
            let mut connection = receiver.connect(&testbed);
            if passes {
                connection.send_and_wait(&message[..cut]);
                connection.send_and_wait(&message[cut..]);
                assert_eq!(connection.received().end, End::Open, "cut at {cut}");
                continue;
            }
            let crosses = if cut < tells { &message[..cut] } else { b"" };
            if crosses.is_empty() {
                connection.try_send(&message[..cut]);
            } else {
                connection.send_and_wait(crosses);
                connection.try_send(&message[cut..]);
            }
            // A venue executes no incomplete message.
            assert_eq!(connection.wait_for_reset().bytes, crosses, "{fields} cut at {cut}");
            testbed.reset("session/x1");
            testbed.trip("session/x1");
        }
    }
}

#[test]
fn limits_count_a_mass_action_by_its_type() {
    require_root!();
    let (testbed, receiver) = testbed(
        "limits = [{ class = \"order\", max = 2, per = \"total\" }, { class = \"cancel\", max = 3, per = \
         \"total\" }]",
    );
    let mut connection = receiver.connect(&testbed);
    for fields in ["1373=1|", "1373=2|", "1373=3|", "", "1373=1|"] {
        connection.send_and_wait(&mass(fields));
    }
    connection.try_send(&mass("1373=2|"));
    assert_eq!(connection.wait_for_reset().complete("CA"), 5);
    testbed.reset("session/x1");
    let mut connection = receiver.connect(&testbed);
    (0..3).for_each(|_| connection.send_and_wait(&mass("1373=3|")));
    connection.try_send(&mass("1373=3|"));
    assert_eq!(connection.wait_for_reset().complete("CA"), 3);
    assert_eq!(
        (testbed.counters(1).passed, testbed.counters(1).withheld),
        ([2, 6, 0, 0, 0], [1, 1, 0, 0, 0])
    );
}

#[test]
fn the_classes_of_a_session_apply_to_mass_actions() {
    require_root!();
    let (testbed, receiver) = testbed("classes = { CA = \"order\" }");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&mass("1373=3|"));
    assert_eq!(testbed.counters(1).passed, ORDER);
    testbed.trip("session/x1");
    connection.wait_for_reset();
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&mass("1373=3|"));
    assert_eq!(connection.wait_for_reset().count("CA"), 0);
}
