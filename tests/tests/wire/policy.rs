//! Settings of the policy: lost streams, a session's own classes, presets, and warning levels.

use std::time::{Duration, Instant};

use breaker_common::abi::Counters;
use breaker_tests::frame::{message, order};
use breaker_tests::receiver::{End, Receiver};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::Value;

/// A session with these keys.
fn session(keys: &str) -> String {
    format!("[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}\n")
}

/// Events of a kind for `session/x1`.
fn events_on_session(testbed: &Testbed, kind: &str) -> Vec<Value> {
    testbed
        .events()
        .into_iter()
        .filter(|event| event["kind"] == kind && event["scope"] == "session/x1")
        .collect()
}

/// An order with a BodyLength that is too large or too small.
fn with_wrong_length(id: u32, more: i32) -> Vec<u8> {
    let original = String::from_utf8(order(id)).expect("text");
    let (head, rest) = original.split_once("\x0135=").expect("a header");
    let (begin, length) = head.split_once("\x019=").expect("a length");
    let length: i32 = length.parse().expect("a number");
    format!("{begin}\x019={}\x0135={rest}", length + more).into_bytes()
}

fn noise() -> Vec<u8> {
    b"this is no FIX, and it comes where a message must begin".to_vec()
}

/// A segment: whether the framing is lost in it, its counted orders, and the orders that its unread bytes
/// count as.
struct SegmentCase {
    bytes: Vec<u8>,
    lost: bool,
    orders: u64,
    blind: u64,
}

/// Ways to lose a stream's framing: orders, a fault, and orders again.
fn lost_streams() -> Vec<(&'static str, Vec<SegmentCase>)> {
    let segment = |bytes, lost, (orders, blind)| SegmentCase { bytes, lost, orders, blind };
    let good = |id| segment(order(id), false, (1, 0));
    let behind = [order(2), noise()].concat();
    // The faulty bytes and the order before them are unread; one order among them is counted.
    let unread = |bytes: usize| (bytes.div_ceil(100) - 1) as u64;
    let [one, two, with_noise] =
        [order(2).len(), 2 * order(2).len(), order(2).len() + noise().len()].map(unread);
    vec![
        (
            "noise",
            vec![
                good(1),
                good(2),
                segment(noise(), true, (0, with_noise)),
                segment(noise(), false, (0, 1)),
                good(3),
                good(4),
            ],
        ),
        (
            "too short",
            vec![good(1), good(2), segment(with_wrong_length(3, -10), true, (1, one)), good(4), good(5)],
        ),
        // A message whose length is too large takes the next header as part of its body.
        (
            "too long",
            vec![
                good(1),
                segment(with_wrong_length(2, 20), false, (1, 0)),
                segment(order(3), true, (0, two)),
                good(4),
            ],
        ),
        (
            "behind an order",
            vec![good(1), segment(behind, true, (1, with_noise)), segment(noise(), false, (0, 1)), good(3)],
        ),
    ]
}

fn bytes(segments: &[SegmentCase]) -> Vec<u8> {
    segments.iter().flat_map(|segment| segment.bytes.clone()).collect()
}

fn orders(segments: &[SegmentCase]) -> u64 {
    segments.iter().map(|segment| segment.orders).sum()
}

fn blind(segments: &[SegmentCase]) -> u64 {
    segments.iter().map(|segment| segment.blind).sum()
}

#[test]
fn a_lost_stream_passes_and_counts_as_the_policy_on_desync_says() {
    require_root!();
    // A disarmed session does not trip for a lost stream either.
    for keys in ["on_desync = \"warn\"", "on_desync = \"count\"", "on_desync = \"trip\"\narmed = false"] {
        for (what, segments) in lost_streams() {
            let testbed = Testbed::load(&session(keys));
            let receiver = testbed.listen(9001);
            let mut connection = receiver.connect(&testbed);
            segments.iter().for_each(|segment| connection.send_and_wait(&segment.bytes));
            assert!(connection.received().bytes == bytes(&segments), "{what}: all of it passes");
            let counters = testbed.counters(1);
            let counted = (counters.passed, counters.withheld, counters.desyncs);
            let all = orders(&segments) + if keys.contains("warn") { 0 } else { blind(&segments) };
            assert_eq!(counted, ([all, 0, 0, 0, 0], [0; 5], 1), "{what}, {keys}");
            assert!(!testbed.scope("session/x1").tripped);
            assert_eq!(events_on_session(&testbed, "desynced").len(), 1, "{what}");
        }
    }
}

