//! QuickFIX, a FIX engine by others, at both ends: trips, reconnects, resends and resets.
//!
//! An engine stores undelivered messages. After the next Logon the venue asks for them with a ResendRequest,
//! and the engine replays them with PossDupFlag(43)=Y. A replay is an order like any other: while tripped it
//! fences its connection, and the engine reconnects a second later, again and again. An engine with
//! PersistMessages=N fills the gap instead and stays logged on. Each test names the engine that it runs. The
//! venue reports each message of its connection before its session layer reads the message.

use std::time::{Duration, Instant};

use breaker_common::message::Class;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

#[path = "../quickfix/engine.rs"]
mod engine;
use engine::{Engine, Mark, Order};

/// Replays pass after a reset, so that they can be told apart from stale orders. Only
/// [`replays_after_the_reset_arrive_if_the_policy_allows_them`] tests the replay guard (`possdup = "block"`).
const POLICY: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
possdup = "pass"
"#;
const ORDER: usize = Class::Order as usize;
const CANCEL: usize = Class::Cancel as usize;
const START: Mark = Mark::START;

/// Both engines, logged on, after 20 orders.
fn trading(testbed: &Testbed, settings: &str) -> (Engine, Engine) {
    let venue = Engine::venue(&testbed.network.venue);
    let mut firm = Engine::firm(&testbed.network.firm, settings);
    firm.wait_for("logon", START);
    firm.order(1, 20);
    venue.wait_for_orders(20, START);
    assert_eq!(venue.orders_in(START), orders(1..=20, false));
    assert_eq!(testbed.counters(1).passed[ORDER], 20);
    (firm, venue)
}

/// Orders as `Engine::order` numbers them.
fn orders(numbers: impl IntoIterator<Item = u32>, poss_dup: bool) -> Vec<Order> {
    numbers.into_iter().map(|number| Order { id: format!("R-{number}"), poss_dup }).collect()
}

/// Asks until there is an answer. Fails with the last error after a minute.
fn wait<T>(what: &str, ask: impl Fn() -> Result<T, String>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(excuse) => assert!(Instant::now() < until, "timeout: {what}: {excuse}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that the trading host's sockets to the venue have queued or not acknowledged: `tx_queue` in
/// proc_net_tcp(5).
fn queued(testbed: &Testbed) -> u64 {
    let table = testbed
        .on_host(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))
        .expect("the table of sockets");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let queue = fields.get(4)?.split(':').next()?;
        fields.get(2)?.ends_with(":2329").then(|| u64::from_str_radix(queue, 16).ok())?
    };
    table.lines().filter_map(of).sum()
}

/// A trip by hand, with an engine that does not replay (PersistMessages=N): the behaviour of trip, reconnect
/// and reset.
#[test]
fn trip_reconnect_cancel_order_reset() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let (mut firm, venue) = trading(&testbed, "PersistMessages=N");

    let (at_firm, at_venue) = (firm.mark(), venue.mark());
    testbed.trip("session/x1");
    let (at_firm, at_venue) = (firm.wait_for("logout", at_firm), venue.wait_for("logout", at_venue));

    // The engine reconnects by itself, and messages that add no risk pass.
    let (at_firm, at_venue) = (firm.wait_for("logon", at_firm), venue.wait_for_logon(at_venue));
    firm.command("cancel C-1");
    let at_venue = venue.wait_for("taken F C-1 N", at_venue);
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[CANCEL], counters.withheld[CANCEL], counters.withheld[ORDER]), (1, 0, 0));

    // The first order ends the connection.
    firm.order(21, 1);
    let (at_firm, at_venue) = (firm.wait_for("logout", at_firm), venue.wait_for("logout", at_venue));
    assert_eq!(firm.orders_out(START), orders(1..=21, false), "the engine believes that it has sent it");
    let at_firm = firm.wait_for("logon", at_firm);
    let at_venue = venue.wait_for_logon(at_venue);
    assert_eq!(testbed.counters(1).withheld[ORDER], 1);

    // The connection is older than the reset, which ends it. The next one trades.
    testbed.reset("session/x1");
    let (at_firm, at_venue) = (firm.wait_for("logout", at_firm), venue.wait_for("logout", at_venue));
    firm.wait_for("logon", at_firm);
    venue.wait_for_logon(at_venue);
    firm.order(22, 5);
    venue.wait_for_orders(25, START);
    let expected = [orders(1..=20, false), orders(22..=26, false)].concat();
    assert_eq!(venue.orders_in(START), expected);
    assert_eq!(venue.orders_taken(START), expected);
    assert_eq!((testbed.counters(1).passed[ORDER], testbed.counters(1).withheld[ORDER]), (25, 1));
    firm.quit();
    venue.wait_for("in 5 - N", at_venue);
}

