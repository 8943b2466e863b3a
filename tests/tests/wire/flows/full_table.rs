//! Connections without room in the table, as the key `on_table_full` says.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use breaker_common::abi::{Connection, ConnectionKey};
use breaker_tests::frame::order;
use breaker_tests::receiver::{Receiver, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::maps::Table;

use super::{OtherTraffic, undeclared};

/// Opens more connections of `x1` than the table holds. Returns those in the table and those that are not.
fn overfill<'a>(testbed: &Testbed, receiver: &'a Receiver) -> [Vec<TcpConnection<'a>>; 2] {
    let connections = (0..80).map(|_| receiver.connect(testbed));
    let connections: Vec<_> = connections
        .map(|connection| (connection.stream.local_addr().expect("an address").port(), connection))
        .collect();
    let mut tracked = HashSet::new();
    testbed.with_breaker(|breaker| {
        let note = |table, key: &ConnectionKey, _: &Connection| {
            if table == Table::Live {
                tracked.insert(u16::from_be(key.local_port));
            }
        };
        breaker.maps().for_each_connection(note).expect("the tables");
    });
    let (in_it, out): (Vec<_>, Vec<_>) =
        connections.into_iter().partition(|(port, _)| tracked.contains(port));
    // The table keeps free entries for each CPU, so that a few may be unused. It never holds one too many.
    assert!(
        tracked.len() <= 64 && in_it.len() >= 40 && out.len() >= 80 - 64,
        "{} and {}",
        in_it.len(),
        out.len()
    );
    [in_it, out].map(|connections| connections.into_iter().map(|(_, connection)| connection).collect())
}

#[test]
fn a_connection_without_room_in_the_table_passes_or_not_as_the_policy_says() {
    require_root!();
    for policy in ["block", "pass"] {
        let testbed = Testbed::load(&format!(
            "on_table_full = \"{policy}\"\nconnections = 64\n\
             [[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n\
             [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\nlimits = [{{ class = \"order\", max \
                                   = 3, per = \"1h\" }}]\n"
        ));
        let receivers = [9001, 9002].map(|port| testbed.listen(port));
        let mut other = receivers[1].connect(&testbed);
        other.send_and_wait(&order(1));
        assert_eq!(testbed.status().packets["table_full"], 0);
        let [mut tracked, mut untracked] = overfill(&testbed, &receivers[0]);
        for connection in &mut untracked {
            assert!(connection.try_send(&order(1)));
        }
        if policy == "block" {
            // Longer than the retransmission timeout.
            sleep(Duration::from_millis(500));
            assert!(
                untracked.iter().all(|connection| connection.received().bytes.is_empty()),
                "not one order of theirs arrives"
            );
        }
        for connection in &mut tracked {
            connection.send_and_wait(&order(2));
        }
        if policy == "pass" {
            untracked.iter_mut().for_each(|connection| connection.send_and_wait(&order(2)));
            assert!(untracked.iter().all(|connection| connection.received().complete("D") == 2));
        }
        assert!(tracked.iter().all(|connection| connection.received().complete("D") == 1));
        assert_eq!(
            testbed.counters(1).passed[0],
            tracked.len() as u64,
            "{policy}: what is tracked is counted"
        );
        assert!(testbed.status().packets["table_full"] >= untracked.len() as u64);
        // The other session continues, with its limit.
        other.send_and_wait(&order(2));
        other.send_and_wait(&order(3));
        other.try_send(&order(4));
        assert_eq!(other.wait_for_reset().complete("D"), 3);
        let events = testbed.events_of_kind("table_full");
        assert!(
            !events.is_empty() && events.iter().all(|event| event["counts"]["session"] == "x1"),
            "{events:?}"
        );
    }
}

#[test]
fn a_full_table_withholds_no_web_or_shell_traffic() {
    require_root!();
    for policy in ["watch", "block"] {
        let testbed = Testbed::load(&format!("connections = 64\n{}", undeclared(policy, "")));
        let receivers = [9001, 9005, 22].map(|port| testbed.listen(port));
        let [_tracked, _untracked] = overfill(&testbed, &receivers[0]);
        // An undeclared FIX connection takes the place of another one of its kind.
        let mut connection = receivers[1].connect(&testbed);
        connection.try_send(&order(1));
        OtherTraffic::new(&testbed, &[&receivers[1], &receivers[2]]).exchange();
        assert_eq!(connection.received().bytes.is_empty(), policy == "block");
    }
}
