use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fleet::record::encode;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn trip(id: &str) -> Vec<u8> {
    let at = "2026-11-27T10:00:00Z".parse().expect("a time");
    encode(&Trip { id: id.into(), by: "ann".into(), why: "test".into(), at }).expect("short")
}

fn reset() -> Vec<u8> {
    let at = "2026-11-27T10:01:00Z".parse().expect("a time");
    let reset = Reset { id: "r".into(), by: "bob".into(), second: None, why: "test".into(), at };
    encode(&reset).expect("short")
}

fn records(trips: &[(&str, Vec<u8>)], resets: &[(&str, Vec<u8>)]) -> Records {
    let owned =
        |of: &[(&str, Vec<u8>)]| of.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Records { trips: owned(trips), resets: owned(resets) }
}

/// The scopes that stand on router-1, which has the group g and the session s.
fn on_router_1(standing: &Standing) -> Vec<String> {
    let declares = |scope: &ScopeName| ["group/g", "session/s"].contains(&scope.to_string().as_str());
    standing.on_host(&name("router-1"), declares).iter().map(|trip| trip.scope.to_string()).collect()
}

#[test]
fn a_trip_concerns_the_hosts_of_its_scope() {
    for (key, scope) in [
        ("all", Some("host")),
        ("host/router-1", Some("host")),
        ("host/router-2", None),
        ("group/g", Some("group/g")),
        ("group/h", None),
        ("session/s", Some("session/s")),
        ("session/t", None),
        ("something else", Some("host")),
        ("host/", Some("host")),
    ] {
        let mut standing = Standing::default();
        standing.update(&records(&[(key, trip("a"))], &[]), true);
        assert_eq!(on_router_1(&standing), scope.into_iter().collect::<Vec<_>>(), "{key}");
    }
}

#[test]
fn only_the_reset_of_its_id_lifts_a_trip() {
    let mut standing = Standing::default();
    standing.update(&records(&[("all", trip("a"))], &[("b", reset())]), true);
    assert_eq!(on_router_1(&standing), ["host"]);
    standing.update(&records(&[("all", trip("a"))], &[("a", b"{}".to_vec())]), true);
    assert_eq!(on_router_1(&standing), ["host"], "a reset that cannot be read is none");
    standing.update(&records(&[("all", trip("a"))], &[("a", reset())]), true);
    assert_eq!(on_router_1(&standing), [""; 0]);
    assert_eq!(standing.lifted_on_host(&name("router-1"), |_| false), BTreeSet::from([ScopeName::Host]));
    // A later trip of the same scope has another id.
    standing.update(&records(&[("all", trip("c"))], &[("a", reset())]), true);
    assert_eq!(on_router_1(&standing), ["host"]);
}

#[test]
fn a_trip_without_a_key_or_with_another_trip_beside_it_stands() {
    let mut standing = Standing::default();
    standing.update(&records(&[("all", trip("a")), ("host/router-1", trip("b"))], &[]), true);
    standing.update(&records(&[("host/router-1", trip("b"))], &[("b", reset())]), true);
    assert_eq!(on_router_1(&standing), ["host"], "the trip of all hosts has no key and no reset");
    assert!(standing.lifted_on_host(&name("router-1"), |_| false).is_empty());
    assert_eq!(standing.missing(&records(&[], &[])).collect::<Vec<_>>(), ["all", "host/router-1"]);
    standing.update(&records(&[("all", trip("a"))], &[("a", reset())]), true);
    assert_eq!(on_router_1(&standing), [""; 0]);
}

#[test]
fn a_restored_cluster_trips_and_lifts_nothing() {
    let mut standing = Standing::default();
    standing.update(&records(&[("all", trip("a")), ("group/g", trip("b"))], &[("b", reset())]), true);
    standing.update(
        &records(
            &[("all", trip("a")), ("group/g", trip("b")), ("session/s", trip("c"))],
            &[("a", reset()), ("b", reset()), ("c", reset())],
        ),
        false,
    );
    // The trip b was lifted before, and stays lifted.
    assert_eq!(on_router_1(&standing), ["host", "session/s"]);
}

#[test]
fn a_record_that_cannot_be_read_is_a_trip() {
    for value in [&b""[..], b"{}", b"\xff", br#"{"schema":2,"id":"a"}"#, &[b'['; 100_000]] {
        let mut standing = Standing::default();
        standing.update(&records(&[("all", value.to_vec())], &[("a", reset()), ("", reset())]), true);
        assert_eq!(on_router_1(&standing), ["host"], "{:?}", &value[..value.len().min(20)]);
        // Another trip in its place can be reset.
        standing.update(&records(&[("all", trip("a"))], &[("a", reset())]), true);
        assert_eq!(on_router_1(&standing), [""; 0]);
    }
}

proptest! {
    /// Whatever the records are, a trip stands until a reset with its id was seen in a trusted cluster.
    #[test]
    fn no_record_but_its_reset_lifts_a_trip(
        steps in vec(
            (vec((0..4usize, 0..6u8, any::<bool>()), 0..4), vec(0..6u8, 0..3), any::<bool>()),
            1..12,
        ),
    ) {
        const KEYS: [&str; 4] = ["all", "host/router-1", "group/g", "session/s"];
        let mut standing = Standing::default();
        let mut last: BTreeMap<&str, Option<String>> = BTreeMap::new();
        let mut reset_ids: BTreeSet<String> = BTreeSet::new();
        for (trips, resets, trusted) in steps {
            let mut now = Records::default();
            for (key, id, readable) in trips {
                let value = if readable { trip(&id.to_string()) } else { vec![id] };
                now.trips.insert(KEYS[key].to_owned(), value);
                last.insert(KEYS[key], readable.then(|| id.to_string()));
            }
            now.resets = resets.iter().map(|id| (id.to_string(), reset())).collect();
            standing.update(&now, trusted);
            // A reset counts for the trips that are in the same records.
            for id in now.resets.keys().filter(|_| trusted) {
                let has = now.trips.values().any(|value| {
                    record::decode::<Trip>(value).is_ok_and(|trip| trip.id == *id)
                });
                if has {
                    reset_ids.insert(id.clone());
                }
            }
            let stands = on_router_1(&standing);
            for (key, id) in &last {
                let lifted = id.as_ref().is_some_and(|id| reset_ids.contains(id));
                let scope = if key.contains("host") || *key == "all" { "host" } else { key };
                if !lifted {
                    prop_assert!(stands.iter().any(|found| found == scope), "{key} {id:?}: {stands:?}");
                }
            }
        }
    }

    #[test]
    fn records_of_any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = record::decode::<Trip>(&bytes);
        let _ = record::decode::<crate::fleet::record::HostState>(&bytes);
        let mut standing = Standing::default();
        standing.update(&records(&[("all", bytes.clone())], &[("x", bytes)]), true);
        let _ = on_router_1(&standing);
    }
}