/// An engine with default settings replays undelivered orders at each Logon. Until the reset, the first
/// replay ends each connection; after it, replays pass. Only orders with PossDupFlag=Y arrive.
#[test]
fn replays_are_withheld_while_tripped_and_arrive_as_possible_duplicates_after_the_reset() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let (mut firm, venue) = trading(&testbed, "");
    let (at_firm, at_venue) = (firm.mark(), venue.mark());
    testbed.trip("session/x1");
    let (mut at_firm, at_venue) = (firm.wait_for("logout", at_firm), venue.wait_for("logout", at_venue));

    // Now or in a second, after the next Logon: the connection of these orders does not matter.
    firm.order(21, 10);
    for _ in 0..2 {
        at_firm = firm.wait_for("in 2 - N", at_firm);
        at_firm = firm.wait_for("out D R-21 Y", at_firm);
        at_firm = firm.wait_for("logout", at_firm);
    }
    assert_eq!(venue.orders_in(at_venue), [], "nothing of it at the venue");
    let counters = testbed.counters(1);
    println!("{} withheld in two replays", counters.withheld[ORDER]);
    assert!(counters.withheld[ORDER] >= 2, "each time at least the first order is counted");
    assert_eq!(counters.passed[ORDER], 20);

    testbed.reset("session/x1");
    venue.wait_for_orders(10, at_venue);
    firm.order(31, 5);
    venue.wait_for_orders(15, at_venue);
    assert_eq!(venue.orders_taken(at_venue), [orders(21..=30, true), orders(31..=35, false)].concat());
    assert_eq!(testbed.counters(1).passed[ORDER], 20 + venue.orders_in(at_venue).len() as u64);
}

/// The replay guard: the stored orders that the engine sends again on request are those that the trip
/// stopped. None arrives, and the session trips again after each reset. If the policy lets replays pass, all
/// of them arrive, once.
#[test]
fn replays_after_the_reset_arrive_if_the_policy_allows_them() {
    require_root!();
    for possdup in ["block", "pass"] {
        let testbed = Testbed::load(&POLICY.replace("pass", possdup));
        let (mut firm, venue) = trading(&testbed, "");
        let (at_firm, at_venue) = (firm.mark(), venue.mark());
        testbed.trip("session/x1");
        let before = firm.wait_for("logout", at_firm);
        firm.order(21, 10);
        testbed.reset("session/x1");
        // The venue asks, and the engine sends again.
        let asked = firm.wait_for("in 2 - N", before);
        let mut sent = firm.wait_for("out D R-21 Y", asked);
        if possdup == "pass" {
            venue.wait_for_orders(10, at_venue);
            firm.order(31, 5);
            venue.wait_for_orders(15, at_venue);
            assert_eq!(
                venue.orders_taken(at_venue),
                [orders(21..=30, true), orders(31..=35, false)].concat()
            );
            assert_eq!(causes(&testbed), [""; 0]);
            continue;
        }
        for times in 1..=3 {
            if times > 1 {
                testbed.reset("session/x1");
            }
            // If the engine reconnected before the reset, that connection is fenced first.
            wait("the guard's trip", || {
                let found = (causes(&testbed), testbed.status().packets["replay"]);
                (found == (vec!["replay"], times)).then_some(()).ok_or(format!("{found:?}"))
            });
            sent = firm.wait_for("out D R-21 Y", sent);
        }
        assert_eq!((venue.orders_in(at_venue), testbed.counters(1).passed[ORDER]), (vec![], 20));
        // While tripped, a replay is an order like any other.
        let again = firm.mark();
        let again = firm.wait_for("logon", again);
        firm.wait_for("out D R-21 Y", again);
        assert_eq!((causes(&testbed), testbed.status().packets["replay"]), (vec!["replay"], 3));
        assert_eq!(venue.orders_in(at_venue), []);
    }
}

/// Causes of the session's trip.
fn causes(testbed: &Testbed) -> Vec<&'static str> {
    testbed.status().scopes.into_iter().find(|scope| scope.scope == "session/x1").expect("the scope").causes
}

/// With `on_trip = "drop"` the engine gets no reset. Its orders stay queued in TCP, which retransmits them,
/// also after the reset. None of these bytes arrives. The venue drops the silent engine, and the orders
/// arrive as possible duplicates on the next connection.
#[test]
fn orders_queued_behind_a_drop_arrive_as_possible_duplicates_only() {
    require_root!();
    let testbed = Testbed::load(&format!("on_trip = \"drop\"\n{POLICY}"));
    let (mut firm, venue) = trading(&testbed, "");
    let (at_firm, at_venue) = (firm.mark(), venue.mark());
    testbed.trip("session/x1");
    firm.order(21, 100);
    assert_eq!(
        firm.orders_out(at_firm),
        orders(21..=120, false),
        "the engine believes that it has sent them"
    );
    wait("bytes queued", || {
        let bytes = queued(&testbed);
        (bytes > 100 * 100).then_some(()).ok_or(format!("{bytes} bytes"))
    });
    testbed.reset("session/x1");
    let then = testbed.counters(1).packets_withheld;
    wait("TCP tries again after the reset", || {
        let now = testbed.counters(1).packets_withheld;
        (now > then).then_some(()).ok_or(format!("{now} packets withheld, {then} before it"))
    });
    assert_eq!(venue.orders_in(at_venue), []);

    let at_firm = firm.wait_for("logout", at_firm);
    firm.wait_for("logon", at_firm);
    venue.wait_for_orders(100, at_venue);
    firm.order(121, 5);
    venue.wait_for_orders(105, at_venue);
    assert_eq!(venue.orders_taken(at_venue), [orders(21..=120, true), orders(121..=125, false)].concat());
}

