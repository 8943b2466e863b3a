//! Limits: at most N messages cross, with real sockets and segmentation offload.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{message, order};
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
limits = [{ class = "order", max = 137, per = "10s" }]
"#;

fn venue_at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 9001)
}

/// Writes bytes. Returns true if the connection is dead.
fn is_dead_after(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_err()
}

#[test]
fn one_by_one_exactly_n_cross_and_both_ends_are_reset() {
    require_root!();
    for address in [TwoHosts::VENUE, TwoHosts::VENUE_V6] {
        let testbed = Testbed::load(POLICY);
        let receiver = testbed.listen_at(venue_at(address));
        let mut stream = testbed.connect_to(venue_at(address));
        let mut dead = false;
        for id in 0..200 {
            dead = is_dead_after(&mut stream, &order(id));
            if dead {
                break;
            }
            sleep(Duration::from_micros(300));
        }
        assert!(dead, "the sender saw the reset");
        receiver.wait("the reset at the venue", |all| all[0].end == End::Reset);
        assert_eq!(receiver.last().complete("D"), 137);
        assert_eq!(receiver.last().count("D"), 137);
        let counters = testbed.counters(1);
        assert_eq!(counters.passed[0], 137);
        assert_eq!(counters.desyncs, 0);
        let status = testbed.status();
        let scope = status.scopes.iter().find(|scope| scope.scope == "session/x1").expect("the scope");
        assert!(scope.tripped);
        assert_eq!(
            (scope.causes.as_slice(), scope.limits[0].used, scope.limits[0].peak),
            (&["rate"][..], 137, 137)
        );
    }
}

#[test]
fn a_blast_in_a_few_large_writes_never_lets_more_than_n_cross() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen_at(venue_at(TwoHosts::VENUE));
    let orders: Vec<u8> = (0..10_000).flat_map(order).collect();
    let mut stream = testbed.connect_to(venue_at(TwoHosts::VENUE));
    let mut dead = false;
    for part in orders.chunks(orders.len() / 4) {
        dead |= is_dead_after(&mut stream, part);
    }
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert!(dead || stream.take_error().expect("an answer").is_some(), "the sender saw the reset");
    let last = receiver.last();
    assert!(last.complete("D") <= 137, "{} crossed", last.complete("D"));
    assert_eq!(
        last.count("D") as u64,
        testbed.counters(1).passed[0],
        "the kernel counts the orders that arrived"
    );
}

#[test]
fn two_connections_on_two_cpus_share_one_limit_exactly() {
    require_root!();
    let testbed = Testbed::load(&POLICY.replace("max = 137", "max = 1000"));
    let receiver = testbed.listen_at(venue_at(TwoHosts::VENUE));
    let streams =
        [testbed.connect_to(venue_at(TwoHosts::VENUE)), testbed.connect_to(venue_at(TwoHosts::VENUE))];
    std::thread::scope(|scope| {
        for (cpu, mut stream) in streams.into_iter().enumerate() {
            scope.spawn(move || {
                let mut set = rustix::thread::CpuSet::new();
                set.set(cpu % std::thread::available_parallelism().map_or(1, usize::from));
                rustix::thread::sched_setaffinity(None, &set).expect("pinning to a CPU");
                for id in 0..5_000 {
                    if is_dead_after(&mut stream, &order(id)) {
                        return;
                    }
                }
            });
        }
    });
    receiver.wait("both resets", |all| all.iter().all(|one| one.end == End::Reset));
    // An order counts if its header crossed, even if its rest is in a withheld segment.
    let crossed: u64 = receiver.received().iter().map(|one| one.count("D") as u64).sum();
    let counters = testbed.counters(1);
    assert!(crossed <= 1000, "{crossed} crossed");
    assert_eq!(crossed, counters.passed[0]);
    let withheld = counters.withheld[0];
    assert!(crossed + withheld > 1000, "{crossed} crossed and {withheld} were withheld: it tripped early");
}