#[test]
fn a_lost_stream_trips_if_the_policy_says_so() {
    require_root!();
    for (what, segments) in lost_streams() {
        // The session's own setting overrides that of the host.
        let testbed = Testbed::load(&format!("on_desync = \"warn\"\n{}", session("on_desync = \"trip\"")));
        let receiver = testbed.listen(9001);
        let mut connection = receiver.connect(&testbed);
        let lost = segments.iter().position(|segment| segment.lost).expect("it is lost");
        segments[..lost].iter().for_each(|segment| connection.send_and_wait(&segment.bytes));
        connection.try_send(&segments[lost].bytes);
        let received = connection.wait_for_reset().bytes;
        let before = bytes(&segments[..lost]);
        assert!(
            received == before,
            "{what}: {} bytes came where {} were before it",
            received.len(),
            before.len()
        );
        let counters = testbed.counters(1);
        let counted = (counters.passed[0], counters.withheld[0], counters.desyncs, counters.packets_withheld);
        let withheld = segments[lost].orders + segments[lost].blind;
        assert_eq!(counted, (orders(&segments[..lost]), withheld, 1, 1), "{what}");
        let (status, scope) = (testbed.status(), testbed.scope("session/x1"));
        assert_eq!(
            (scope.tripped, scope.causes.as_slice(), status.packets["desync"]),
            (true, &["desync"][..], 1)
        );
        assert_eq!(events_on_session(&testbed, "desynced").len(), 1, "{what}");
        let tripped = events_on_session(&testbed, "tripped");
        assert_eq!((tripped.len(), &tripped[0]["cause"]), (1, &"desync".into()), "{what}");
    }
}

/// Passed messages of each session, by class.
fn passed(testbed: &Testbed) -> [[u64; 5]; 2] {
    [1, 2].map(|session| testbed.counters(session).passed)
}

const OWN_CLASSES: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
classes = { U1 = "query", U2 = "cancel", UFOREIGN = "admin", D = "admin", 8 = "order", F = "interest" }
limits = [{ class = "order", max = 2, per = "total" }, { class = "cancel", max = 1, per = "total" }]
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
"#;

fn message_of_type(msg_type: &str) -> Vec<u8> {
    message("FIX.4.4", msg_type, b"11=R-1\x0141=R-0\x01")
}

#[test]
fn the_classes_of_a_session_apply_to_no_other_session() {
    require_root!();
    let testbed = Testbed::load(OWN_CLASSES);
    let receivers = [9001, 9002].map(|port| testbed.listen(port));
    let [mut own, mut usual] = receivers.each_ref().map(|receiver| receiver.connect(&testbed));
    for msg_type in ["U1", "U2", "UFOREIGN", "D", "8", "F", "UFOREIGM"] {
        own.send_and_wait(&message_of_type(msg_type));
        usual.send_and_wait(&message_of_type(msg_type));
    }
    // Order, cancel, interest, query, admin. A type in no dictionary is an order.
    assert_eq!(passed(&testbed), [[2, 1, 1, 1, 2], [5, 1, 0, 1, 0]]);
    // A type that is not an order here is not limited; a type that is an order here is.
    (0..10).for_each(|_| own.send_and_wait(&message_of_type("D")));
    own.try_send(&message_of_type("8"));
    assert_eq!(own.wait_for_reset().complete("8"), 1);
    assert_eq!(testbed.counters(1).withheld, [1, 0, 0, 0, 0]);
    // The limit of the other class is independent.
    testbed.reset("session/x1");
    let mut own = receivers[0].connect(&testbed);
    own.send_and_wait(&message_of_type("U2"));
    own.try_send(&message_of_type("U2"));
    assert_eq!(own.wait_for_reset().complete("U2"), 1);
    usual.send_and_wait(&message_of_type("D"));
}

#[test]
fn while_tripped_the_classes_of_a_session_decide_what_passes() {
    require_root!();
    for (rule, passing, withheld) in [
        ("reduce-only", &["A", "U1", "U2", "UFOREIGN", "D", "H"][..], &["8", "F", "U3", "UFOREIGM", "G"][..]),
        ("admin-only", &["A", "UFOREIGN", "D"], &["U1", "U2", "8", "F", "H"]),
    ] {
        for last in withheld {
            let testbed = Testbed::load(&format!("while_tripped = \"{rule}\"\n{OWN_CLASSES}"));
            let receivers = [9001, 9002].map(|port| testbed.listen(port));
            testbed.trip("host");
            let mut own = receivers[0].connect(&testbed);
            passing.iter().for_each(|msg_type| own.send_and_wait(&message_of_type(msg_type)));
            own.try_send(&message_of_type(last));
            let received = own.wait_for_reset();
            assert_eq!((received.complete("D"), received.count(last)), (1, 0), "{rule}: {last}");
            let mut usual = receivers[1].connect(&testbed);
            usual.send_and_wait(&message_of_type("A"));
            usual.try_send(&message_of_type("D"));
            assert_eq!(usual.wait_for_reset().count("D"), 0, "{rule}");
        }
    }
}