/// The same with orders that are queued before the trip: the venue's process is stopped, so that its window
/// closes. If the trip resets, the queue is lost with the socket. If it drops, nothing was withheld before
/// the reset, and only the age of the connection shows that its orders are stale. Orders that had crossed may
/// arrive; of the others, only possible duplicates.
#[test]
fn orders_queued_behind_a_closed_window_arrive_as_possible_duplicates_only() {
    require_root!();
    for on_trip in ["reset", "drop"] {
        let testbed = Testbed::load(&format!("on_trip = \"{on_trip}\"\n{POLICY}"));
        let (mut firm, venue) = trading(&testbed, "");
        let at_venue = venue.mark();
        venue.freeze(true);
        firm.order(21, 3_000);
        // Until the window is closed: bytes are queued, and their number stays the same.
        let queue = wait("a shut window", || {
            let before = queued(&testbed);
            std::thread::sleep(Duration::from_millis(50));
            let now = queued(&testbed);
            (before == now && now > 10_000)
                .then_some(now)
                .ok_or(format!("{now} bytes queued, {before} before"))
        });
        testbed.trip("session/x1");
        testbed.reset("session/x1");
        let crossed = testbed.counters(1).passed[ORDER] - 20;
        assert!(crossed < 3_000, "all of them crossed");
        venue.freeze(false);
        venue.wait_for_orders(3_000, at_venue);
        let came = venue.orders_in(at_venue);
        let first = came.iter().take_while(|order| !order.poss_dup).count() as u32;
        println!(
            "{on_trip}: {queue} bytes were queued; {crossed} orders had crossed, of which {first} came \
             before the end"
        );
        assert!(u64::from(first) <= crossed, "{first} arrived, but {crossed} had crossed");
        firm.order(3_021, 5);
        venue.wait_for_orders(3_005, at_venue);
        let expected =
            [orders(21..21 + first, false), orders(21 + first..=3_020, true), orders(3_021..=3_025, false)];
        assert_eq!(venue.orders_taken(at_venue), expected.concat());
        let stale = venue.orders_in(at_venue).into_iter().filter(|order| !order.poss_dup).count() as u32;
        assert_eq!(stale, first + 5, "a stale order came, though its session layer did not take it");
    }
}

/// A limit, and one order after the other: exactly N cross.
#[test]
fn orders_one_by_one_trip_at_the_limit() {
    require_root!();
    let testbed =
        Testbed::load(&format!("{POLICY}limits = [{{ class = \"order\", max = 137, per = \"24h\" }}]"));
    let (mut firm, venue) = trading(&testbed, "");
    for number in 21..=137 {
        firm.order(number, 1);
        venue.wait_for_orders(number as usize, START);
    }
    let (at_firm, at_venue) = (firm.mark(), venue.mark());
    firm.order(138, 1);
    venue.wait_for("logout", at_venue);
    firm.wait_for("logout", at_firm);
    assert_eq!(venue.orders_in(START), orders(1..=137, false));
    assert_eq!(testbed.counters(1).passed[ORDER], 137);
}

/// A limit, and bursts as QuickFIX sends them, with Nagle's algorithm (its default) and without: many orders
/// in a segment, and orders cut in two. The segment that would exceed the limit is withheld as a whole, so
/// fewer than N may cross, and never more. An order counts if its beginning has crossed; if its end is in the
/// withheld segment, the venue never has the order.
#[test]
fn bursts_trip_at_or_below_the_limit() {
    require_root!();
    for settings in ["SocketNodelay=N", "SocketNodelay=Y"] {
        let testbed =
            Testbed::load(&format!("{POLICY}limits = [{{ class = \"order\", max = 137, per = \"10s\" }}]"));
        let venue = Engine::venue(&testbed.network.venue);
        let mut firm = Engine::firm(&testbed.network.firm, settings);
        firm.wait_for("logon", START);
        firm.order(1, 500);
        let at_firm = firm.wait_for("logout", START);
        venue.wait_for("logout", START);
        let came = venue.orders_in(START).len() as u32;
        let counters = testbed.counters(1);
        let passed = counters.passed[ORDER];
        println!("{settings}: {came} came, {passed} passed, {} withheld", counters.withheld[ORDER]);
        assert_eq!(venue.orders_in(START), orders(1..=came, false));
        assert!((1..=137).contains(&passed), "{passed} passed");
        assert!(u64::from(came) == passed || u64::from(came) + 1 == passed, "{came} came, {passed} passed");
        // The trip is latched: the replay is withheld too.
        firm.wait_for("logout", at_firm);
        assert_eq!(testbed.counters(1).passed[ORDER], passed);
        assert_eq!(venue.orders_in(START).len() as u32, came);
    }
}
