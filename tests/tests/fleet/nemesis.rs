//! A watch while members are killed, frozen and restarted in turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use breaker_tests::etcd::Cluster;
use breaker_tests::rng::Rng;
use breaker_tests::slowness;
use breaker_user::fleet::engine::{Created, Engine, Update, Watch};

use crate::engine;

const UPDATES: u32 = 1_000;
const SEED: u64 = 0x5eed_0001;

/// Disturbs one member after the other until told to stop, and heals the last one. Returns the number of
/// disturbances.
fn disturb(mut cluster: Cluster, until: &AtomicBool) -> (Cluster, u32) {
    let mut rng = Rng(SEED);
    let mut count = 0;
    while !until.load(Ordering::Relaxed) {
        let member = usize::try_from(rng.below(3)).expect("a small number");
        let time = Duration::from_millis(200 + rng.below(800));
        match rng.below(2) {
            0 => {
                cluster.kill(member);
                thread::sleep(time);
                cluster.restart(member);
            }
            _ => {
                cluster.freeze(member);
                thread::sleep(time);
                cluster.thaw(member);
            }
        }
        count += 1;
        thread::sleep(Duration::from_millis(rng.below(300)));
    }
    (cluster, count)
}

/// Creates all keys. Returns the revision of each.
async fn write(engine: &Engine) -> BTreeMap<String, i64> {
    let mut written = BTreeMap::new();
    for n in 0..UPDATES {
        let key = format!("/f/command/{n:04}");
        match engine.create(&key, &n.to_le_bytes(), &[]).await.expect("creating") {
            Created::New { revision } => written.insert(key, revision),
            Created::Exists { .. } => panic!("{key} exists with another value"),
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}

/// Collects all changes until none has come for two seconds after the last one.
async fn collect(watch: &mut Watch) -> Vec<(String, i64)> {
    let mut changes = Vec::new();
    loop {
        let is_complete = changes.len() >= UPDATES as usize;
        let time = Duration::from_secs(if is_complete { 2 } else { 30 * u64::from(slowness()) });
        let next = async {
            loop {
                if let Update::Changed { key, revision, entry } = watch.next().await {
                    assert!(entry.is_some(), "{key} is deleted");
                    return (key, revision);
                }
            }
        };
        match tokio::time::timeout(time, next).await {
            Ok(change) => changes.push(change),
            Err(_) => return changes,
        }
    }
}

#[tokio::test]
async fn a_watch_reports_each_change_once_while_members_are_killed_and_frozen() {
    let cluster = Cluster::start(3);
    let engine = engine(&cluster).with_timeout(Duration::from_secs(20));
    let start = engine.snapshot("/f/").await.expect("reading").revision;
    let mut watch = engine.watch("/f/", start + 1);
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let nemesis = thread::spawn(move || disturb(cluster, &until));
    let writing = async {
        let written = write(&engine).await;
        stop.store(true, Ordering::Relaxed);
        written
    };
    let (written, changes) = tokio::join!(writing, collect(&mut watch));
    let (_cluster, disturbances) = nemesis.join().expect("the nemesis");
    println!("{disturbances} disturbances, seed {SEED:#x}");
    assert!(disturbances >= 5, "{disturbances} disturbances");
    assert!(changes.is_sorted_by_key(|(_, revision)| *revision), "the order of revisions");
    let reported: BTreeMap<_, _> = changes.iter().cloned().collect();
    assert_eq!(changes.len(), reported.len(), "each change once");
    let missing: Vec<_> = written.iter().filter(|(key, _)| !reported.contains_key(*key)).collect();
    assert!(missing.is_empty(), "{} of {UPDATES} changes missing: {missing:?}", missing.len());
    let is_same = |(key, revision): (&String, &i64)| written.get(key) == Some(revision);
    assert!(reported.iter().all(is_same), "the revisions of the changes");
}
