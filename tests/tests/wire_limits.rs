//! Limits on the wire: real sockets, real segmentation offload; the receiver's bytes are the judge.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{message, order};
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Sink};
use breaker_user::testbed::TwoHosts;

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
limits = [{ class = "order", max = 137, per = "10s" }]
"#;

fn connect(rig: &Rig, to: SocketAddr) -> TcpStream {
    let stream = rig.inside(|| TcpStream::connect(to)).expect("connecting");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn venue(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 9001)
}

/// Writes until the connection dies or the bytes are out. True where it died.
fn push(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_err()
}

#[test]
fn one_by_one_exactly_n_cross_and_both_ends_are_told() {
    if !privileged() {
        return;
    }
    for address in [TwoHosts::VENUE, TwoHosts::VENUE_V6] {
        let rig = Rig::new(POLICY);
        let sink = Sink::listen(&rig.wire.venue, venue(address));
        let mut stream = connect(&rig, venue(address));
        let mut dead = false;
        for id in 0..200 {
            dead = push(&mut stream, &order(id));
            if dead {
                break;
            }
            sleep(Duration::from_micros(300));
        }
        assert!(dead, "the sender was told");
        sink.wait("the receiver is told", |all| all[0].end == End::Reset);
        assert_eq!(sink.last().whole("D"), 137);
        assert_eq!(sink.last().count("D"), 137);
        let counters = rig.counters(1);
        assert_eq!(counters.passed[0], 137);
        assert_eq!(counters.desyncs, 0);
        let status = rig.status();
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
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let sink = Sink::listen(&rig.wire.venue, venue(TwoHosts::VENUE));
    let orders: Vec<u8> = (0..10_000).flat_map(order).collect();
    let mut stream = connect(&rig, venue(TwoHosts::VENUE));
    let mut dead = false;
    for part in orders.chunks(orders.len() / 4) {
        dead |= push(&mut stream, part);
    }
    sink.wait("the reset", |all| all[0].end == End::Reset);
    assert!(dead || stream.take_error().expect("an answer").is_some(), "the sender was told");
    let last = sink.last();
    assert!(last.whole("D") <= 137, "{} crossed", last.whole("D"));
    assert_eq!(
        last.count("D") as u64,
        rig.counters(1).passed[0],
        "what the kernel says crossed is what came"
    );
}

#[test]
fn two_connections_on_two_cpus_share_one_limit_exactly() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&POLICY.replace("max = 137", "max = 1000"));
    let sink = Sink::listen(&rig.wire.venue, venue(TwoHosts::VENUE));
    let streams = [connect(&rig, venue(TwoHosts::VENUE)), connect(&rig, venue(TwoHosts::VENUE))];
    std::thread::scope(|scope| {
        for (cpu, mut stream) in streams.into_iter().enumerate() {
            scope.spawn(move || {
                let mut set = rustix::thread::CpuSet::new();
                set.set(cpu % std::thread::available_parallelism().map_or(1, usize::from));
                rustix::thread::sched_setaffinity(None, &set).expect("pinning to a CPU");
                for id in 0..5_000 {
                    if push(&mut stream, &order(id)) {
                        return;
                    }
                }
            });
        }
    });
    sink.wait("both resets", |all| all.iter().all(|one| one.end == End::Reset));
    // An order counts where its header crossed, even if its rest is in a segment that was withheld.
    let crossed: u64 = sink.received().iter().map(|one| one.count("D") as u64).sum();
    let counters = rig.counters(1);
    assert!(crossed <= 1000, "{crossed} crossed");
    assert_eq!(crossed, counters.passed[0]);
    let withheld = counters.withheld[0];
    assert!(crossed + withheld > 1000, "{crossed} crossed and {withheld} were withheld: it tripped early");
}

#[test]
fn a_total_counts_since_the_reset_and_cancels_have_their_own_limit() {
    if !privileged() {
        return;
    }
    let limits = r#"limits = [{ class = "order", max = 3, per = "total" }, { class = "cancel", max = 2, per = "1s" }]"#;
    let policy = POLICY.replace(r#"limits = [{ class = "order", max = 137, per = "10s" }]"#, limits);
    let rig = Rig::new(&policy);
    let sink = Sink::listen(&rig.wire.venue, venue(TwoHosts::VENUE));
    for round in 1..=2 {
        let mut stream = connect(&rig, venue(TwoHosts::VENUE));
        for id in 0..5 {
            push(&mut stream, &order(id));
            sleep(Duration::from_millis(5));
        }
        sink.wait("the reset", |all| all.len() == round && all[round - 1].end == End::Reset);
        assert_eq!(sink.last().whole("D"), 3);
        rig.reset("session/x1");
    }
    let mut stream = connect(&rig, venue(TwoHosts::VENUE));
    for _ in 0..3 {
        push(&mut stream, &message("FIX.4.4", "F", b"11=C-1\x0141=R-1\x01"));
        sleep(Duration::from_millis(5));
    }
    sink.wait("the reset", |all| all.len() == 3 && all[2].end == End::Reset);
    assert_eq!(sink.last().whole("F"), 2);
}

#[test]
fn a_window_forgets_and_a_group_and_the_host_count_for_all() {
    if !privileged() {
        return;
    }
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
    let rig = Rig::new(policy);
    let second = SocketAddr::new(TwoHosts::VENUE, 9002);
    let sinks =
        [Sink::listen(&rig.wire.venue, venue(TwoHosts::VENUE)), Sink::listen(&rig.wire.venue, second)];
    let mut streams = [connect(&rig, venue(TwoHosts::VENUE)), connect(&rig, second)];
    for _ in 0..2 {
        for id in 0..5 {
            for stream in &mut streams {
                assert!(!push(stream, &order(id)));
                sleep(Duration::from_millis(2));
            }
        }
        sleep(Duration::from_millis(320));
    }
    assert!(
        !rig.status().scopes.iter().any(|scope| scope.tripped),
        "20 in two windows of 10 are within the limit"
    );
    // The host's total is next: 10 more, and then one.
    for id in 0..6 {
        for stream in &mut streams {
            let _ = push(stream, &order(id));
            sleep(Duration::from_millis(70));
        }
    }
    for sink in &sinks {
        sink.wait("the reset", |all| all[0].end == End::Reset);
    }
    let crossed: usize = sinks.iter().map(|sink| sink.last().whole("D")).sum();
    assert_eq!(crossed, 30);
    let tripped: Vec<_> =
        rig.status().scopes.into_iter().filter(|scope| scope.tripped).map(|scope| scope.scope).collect();
    assert_eq!(tripped, ["host"]);
}

#[test]
fn a_disarmed_scope_counts_warns_and_withholds_nothing() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&POLICY.replace("name = \"x1\"", "name = \"x1\"\narmed = false"));
    let sink = Sink::listen(&rig.wire.venue, venue(TwoHosts::VENUE));
    let mut stream = connect(&rig, venue(TwoHosts::VENUE));
    for id in 0..300 {
        assert!(!push(&mut stream, &order(id)));
        sleep(Duration::from_micros(200));
    }
    sink.wait("all of them", |all| all[0].whole("D") == 300);
    let status = rig.status();
    let scope = status.scopes.iter().find(|scope| scope.scope == "session/x1").expect("the scope");
    assert!(!scope.armed && !scope.tripped);
    assert!(
        scope.limits[0].peak >= 138,
        "the peak shows that it would have tripped: {}",
        scope.limits[0].peak
    );
    assert_eq!(rig.cli(&["status"]).status.code(), Some(11));
}
