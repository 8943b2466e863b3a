//! Limits on inbound messages, and limits on orders by the number of fills.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{message, order};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::venue::{ConnectionPair, fill, reject};
use breaker_user::testbed::TwoHosts;
use breaker_user::view::scope::Limit;

/// Two sessions of a group, with keys for the host, the group `desk` and the session `x1`.
fn policy(host: &str, desk: &str, x1: &str) -> String {
    format!(
        r#"
{host}
[[group]]
name = "desk"
{desk}
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
groups = ["desk"]
{x1}
[[session]]
name = "x2"
remote = ["10.9.0.2:9002", "[fd09::2]:9002"]
groups = ["desk"]
"#
    )
}

/// A policy with these keys at one of the three scopes.
fn policy_at(scope: &str, keys: &str) -> String {
    let of = |own: &str| if own == scope { keys } else { "" };
    policy(of("host"), of("group/desk"), of("session/x1"))
}

const SCOPES: [&str; 3] = ["session/x1", "group/desk", "host"];

fn pair(testbed: &Testbed, port: u16) -> ConnectionPair {
    ConnectionPair::connect(
        &testbed.network.firm,
        &testbed.network.venue,
        SocketAddr::new(TwoHosts::VENUE, port),
    )
}

fn limit(testbed: &Testbed, name: &str) -> Limit {
    testbed.scope(name).limits.remove(0)
}

/// Tripped scopes and their causes.
fn tripped(testbed: &Testbed) -> Vec<(String, Vec<&'static str>)> {
    testbed
        .status()
        .scopes
        .into_iter()
        .filter(|scope| scope.tripped)
        .map(|scope| (scope.scope, scope.causes))
        .collect()
}

/// Sends an order that must be withheld. The connection dies at both ends, and the venue receives nothing of
/// the order.
fn order_is_withheld(mut pair: ConnectionPair) {
    // The write may already see the reset. The error is reported once.
    let reset_seen = pair.firm.write_all(&order(1)).is_err();
    let mut received = Vec::new();
    let found = pair.venue.read_to_end(&mut received).expect_err("a reset");
    assert_eq!((found.kind(), received.len()), (ErrorKind::ConnectionReset, 0));
    if reset_seen {
        return;
    }
    let mut rest = Vec::new();
    let found = pair.firm.read_to_end(&mut rest).expect_err("a reset");
    assert!([ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted].contains(&found.kind()), "{found}");
}

