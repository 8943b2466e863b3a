//! Members that are frozen, killed or full, and clusters that changed.

use std::time::{Duration, Instant};

use breaker_tests::etcd::{Cluster, Options};
use breaker_tests::slowness;
use breaker_user::fleet::engine::{Created, Engine, Kind};

use crate::engine;

/// Longest time that a frozen member may cost a call.
const FROZEN: Duration = Duration::from_millis(50);
/// Longest time of a call while the leader dies.
const LEADERLESS: Duration = Duration::from_secs(1);

/// The time that 99 of 100 calls need at most, each with a put and a snapshot by a new client and by one that
/// is connected.
async fn p99(cluster: &Cluster, round: &str) -> (Duration, Duration) {
    let connected = engine(cluster);
    let (mut puts, mut reads) = (Vec::new(), Vec::new());
    for n in 0..100 {
        let new = engine(cluster);
        for (name, engine) in [("new", &new), ("connected", &connected)] {
            let start = Instant::now();
            let entry = (format!("/f/{round}/{name}/{n}"), vec![1]);
            engine.put(&[entry], None).await.expect("writing");
            puts.push(start.elapsed());
            let start = Instant::now();
            engine.snapshot("/f/trip/").await.expect("reading");
            reads.push(start.elapsed());
        }
    }
    let p99 = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() * 99 / 100 - 1]
    };
    (p99(puts), p99(reads))
}

/// One round is enough: other work on the machine makes single rounds slower, and a client that waits for a
/// frozen member is slow in each.
#[tokio::test]
async fn a_frozen_member_costs_at_most_50_ms() {
    let cluster = Cluster::start(3);
    let mut costs = Vec::new();
    for round in 0..3 {
        let (put, read) = p99(&cluster, &format!("healthy/{round}")).await;
        let frozen = (cluster.leader() + 1) % 3;
        cluster.freeze(frozen);
        let (slow_put, slow_read) = p99(&cluster, &format!("frozen/{round}")).await;
        cluster.thaw(frozen);
        println!(
            "p99 of a put {put:?}, with a frozen member {slow_put:?}; of a snapshot {read:?}, {slow_read:?}"
        );
        let cost = slow_put.saturating_sub(put).max(slow_read.saturating_sub(read));
        if cost <= FROZEN * slowness() {
            return;
        }
        costs.push(cost);
    }
    panic!("a frozen member costs {costs:?}");
}

/// Creates keys while the leader is made unavailable. Returns the longest time of a call.
async fn longest_creation(cluster: Cluster, fault: fn(&mut Cluster, usize)) -> Duration {
    let engine = engine(&cluster);
    engine.create("/f/command/first", b"", &[]).await.expect("creating");
    let leader = cluster.leader();
    let delayed = std::thread::spawn(move || {
        let mut cluster = cluster;
        std::thread::sleep(Duration::from_millis(100));
        fault(&mut cluster, leader);
        cluster
    });
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(3) {
        count += 1;
        let begin = Instant::now();
        let created = engine.create(&format!("/f/command/{count}"), b"trip", &[]).await.expect("creating");
        assert!(matches!(created, Created::New { .. }), "{count}: {created:?}");
        longest = longest.max(begin.elapsed());
    }
    let cluster = delayed.join().expect("the fault");
    let commands = engine.snapshot("/f/command/").await.expect("reading").entries.len();
    assert_eq!(commands, count + 1, "every acknowledged command is there");
    drop(cluster);
    longest
}

#[tokio::test]
async fn a_killed_leader_delays_a_command_by_less_than_a_second() {
    let longest = longest_creation(Cluster::start(3), Cluster::kill).await;
    println!("longest call while the leader was killed: {longest:?}");
    assert!(longest <= LEADERLESS * slowness(), "{longest:?}");
}

#[tokio::test]
async fn a_frozen_leader_delays_a_command_by_less_than_a_second() {
    let longest = longest_creation(Cluster::start(3), |cluster, leader| cluster.freeze(leader)).await;
    println!("longest call while the leader was frozen: {longest:?}");
    assert!(longest <= LEADERLESS * slowness(), "{longest:?}");
}

#[tokio::test]
async fn without_a_majority_the_error_says_so() {
    let mut cluster = Cluster::start(3);
    let engine = engine(&cluster).with_timeout(Duration::from_secs(2));
    engine.create("/f/a", b"", &[]).await.expect("creating");
    cluster.kill(0);
    cluster.kill(1);
    let error = engine.create("/f/b", b"", &[]).await.expect_err("no majority");
    assert_eq!(error.kind(), Kind::NoMajority, "{error}");
    let error = engine.snapshot("/f/").await.expect_err("no majority");
    assert_eq!(error.kind(), Kind::NoMajority, "{error}");
    cluster.kill(2);
    let error = engine.create("/f/b", b"", &[]).await.expect_err("no member");
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_full_cluster_refuses_at_once_and_can_be_read() {
    let cluster = Cluster::start_with(Options { quota_bytes: Some(2 << 20), ..Options::new(3) });
    let engine = engine(&cluster);
    cluster.fill();
    let start = Instant::now();
    let error = engine.create("/f/trip/all", b"", &[]).await.expect_err("the database is full");
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert!(start.elapsed() < Duration::from_secs(1) * slowness(), "{:?}", start.elapsed());
    engine.snapshot("/f/").await.expect("reading");
}

#[tokio::test]
async fn another_cluster_at_the_same_addresses_is_noticed() {
    let addresses = Options::new(3).addresses;
    let start = || Cluster::start_with(Options { addresses: addresses.clone(), ..Options::new(3) });
    let first = start();
    let engine = engine(&first).with_timeout(Duration::from_secs(2));
    let id = engine.snapshot("/f/").await.expect("reading").cluster_id;
    drop(first);
    let second = start();
    let error = engine.snapshot("/f/").await.expect_err("another cluster");
    assert_eq!(error.kind(), Kind::Foreign, "{error}");
    let new = Engine::new(&second.endpoints()).expect("an engine");
    assert_ne!(new.snapshot("/f/").await.expect("reading").cluster_id, id);
    let expecting = Engine::new(&second.endpoints()).expect("an engine");
    expecting.expect_cluster(id);
    let error = expecting.create("/f/trip/all", b"", &[]).await.expect_err("another cluster");
    assert_eq!(error.kind(), Kind::Foreign, "{error}");
}

#[tokio::test]
async fn a_restored_cluster_has_its_id_and_an_older_revision() {
    let mut cluster = Cluster::start(3);
    let engine = engine(&cluster);
    engine.create("/f/trip/all", b"old", &[]).await.expect("creating");
    let backup = cluster.directory().join("backup");
    cluster.save(&backup);
    engine.create("/f/reset/1", b"new", &[]).await.expect("creating");
    let before = engine.snapshot("/f/").await.expect("reading");
    cluster.restore(&backup);
    let after = engine.snapshot("/f/").await.expect("reading");
    assert_eq!(after.cluster_id, before.cluster_id);
    assert!(after.revision < before.revision, "{} before, {} after", before.revision, after.revision);
    assert_eq!(after.entries.keys().collect::<Vec<_>>(), ["/f/trip/all"]);
}