#[test]
fn a_warning_is_raised_once_a_level_and_again_after_the_use_fell() {
    require_root!();
    let window = Duration::from_secs(2);
    let testbed = Testbed::load(&session(
        r#"limits = [{ class = "order", max = 20, per = "2s", warn = [50, 75, 90] },
                  { class = "message", max = 1000, per = "1h" }]"#,
    ));
    let receiver = testbed.listen(9001);
    let mut connection = receiver.connect(&testbed);
    let started = Instant::now();
    (0..20).for_each(|id| connection.send_and_wait(&order(id)));
    connection.send_and_wait(&message_of_type("F"));
    assert!(started.elapsed() < window, "this host is too slow for a window of {window:?}");
    std::thread::sleep(window);
    let started = Instant::now();
    (0..17).for_each(|id| connection.send_and_wait(&order(id)));
    assert!(started.elapsed() < window, "this host is too slow for a window of {window:?}");
    // A segment that rises by two levels has one warning.
    std::thread::sleep(window);
    connection.send_and_wait(&(0..9).flat_map(order).collect::<Vec<_>>());
    connection.send_and_wait(&(9..16).flat_map(order).collect::<Vec<_>>());
    assert!(!testbed.scope("session/x1").tripped);
    let warned = events_on_session(&testbed, "warned");
    let levels: Vec<_> = warned
        .iter()
        .map(|connection| (connection["counts"]["used"].as_u64(), connection["counts"]["level"].as_u64()))
        .collect();
    let expected =
        [(10, 1), (15, 2), (18, 3), (10, 1), (15, 2), (16, 2)].map(|(used, level)| (Some(used), Some(level)));
    assert_eq!(levels, expected);
    assert!(warned.iter().all(|event| event["counts"]["limit"] == "20 order per 2s"), "{warned:?}");
}

#[test]
fn a_limit_without_levels_never_warns_and_a_disarmed_one_would_trip_once() {
    require_root!();
    let testbed = Testbed::load(&session(
        "armed = false\nlimits = [{ class = \"order\", max = 5, per = \"1h\", warn = [] }, \
         { class = \"message\", max = 8, per = \"1h\", warn = [99] }]",
    ));
    let receiver = testbed.listen(9001);
    let mut connection = receiver.connect(&testbed);
    (0..12).for_each(|id| connection.send_and_wait(&order(id)));
    let warned: Vec<_> =
        events_on_session(&testbed, "warned").iter().map(|event| event["counts"]["used"].clone()).collect();
    assert_eq!(warned, [8]);
    let would: Vec<_> = events_on_session(&testbed, "would_trip")
        .iter()
        .map(|event| event["counts"]["used"].clone())
        .collect();
    assert_eq!(would, [6, 9]);
    assert_eq!((testbed.counters(1).passed[0], connection.received().end), (12, End::Open));
}

/// Sends messages at once and then one more, which must trip. Returns false if that took longer than the
/// window.
fn fills_window(
    testbed: &Testbed,
    receiver: &Receiver,
    msg_type: &str,
    count: usize,
    window: Duration,
) -> bool {
    let mut connection = receiver.connect(testbed);
    let one = message_of_type(msg_type);
    let started = Instant::now();
    connection.send_and_wait(&one.repeat(count));
    let filled = (connection.received().end, testbed.scope("session/x1").tripped);
    connection.try_send(&one);
    let took = started.elapsed();
    if took >= window {
        println!("{count} of {msg_type} took {took:?}: nothing can be said of a window of {window:?}");
        return false;
    }
    assert_eq!(filled, (End::Open, false), "{count} of {msg_type} pass");
    let received = connection.wait_for_reset();
    assert_eq!((received.complete(msg_type), received.count(msg_type)), (count, count));
    let scope = testbed.scope("session/x1");
    assert_eq!((scope.tripped, scope.causes), (true, vec!["rate"]));
    true
}

/// Repeats [`fills`] on new testbeds until one run is fast enough.
fn trips_at(keys: &str, msg_type: &str, count: usize, window: Duration) {
    let tried = |_| {
        let testbed = Testbed::load(&session(keys));
        let receiver = testbed.listen(9001);
        let filled = fills_window(&testbed, &receiver, msg_type, count, window);
        let Counters { passed, withheld, desyncs, .. } = testbed.counters(1);
        filled.then(|| {
            assert_eq!((passed.iter().sum(), withheld.iter().sum(), desyncs), (count as u64, 1u64, 0))
        })
    };
    assert!((0..5).find_map(tried).is_some(), "this host is too slow for {keys}");
}

#[test]
fn a_preset_passes_the_venues_limit_and_trips_at_the_next_message() {
    require_root!();
    for (preset, orders, ms) in [
        ("cme", 500, 3_000),
        ("eurex-hf", 150, 1_000),
        ("eurex-lf", 50, 1_000),
        ("cboe-digital", 100, 1_000),
        ("cboe-us", 10_000, 1_000),
        ("refinitiv", 15, 5_000),
    ] {
        trips_at(&format!("preset = \"{preset}\""), "D", orders, Duration::from_millis(ms));
    }
    trips_at("preset = \"cme\"", "F", 1_000, Duration::from_secs(3));
}

#[test]
fn a_limit_replaces_the_presets_of_its_class_only() {
    require_root!();
    let wider = "preset = \"cme\"\nlimits = [{ class = \"order\", max = 700, per = \"1h\" }]";
    let narrower = "preset = \"cme\"\nlimits = [{ class = \"order\", max = 7, per = \"1h\" }]";
    for (keys, msg_type, count, window) in [
        (wider, "D", 700, Duration::from_secs(60)),
        (narrower, "D", 7, Duration::from_secs(60)),
        (narrower, "F", 1_000, Duration::from_secs(3)),
    ] {
        trips_at(keys, msg_type, count, window);
    }
}
