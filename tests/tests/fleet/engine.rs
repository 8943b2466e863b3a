//! The calls to the cluster, against real servers.

use std::collections::BTreeSet;
use std::time::Duration;

use breaker_tests::etcd::Cluster;
use breaker_tests::slowness;
use breaker_user::fleet::engine::{Created, Kind, Update, Watch};

use crate::engine;

/// The next change of a watch, within 10 s.
async fn change(watch: &mut Watch) -> (String, Option<Vec<u8>>, i64) {
    let next = async {
        loop {
            match watch.next().await {
                Update::Changed { key, entry, revision } => return (key, entry.map(|e| e.value), revision),
                Update::Compacted => panic!("the history is lost"),
                Update::Lost { .. } | Update::Progress { .. } => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10) * slowness(), next).await.expect("a change")
}

#[tokio::test]
async fn a_key_is_created_once_although_every_member_is_asked() {
    let cluster = Cluster::start(3);
    let engine = engine(&cluster);
    let also = [("/f/command/1".to_owned(), b"trip".to_vec())];
    let Created::New { revision } = engine.create("/f/trip/all", b"one", &also).await.expect("creating")
    else {
        panic!("the key is new")
    };
    // The same value is a duplicate of the same command.
    let again = engine.create("/f/trip/all", b"one", &also).await.expect("creating again");
    assert_eq!(again, Created::New { revision });
    let other = engine.create("/f/trip/all", b"two", &[]).await.expect("creating with another value");
    assert_eq!(other, Created::Exists { revision });
    let snapshot = engine.snapshot("/f/").await.expect("reading");
    let keys: Vec<_> = snapshot.entries.keys().map(String::as_str).collect();
    assert_eq!(keys, ["/f/command/1", "/f/trip/all"]);
    let entry = &snapshot.entries["/f/trip/all"];
    assert_eq!(
        (entry.value.as_slice(), entry.create_revision, entry.mod_revision),
        (&b"one"[..], revision, revision)
    );
}

#[tokio::test]
async fn a_snapshot_of_many_pages_has_one_revision() {
    let cluster = Cluster::start(1);
    let engine = engine(&cluster);
    for batch in 0..10 {
        let entries: Vec<_> =
            (0..100).map(|n| (format!("/f/hosts/{:03}", batch * 100 + n), vec![7])).collect();
        engine.put(&entries, None).await.expect("writing");
    }
    let snapshot = engine.snapshot("/f/").await.expect("reading");
    assert_eq!(snapshot.entries.len(), 1_000);
    let newest = snapshot.entries.values().map(|entry| entry.mod_revision).max();
    assert_eq!(newest, Some(snapshot.revision));
    assert!(engine.snapshot("/g/").await.expect("reading").entries.is_empty());
}

#[tokio::test]
async fn a_watch_reports_changes_and_deletions_in_order() {
    let cluster = Cluster::start(3);
    let engine = engine(&cluster);
    let start = engine.snapshot("/f/").await.expect("reading").revision;
    let mut watch = engine.watch("/f/", start + 1);
    let first = engine.put(&[("/f/a".to_owned(), vec![1])], None).await.expect("writing");
    assert!(engine.compare_and_put("/f/a", first, &[2]).await.expect("changing"));
    assert!(!engine.compare_and_put("/f/a", first, &[3]).await.expect("refusing to change"));
    engine.delete("/f/a").await.expect("deleting");
    engine.delete("/f/a").await.expect("deleting nothing");
    let key = || "/f/a".to_owned();
    assert_eq!(change(&mut watch).await, (key(), Some(vec![1]), first));
    assert_eq!(change(&mut watch).await, (key(), Some(vec![2]), first + 1));
    assert_eq!(change(&mut watch).await, (key(), None, first + 2));
}

#[tokio::test]
async fn a_watch_of_a_compacted_revision_says_so() {
    let cluster = Cluster::start(3);
    let engine = engine(&cluster);
    let first = engine.put(&[("/f/a".to_owned(), vec![1])], None).await.expect("writing");
    engine.put(&[("/f/a".to_owned(), vec![2])], None).await.expect("writing");
    cluster.compact();
    let mut watch = engine.watch("/f/", first);
    let end = async {
        while watch.next().await != Update::Compacted {}
        watch.next().await
    };
    let again = tokio::time::timeout(Duration::from_secs(10) * slowness(), end).await;
    assert_eq!(again.expect("the end of the watch"), Update::Compacted);
    let snapshot = engine.snapshot("/f/").await.expect("reading");
    assert_eq!(snapshot.entries["/f/a"].value, [2]);
    let mut watch = engine.watch("/f/", snapshot.revision + 1);
    let revision = engine.put(&[("/f/a".to_owned(), vec![3])], None).await.expect("writing");
    assert_eq!(change(&mut watch).await, ("/f/a".to_owned(), Some(vec![3]), revision));
}

#[tokio::test]
async fn an_idle_watch_hears_from_every_member() {
    let mut cluster = Cluster::start(3);
    let engine = engine(&cluster);
    let mut watch = engine.watch("/f/", 1);
    let mut heard = BTreeSet::new();
    let all = async {
        while heard.len() < 3 {
            if let Update::Progress { member, .. } = watch.next().await {
                heard.insert(member);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3) * slowness(), all).await.expect("all members");
    cluster.kill(1);
    let lost = async {
        loop {
            if let Update::Lost { member, .. } = watch.next().await {
                return member;
            }
        }
    };
    let lost = tokio::time::timeout(Duration::from_secs(3) * slowness(), lost).await;
    assert_eq!(lost.expect("a lost member"), cluster.url(1));
}

#[tokio::test]
async fn a_key_ends_with_its_lease() {
    let cluster = Cluster::start(3);
    let engine = engine(&cluster);
    let lease = engine.lease(3).await.expect("a lease");
    engine.put(&[("/f/hosts/h/live".to_owned(), vec![1])], Some(lease)).await.expect("writing");
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        engine.keep_alive(lease).await.expect("renewing");
    }
    let snapshot = engine.snapshot("/f/").await.expect("reading");
    assert_eq!(snapshot.entries["/f/hosts/h/live"].lease, lease);
    let ended = async {
        while !engine.snapshot("/f/").await.expect("reading").entries.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10) * slowness(), ended).await.expect("the end of the key");
    assert_eq!(engine.keep_alive(lease).await.expect_err("no lease").kind(), Kind::LeaseLost);
    let late = engine.put(&[("/f/hosts/h/live".to_owned(), vec![1])], Some(lease)).await;
    assert_eq!(late.expect_err("no lease").kind(), Kind::LeaseLost);
}

#[tokio::test]
async fn the_version_of_each_member_is_known_or_the_reason_is() {
    let mut cluster = Cluster::start(2);
    let engine = engine(&cluster);
    cluster.kill(1);
    let versions = engine.versions().await;
    let [(first, Ok(version)), (second, Err(reason))] = versions.as_slice() else { panic!("{versions:?}") };
    assert_eq!([first, second], [&cluster.url(0), &cluster.url(1)]);
    let text = cluster.etcdctl(&["endpoint", "status"]);
    assert!(text.contains(&format!(" {version},")), "{version}: {text}");
    assert!(reason.contains("Connection refused"), "{reason}");
}
