//! Streams that cannot be read: their bytes count as orders, no order hides behind them, and they are shown.
//! Each `35=D` that arrives counts as an order, in whatever way a reader frames it.

use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{message, order};
use breaker_tests::receiver::{Receiver, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

const LIMIT: usize = 50;

/// Time after which no more segments arrive.
const QUIET: Duration = Duration::from_millis(400);

fn testbed(keys: &str) -> (Testbed, Receiver) {
    let limit = format!("limits = [{{ class = \"order\", max = {LIMIT}, per = \"total\" }}]");
    let testbed =
        Testbed::load(&format!("[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{limit}\n{keys}"));
    let receiver = testbed.listen(9001);
    (testbed, receiver)
}

/// Number of orders that have arrived, for a venue that searches for nothing but `35=D`.
fn arrived(connection: &TcpConnection<'_>) -> usize {
    connection.received().bytes.windows(6).filter(|window| window == b"\x0135=D\x01").count()
}

/// A message with another BodyLength.
fn with_length(message: &[u8], length: impl FnOnce(usize) -> String) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).expect("text");
    let (begin, rest) = text.split_once("\x019=").expect("a length");
    let (found, body) = rest.split_once('\x01').expect("waiting for its end");
    format!("{begin}\x019={}\x01{body}", length(found.parse().expect("a number"))).into_bytes()
}

fn replaced(message: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(message.to_vec()).expect("text").replacen(from, to, 1).into_bytes()
}

/// Messages as altered by engines, proxies and faults.
fn altered_messages() -> Vec<(&'static str, Vec<u8>)> {
    let one = order(2);
    let swapped = replaced(&one, "\x0135=D\x0149=FIRM", "\x0149=FIRM\x0135=D");
    vec![
        ("one byte short", with_length(&one, |length| (length - 1).to_string())),
        ("seven too long", with_length(&one, |length| (length + 7).to_string())),
        ("hundreds too long", with_length(&one, |length| (length + 777).to_string())),
        ("absurd", with_length(&message("FIX.4.4", "0", b""), |_| "9999999".to_owned())),
        ("negative", with_length(&one, |_| "-1".to_owned())),
        ("no length", with_length(&one, |_| String::new())),
        ("type not third", swapped),
        ("another version", replaced(&one, "FIX.4.4", "FIX.9.9")),
        ("a newline behind", [&one[..], b"\n"].concat()),
        ("a NUL before", [b"\0", &one[..]].concat()),
        ("a proxy's line", [b"PROXY TCP4 10.9.0.1 10.9.0.2 40000 9001\r\n", &one[..]].concat()),
        ("cut off", one[..70].to_vec()),
        ("a lone beginning", b"8=FIX.4.4\x019=150\x01".to_vec()),
        ("noise", vec![0xfe; 333]),
    ]
}

#[test]
fn no_order_hides_behind_unreadable_bytes() {
    require_root!();
    let orders: Vec<_> = (10..310).map(order).collect();
    for (what, bad) in altered_messages() {
        // In one write; then with each following order in a segment of its own.
        for whole in [true, false] {
            let (testbed, receiver) = testbed("");
            let mut connection = receiver.connect(&testbed);
            connection.send_and_wait(&message("FIX.4.4", "A", b"98=0\x01108=30\x01"));
            if whole {
                connection.try_send(&[&bad[..], &orders.concat()].concat());
            } else {
                connection.try_send(&bad);
                sleep(Duration::from_millis(5));
                orders
                    .iter()
                    .take_while(|order| connection.try_send(order))
                    .for_each(|_| sleep(Duration::from_micros(300)));
            }
            sleep(QUIET);
            let received = arrived(&connection);
            assert!(
                received <= LIMIT,
                "{what}, in one write: {whole}: {received} orders at a limit of {LIMIT}"
            );
            let counted = testbed.counters(1).passed[0];
            assert!(counted >= received as u64, "{what}: {received} came, {counted} were counted");
        }
    }
}

#[test]
fn no_unreadable_byte_crosses_while_tripped() {
    require_root!();
    for (what, bad) in altered_messages() {
        let (testbed, receiver) = testbed("");
        testbed.trip("session/x1");
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&message("FIX.4.4", "A", b"98=0\x01108=30\x01"));
        connection.try_send(&bad);
        sleep(Duration::from_millis(5));
        for id in 0..20 {
            connection.try_send(&order(id));
        }
        sleep(QUIET / 4);
        assert_eq!(arrived(&connection), 0, "{what}");
    }
}

#[test]
fn forms_that_engines_use_are_read() {
    require_root!();
    let pad_to = |message: &[u8]| with_length(message, |length| format!("{length:08}"));
    let of = |version: &str| message(version, "D", &order(1)[61..order(1).len() - 7]);
    let forms = [
        ("zero-pad_to BodyLength", pad_to(&order(1))),
        ("FIX.4.0", of("FIX.4.0")),
        ("FIX.5.0", of("FIX.5.0")),
        ("FIX.5.0SP2", of("FIX.5.0SP2")),
        ("FIXT.1.1", of("FIXT.1.1")),
    ];
    for (what, form) in forms {
        let (testbed, receiver) = testbed("");
        let mut connection = receiver.connect(&testbed);
        connection.send_and_wait(&form.repeat(LIMIT - 1));
        connection.send_and_wait(&form);
        let counters = testbed.counters(1);
        assert_eq!((counters.passed[0], counters.desyncs, counters.unread), (LIMIT as u64, 0, 0), "{what}");
        connection.try_send(&form);
        connection.wait_for_reset();
        assert_eq!(arrived(&connection), LIMIT, "{what}");
    }
}

#[test]
fn a_blind_stream_counts_by_its_bytes_until_it_is_readable_again() {
    require_root!();
    let (testbed, receiver) = testbed("");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&message("FIX.4.4", "A", b"98=0\x01108=30\x01"));
    assert_eq!(testbed.cli("status").exit_code, Some(0));
    // 1,950 bytes, and the Logon before them, because its length may have been wrong.
    connection.send_and_wait(&[0xfe; 1_950]);
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.blind_orders, counters.desyncs), (21, 21, 1), "{counters:?}");
    // A live connection is blind.
    let status = testbed.cli("status --json").expect_exit(11).json();
    assert_eq!((&status["sessions"][1]["blind"], &status["enforced"]["ok"]), (&1.into(), &false.into()));
    let problems = status["enforced"]["problems"].as_array().expect("problems");
    assert!(
        problems.iter().any(|problem| problem["what"] == "blind" && problem["cure"] != ""),
        "{problems:?}"
    );
    connection.send_and_wait(&order(1));
    assert_eq!(testbed.counters(1).passed[0], 22);
    testbed.cli("status --json").expect_exit(0);
    let kinds: Vec<_> =
        testbed.events().iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect();
    let count_of = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!((count_of("blind"), count_of("sighted")), (1, 1), "{kinds:?}");
}