/// Limits on inbound messages: the keys, and the message that each counts.
fn inbound_limits() -> [(&'static str, Vec<u8>); 2] {
    [
        ("limits = [{ class = \"reject\", max = 50, per = \"1m\" }]", reject()),
        ("limits = [{ class = \"fill\", max = 50, per = \"1m\" }]", fill()),
    ]
}

#[test]
fn an_inbound_message_over_the_limit_stops_all_orders() {
    require_root!();
    for name in SCOPES {
        for (keys, message) in inbound_limits() {
            let testbed = Testbed::load(&policy_at(name, keys));
            let mut connections = [pair(&testbed, 9001), pair(&testbed, 9002)];
            connections.iter_mut().for_each(|connection| connection.firm_sends(&order(0)));
            // Both sessions receive messages for a wider scope.
            let wide = name != "session/x1";
            for i in 0..50 {
                connections[(wide && i % 2 == 1) as usize].venue_sends(&[&message]);
            }
            assert_eq!(tripped(&testbed), [], "{name}: 50 are within the limit");
            connections.iter_mut().for_each(|connection| connection.firm_sends(&order(1)));
            connections[wide as usize].venue_sends(&[&message]);
            assert_eq!(tripped(&testbed), [(name.to_owned(), vec!["rate"])]);
            assert_eq!(limit(&testbed, name).used, 51, "it has come");
            // Sessions whose orders are limited continue, and so does the other session outside the scope.
            connections.iter_mut().for_each(|connection| connection.venue_sends(&[&message, &message]));
            let [first, mut second] = connections;
            order_is_withheld(first);
            if wide {
                order_is_withheld(second)
            } else {
                second.firm_sends(&order(2))
            }
            // A new connection may still reduce risk.
            let mut new = pair(&testbed, 9001);
            new.firm_sends(&message_of("F"));
            order_is_withheld(new);
            let sent = [1, 2].map(|session| testbed.counters(session).passed[0]);
            assert_eq!(sent, [2, if wide { 2 } else { 3 }]);
            // The agent ends fenced connections, so its event comes last.
            let events = testbed.events_of_kind("tripped");
            let counts = &events[0]["counts"];
            assert_eq!(
                (events.len(), &events[0]["scope"], &counts["used"]),
                (1, &name.into(), &51.into()),
                "{events:?}"
            );
        }
    }
}

fn message_of(msg_type: &str) -> Vec<u8> {
    message("FIX.4.4", msg_type, b"11=R-2\x0141=R-1\x01")
}

#[test]
fn many_inbound_messages_in_one_segment_count_for_every_limit() {
    require_root!();
    let testbed = Testbed::load(&policy(
        "limits = [{ class = \"reject\", max = 100, per = \"total\" }, { class = \"order\", max = 9, per \
         = \"total\" }]",
        "limits = [{ class = \"fill\", max = 1000, per = \"1h\" }]",
        "limits = [{ class = \"fill\", max = 7, per = \"1h\" }, { class = \"reject\", max = 200, per = \
         \"1h\" }]",
    ));
    let mut connection = pair(&testbed, 9001);
    // The session trips at the fills. The rejects in the same segment still count for the host.
    connection.venue_sends(&[&[fill().repeat(8), reject().repeat(60)].concat()]);
    assert_eq!(tripped(&testbed), [("session/x1".to_owned(), vec!["rate"])]);
    let used = |name| testbed.scope(name).limits.iter().map(|limit| limit.used).collect::<Vec<_>>();
    assert_eq!((used("host"), used("group/desk"), used("session/x1")), (vec![60, 0], vec![8], vec![8, 60]));
    let mut other = pair(&testbed, 9002);
    other.venue_sends(&[&reject().repeat(40)]);
    other.firm_sends(&order(1));
    connection.venue_sends(&[&reject()]);
    assert_eq!(
        tripped(&testbed),
        [("host".to_owned(), vec!["rate"]), ("session/x1".to_owned(), vec!["rate"])]
    );
    order_is_withheld(other);
}

#[test]
fn a_disarmed_scope_would_have_tripped_once_and_warns_at_its_levels() {
    require_root!();
    let keys = "limits = [{ class = \"reject\", max = 20, per = \"1h\", warn = [50, 75, 90] }]";
    for (armed, would) in [(true, 0), (false, 1)] {
        let testbed = Testbed::load(&policy_at("session/x1", &format!("armed = {armed}\n{keys}")));
        let mut connection = pair(&testbed, 9001);
        for _ in 0..30 {
            connection.venue_sends(&[&reject()]);
        }
        let warned: Vec<_> = testbed
            .events_of_kind("warned")
            .iter()
            .map(|connection| (connection["counts"]["used"].as_u64(), connection["counts"]["level"].as_u64()))
            .collect();
        assert_eq!(warned, [(10, 1), (15, 2), (18, 3)].map(|(used, level)| (Some(used), Some(level))));
        assert_eq!(
            (testbed.events_of_kind("would_trip").len(), testbed.events_of_kind("tripped").len()),
            (would, 1 - would)
        );
        assert_eq!((limit(&testbed, "session/x1").used, tripped(&testbed).len()), (30, 1 - would));
        if armed { order_is_withheld(connection) } else { connection.firm_sends(&order(1)) }
    }
}

#[test]
fn a_window_expires_and_a_reset_empties_it() {
    require_root!();
    let window = Duration::from_millis(600);
    let testbed = Testbed::load(&policy_at(
        "group/desk",
        "limits = [{ class = \"reject\", max = 5, per = \"600ms\" }]",
    ));
    let mut connection = pair(&testbed, 9001);
    for _ in 0..3 {
        connection.venue_sends(&[&reject().repeat(5)]);
        sleep(window);
    }
    assert_eq!(tripped(&testbed), []);
    connection.venue_sends(&[&reject().repeat(6)]);
    assert_eq!(tripped(&testbed).len(), 1);
    testbed.reset("group/desk");
    assert_eq!((tripped(&testbed), limit(&testbed, "group/desk").used), (vec![], 0));
    order_is_withheld(connection);
    let mut connection = pair(&testbed, 9002);
    connection.venue_sends(&[&reject().repeat(5)]);
    connection.firm_sends(&order(1));
    assert_eq!(tripped(&testbed), []);
    connection.venue_sends(&[&reject()]);
    order_is_withheld(connection);
}

/// A limit by fills: `after` orders without a fill, and `per_fill` more for each fill.
fn ratio(after: u32, per_fill: u32) -> String {
    format!("limits = [{{ class = \"order\", per_fill = {per_fill}, after = {after}, warn = [] }}]")
}

#[test]
fn without_a_fill_the_allowance_passes_and_the_next_order_trips() {
    require_root!();
    for address in [TwoHosts::VENUE, TwoHosts::VENUE_V6] {
        for blast in [false, true] {
            let testbed = Testbed::load(&policy_at("session/x1", &ratio(10, 3)));
            let receiver = testbed.listen_at(SocketAddr::new(address, 9001));
            let mut connection = receiver.connect(&testbed);
            if blast {
                connection.send_and_wait(&(0..10).flat_map(order).collect::<Vec<_>>());
            } else {
                (0..10).for_each(|id| connection.send_and_wait(&order(id)));
            }
            // Other messages do not count.
            connection.send_and_wait(&message_of("F"));
            assert_eq!(tripped(&testbed), []);
            let status = &testbed.status_json()["scopes"];
            let of = status.as_array().expect("scopes").iter().find(|one| one["scope"] == "session/x1");
            let of = &of.expect("the scope")["limits"][0];
            assert_eq!(
                (&of["per_fill"], &of["max"], &of["used"]),
                (&3.into(), &10.into(), &10.into()),
                "{of}"
            );
            connection.try_send(&order(10));
            assert_eq!(connection.wait_for_reset().complete("D"), 10);
            assert_eq!(tripped(&testbed), [("session/x1".to_owned(), vec!["rate"])]);
            let trip = testbed.events_of_kind("tripped").remove(0);
            assert_eq!(trip["counts"]["limit"], "3 order per fill after 10");
        }
    }
}

/// Number of orders that pass one by one, up to `most`.
fn passed_orders(testbed: &Testbed, connection: &mut ConnectionPair, most: usize) -> usize {
    for id in 0..most {
        if connection.firm.write_all(&order(id as u32)).is_err() || !tripped(testbed).is_empty() {
            return id;
        }
        let mut received = vec![0; order(id as u32).len()];
        connection.venue.read_exact(&mut received).expect("the order");
    }
    most
}

#[test]
fn each_fill_allows_its_number_of_orders_and_no_more() {
    require_root!();
    // after, per_fill, number of fills, and orders allowed. With 3 fills of 5 each, 15 orders do not exceed
    // 15.
    for (after, per_fill, fills, allowed) in [
        (15, 5, 2, 15),
        (15, 5, 3, 15),
        (15, 5, 4, 20),
        (1, 1, 30, 30),
        (3, 7, 9, 63),
        (50, 1, 49, 50),
        (50, 1, 51, 51),
    ] {
        for name in SCOPES {
            let testbed = Testbed::load(&policy_at(name, &ratio(after, per_fill)));
            let mut connection = pair(&testbed, 9001);
            connection.venue_sends(&[&fill().repeat(fills)]);
            connection.venue_sends(&[&reject().repeat(20)]);
            assert_eq!(
                passed_orders(&testbed, &mut connection, allowed + 5),
                allowed,
                "{name}: {after} and {per_fill} for each of {fills}"
            );
            assert_eq!(tripped(&testbed), [(name.to_owned(), vec!["rate"])]);
            assert_eq!(testbed.counters(1).passed[0], allowed as u64);
        }
    }
}

#[test]
fn later_fills_and_fills_of_other_sessions_of_the_group_count() {
    require_root!();
    let testbed = Testbed::load(&policy("", &ratio(4, 2), ""));
    let mut connections = [pair(&testbed, 9001), pair(&testbed, 9002)];
    (0..2).for_each(|_| connections.iter_mut().for_each(|connection| connection.firm_sends(&order(1))));
    // Four orders, and no more without a fill; with three fills of either session, two more.
    connections[1].venue_sends(&[&fill(), &fill()]);
    connections[0].venue_sends(&[&fill()]);
    connections.iter_mut().for_each(|connection| connection.firm_sends(&order(1)));
    assert_eq!(tripped(&testbed), []);
    connections[0].venue_sends(&[&fill()]);
    connections[1].firm_sends(&[order(1), order(2)].concat());
    assert_eq!((limit(&testbed, "group/desk").used, tripped(&testbed)), (8, vec![]));
    let [first, second] = connections;
    order_is_withheld(first);
    order_is_withheld(second);
    assert_eq!(tripped(&testbed), [("group/desk".to_owned(), vec!["rate"])]);
    let passed: u64 = [1, 2].map(|session| testbed.counters(session).passed[0]).iter().sum();
    assert_eq!(passed, 8);
}

#[test]
fn a_reset_restarts_the_ratio() {
    require_root!();
    let testbed = Testbed::load(&policy_at("session/x1", &ratio(3, 2)));
    for fills in [5, 0, 2] {
        let mut connection = pair(&testbed, 9001);
        connection.venue_sends(&[&fill().repeat(fills)]);
        assert_eq!(
            passed_orders(&testbed, &mut connection, 20),
            3.max(2 * fills),
            "after a reset, {fills} fills"
        );
        assert_eq!(tripped(&testbed).len(), 1);
        // Fills before the reset do not count after it.
        let mut new = pair(&testbed, 9001);
        new.venue_sends(&[&fill().repeat(100)]);
        testbed.reset("session/x1");
        assert_eq!((tripped(&testbed), limit(&testbed, "session/x1").used), (vec![], 0));
    }
}

#[test]
fn a_ratio_warns_at_shares_of_its_allowance() {
    require_root!();
    let keys = "limits = [{ class = \"order\", per_fill = 2, after = 10, warn = [50, 90] }]";
    let testbed = Testbed::load(&policy_at("session/x1", keys));
    let mut connection = pair(&testbed, 9001);
    connection.venue_sends(&[&fill().repeat(50)]);
    assert_eq!(passed_orders(&testbed, &mut connection, 100), 100);
    let used: Vec<_> =
        testbed.events_of_kind("warned").iter().map(|event| event["counts"]["used"].clone()).collect();
    assert_eq!(used, [50, 90], "of the 100 that 50 fills allow");
}

#[test]
fn concurrent_orders_and_fills_on_two_cpus_never_exceed_the_ratio() {
    require_root!();
    let testbed = Testbed::load(&policy_at("host", &ratio(1, 3)));
    let mut connections = [pair(&testbed, 9001), pair(&testbed, 9002)];
    connections[0].venue_sends(&[&fill()]);
    for round in 1..=100u64 {
        let [first, second] = &mut connections;
        // Three orders for each fill, the whole allowance: the fills for the next orders arrive at the same
        // time.
        std::thread::scope(|threads| {
            threads.spawn(|| first.firm_sends(&[order(1), order(2)].concat()));
            second.exchange(&[&order(3)], &[&fill()]);
        });
        assert_eq!((limit(&testbed, "host").used, tripped(&testbed)), (3 * round, vec![]), "round {round}");
    }
    assert_eq!(testbed.counters(1).inbound[0] + testbed.counters(2).inbound[0], 101);
}