#[test]
fn a_total_counts_since_the_reset_and_cancels_have_their_own_limit() {
    require_root!();
    let limits = r#"limits = [{ class = "order", max = 3, per = "total" },
                              { class = "cancel", max = 2, per = "1s" }]"#;
    let policy = POLICY.replace(r#"limits = [{ class = "order", max = 137, per = "10s" }]"#, limits);
    let testbed = Testbed::load(&policy);
    let receiver = testbed.listen_at(venue_at(TwoHosts::VENUE));
    for round in 1..=2 {
        let mut stream = testbed.connect_to(venue_at(TwoHosts::VENUE));
        for id in 0..5 {
            is_dead_after(&mut stream, &order(id));
            sleep(Duration::from_millis(5));
        }
        receiver.wait("the reset", |all| all.len() == round && all[round - 1].end == End::Reset);
        assert_eq!(receiver.last().complete("D"), 3);
        testbed.reset("session/x1");
    }
    let mut stream = testbed.connect_to(venue_at(TwoHosts::VENUE));
    for _ in 0..3 {
        is_dead_after(&mut stream, &message("FIX.4.4", "F", b"11=C-1\x0141=R-1\x01"));
        sleep(Duration::from_millis(5));
    }
    receiver.wait("the reset", |all| all.len() == 3 && all[2].end == End::Reset);
    assert_eq!(receiver.last().complete("F"), 2);
}

#[test]
fn a_window_expires_and_scopes_count_all_their_sessions() {
    require_root!();
    let policy = r#"
limits = [{ class = "message", max = 30, per = "total" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 10, per = "300ms" }]
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
groups = ["desk"]
"#;
    let testbed = Testbed::load(policy);
    let second = SocketAddr::new(TwoHosts::VENUE, 9002);
    let receivers = [testbed.listen_at(venue_at(TwoHosts::VENUE)), testbed.listen_at(second)];
    let mut streams = [testbed.connect_to(venue_at(TwoHosts::VENUE)), testbed.connect_to(second)];
    for _ in 0..2 {
        for id in 0..5 {
            for stream in &mut streams {
                assert!(!is_dead_after(stream, &order(id)));
                sleep(Duration::from_millis(2));
            }
        }
        sleep(Duration::from_millis(320));
    }
    assert!(
        !testbed.status().scopes.iter().any(|scope| scope.tripped),
        "20 in two windows of 10 are within the limit"
    );
    // The host's total is next: 10 more orders, and then one over it.
    for id in 0..6 {
        for stream in &mut streams {
            let _ = is_dead_after(stream, &order(id));
            sleep(Duration::from_millis(70));
        }
    }
    for receiver in &receivers {
        receiver.wait("the reset", |all| all[0].end == End::Reset);
    }
    let crossed: usize = receivers.iter().map(|receiver| receiver.last().complete("D")).sum();
    assert_eq!(crossed, 30);
    let tripped: Vec<_> =
        testbed.status().scopes.into_iter().filter(|scope| scope.tripped).map(|scope| scope.scope).collect();
    assert_eq!(tripped, ["host"]);
}

#[test]
fn a_disarmed_scope_counts_warns_and_withholds_nothing() {
    require_root!();
    let testbed = Testbed::load(&POLICY.replace("name = \"x1\"", "name = \"x1\"\narmed = false"));
    let receiver = testbed.listen_at(venue_at(TwoHosts::VENUE));
    let mut stream = testbed.connect_to(venue_at(TwoHosts::VENUE));
    for id in 0..300 {
        assert!(!is_dead_after(&mut stream, &order(id)));
        sleep(Duration::from_micros(200));
    }
    receiver.wait("all of them", |all| all[0].complete("D") == 300);
    let status = testbed.status();
    let scope = status.scopes.iter().find(|scope| scope.scope == "session/x1").expect("the scope");
    assert!(!scope.armed && !scope.tripped);
    assert!(
        scope.limits[0].peak >= 138,
        "the peak shows that it would have tripped: {}",
        scope.limits[0].peak
    );
    assert_eq!(testbed.cli("status").exit_code, Some(11));
}
