//! Tests of the parts without a kernel: entries for events, and the history in the audit log.

use std::fs;
use std::path::PathBuf;

use breaker_common::abi::{ConnectionKey, Event, Limit, cause, kind, mapped};
use bytemuck::Zeroable;
use serde_json::json;

use super::entry::{EventContext, KINDS, entries};
use super::history::{History, Losses};
use crate::audit::{self, Actor, Entry};
use crate::config::Scopes;
use crate::kernel::clock;

fn names() -> Scopes {
    let name = |name: &str| name.parse().unwrap();
    Scopes::new(vec![name("desk")], vec![name("xnys-1")])
}

struct TestContext(Scopes);

impl EventContext for TestContext {
    fn names(&self) -> &Scopes {
        &self.0
    }

    fn limit(&self, scope: u32, position: u32) -> Option<Limit> {
        let limit = Limit { class: 0, max: 500, per_ns: 3_000_000_000, ..Limit::default() };
        (scope == 3 && position == 0).then_some(limit)
    }

    fn policy(&self) -> &str {
        "a policy"
    }
}

fn address(octets: [u8; 4]) -> [u32; 4] {
    mapped(u32::from_ne_bytes(octets))
}

fn event(kind: u32) -> Event {
    let connection = ConnectionKey {
        local: address([10, 9, 0, 1]),
        remote: address([10, 9, 0, 2]),
        local_port: 4242u16.to_be(),
        remote_port: 9001u16.to_be(),
    };
    Event { at_ns: clock::now_ns(), kind, scope: 3, session: 1, connection, ..Event::zeroed() }
}

fn entries_for(events: &[Event]) -> Vec<Entry> {
    entries(events, &TestContext(names()))
}

#[test]
fn a_trip_is_logged_with_its_limit_and_its_connection() {
    let [entry] = &entries_for(&[Event { cause: cause::RATE, used: 501, ..event(kind::TRIPPED) }])[..] else {
        panic!("one")
    };
    assert_eq!(entry.kind, "tripped");
    assert_eq!(entry.scope.as_deref(), Some("session/xnys-1"));
    assert_eq!(entry.cause.as_deref(), Some("rate"));
    assert_eq!(entry.actor, Actor::kernel());
    assert_eq!(entry.policy, "a policy");
    let counts = json!({
        "session": "xnys-1", "connection": "10.9.0.1:4242 > 10.9.0.2:9001",
        "limit": "500 order per 3s", "used": 501,
    });
    assert_eq!(entry.counts, counts);
}

#[test]
fn figures_that_an_event_does_not_have_are_left_out() {
    let [desync] = &entries_for(&[Event { cause: cause::DESYNC, ..event(kind::TRIPPED) }])[..] else {
        panic!("one")
    };
    assert_eq!(desync.counts, json!({ "session": "xnys-1", "connection": "10.9.0.1:4242 > 10.9.0.2:9001" }));
    let [warned] = &entries_for(&[Event { scope: 0, used: 250, level: 1, ..event(kind::WARNED) }])[..] else {
        panic!("one")
    };
    assert_eq!((warned.scope.as_deref(), warned.cause.as_deref()), (Some("host"), None));
    let connection = "10.9.0.1:4242 > 10.9.0.2:9001";
    assert_eq!(
        warned.counts,
        json!({ "session": "xnys-1", "connection": connection, "used": 250, "level": 1 })
    );
    let [unknown] = &entries_for(&[Event { scope: 77, session: 77, ..event(99) }])[..] else { panic!("one") };
    assert_eq!((unknown.kind.as_str(), unknown.scope.as_deref()), ("unknown", None));
    assert_eq!(unknown.counts, json!({ "connection": connection }));
}

#[test]
fn ipv6_addresses_are_separated_from_their_ports() {
    let mut event = event(kind::FENCED);
    event.connection.local = bytemuck::cast("fd09::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    event.connection.remote = bytemuck::cast("fd09::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(entries_for(&[event])[0].counts["connection"], "[fd09::1]:4242 > [fd09::2]:9001");
}

#[test]
fn every_kind_has_the_name_that_scripts_know() {
    let expected = [
        "tripped",
        "would_trip",
        "warned",
        "connection_fenced",
        "desynced",
        "table_full",
        "undeclared",
        "replayed",
        // A silent agent is logged as a warning with its cause.
        "warned",
        "isolated",
        "comp_id_mismatch",
        "blind",
        "sighted",
    ]
    .map(str::to_owned);
    let events: Vec<_> = KINDS.iter().map(|(kind, _)| event(*kind)).collect();
    assert_eq!(entries_for(&events).into_iter().map(|entry| entry.kind).collect::<Vec<_>>(), expected);
}

#[test]
fn a_full_table_is_one_entry_a_session_in_its_place() {
    let full = |session| Event { session, scope: 0, ..event(kind::TABLE_FULL) };
    let entries = entries_for(&[
        event(kind::FENCED),
        full(1),
        full(0),
        full(1),
        event(kind::DESYNCED),
        full(1),
        full(0),
    ]);
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.kind.as_str(), &entry.counts["session"], entry.counts["events"].as_u64()))
        .collect();
    assert_eq!(
        found,
        [
            ("connection_fenced", &json!("xnys-1"), None),
            ("table_full", &json!("xnys-1"), Some(3)),
            ("table_full", &json!("undeclared"), Some(2)),
            ("desynced", &json!("xnys-1"), None),
        ]
    );
}

/// A directory for a log, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("breaker-agent-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn log_entry(kind: &str, scope: Option<&str>, cause: Option<&str>, counts: serde_json::Value) -> Entry {
    Entry {
        time: jiff::Timestamp::now(),
        kind: kind.to_owned(),
        scope: scope.map(str::to_owned),
        cause: cause.map(str::to_owned),
        actor: Actor::kernel(),
        // Text in a reason that looks like a kind must not count.
        reason: Some("\"kind\":\"tripped\" they said".to_owned()),
        counts,
        policy: "a policy".to_owned(),
    }
}

#[test]
fn trips_are_counted_across_restarts_and_rotation() {
    let scratch = Scratch::new("history");
    let log = scratch.log();
    let mut history = History::new(log.clone(), &names(), 7);
    history.read_new().expect("no log is no error");
    let trip = |cause| log_entry("tripped", Some("session/xnys-1"), Some(cause), json!({}));
    audit::append(&log, &[trip("rate"), log_entry("reset", Some("session/xnys-1"), Some("rate"), json!({}))])
        .unwrap();
    history.read_new().unwrap();
    assert_eq!(history.trips("session/xnys-1"), [0, 1, 0, 0, 0, 0, 0, 0]);
    audit::append(
        &log,
        &[trip("manual"), trip("rate"), log_entry("tripped", Some("session/gone"), Some("rate"), json!({}))],
    )
    .unwrap();
    history.read_new().unwrap();
    history.read_new().unwrap();
    assert_eq!(history.trips("session/xnys-1"), [1, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(history.trips("host"), [0; 8]);
    assert_eq!(history.trips("session/gone"), [0; 8], "no label that the policy does not know");

    let mut restarted = History::new(log.clone(), &names(), 7);
    restarted.read_new().unwrap();
    assert_eq!(restarted.trips("session/xnys-1"), history.trips("session/xnys-1"));

    fs::rename(&log, log.with_extension("1")).unwrap();
    audit::append(&log, &[trip("rate")]).unwrap();
    history.read_new().unwrap();
    assert_eq!(history.trips("session/xnys-1"), [1, 3, 0, 0, 0, 0, 0, 0], "a rotated log takes nothing back");
}

#[test]
fn a_line_that_is_being_written_is_counted_once_it_is_whole() {
    let scratch = Scratch::new("torn");
    let log = scratch.log();
    audit::append(&log, &[log_entry("tripped", Some("host"), Some("rate"), json!({}))]).unwrap();
    let whole = fs::read(&log).unwrap();
    let mut history = History::new(log.clone(), &names(), 7);
    for end in [1, whole.len() / 2, whole.len() - 1] {
        fs::write(&log, &whole[..end]).unwrap();
        history.read_new().unwrap();
        assert_eq!(history.trips("host"), [0; 8]);
    }
    fs::write(&log, &whole).unwrap();
    history.read_new().unwrap();
    assert_eq!(history.trips("host"), [0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_causes_of_a_scope_follow_from_the_log() {
    let scratch = Scratch::new("causes");
    let log = scratch.log();
    let mut history = History::new(log.clone(), &names(), 7);
    let by_process = |kind: &str, cause: Option<&str>, pid: u32| {
        let mut entry = log_entry(kind, Some("host"), cause, json!({}));
        entry.actor.pid = pid;
        entry
    };
    for (entry, causes) in [
        (by_process("tripped", Some("rate"), 1), cause::RATE),
        (by_process("tripped", Some("manual"), 1), cause::RATE | cause::MANUAL),
        (by_process("reset_refused", Some("rate,manual"), 2), cause::RATE | cause::MANUAL),
        // Logged first and then refused.
        (by_process("reset", Some("rate,manual"), 3), 0),
        (by_process("reset_refused", Some("rate,manual"), 3), cause::RATE | cause::MANUAL),
        (by_process("reset", Some("rate,manual"), 4), 0),
        // A refusal of another process.
        (by_process("reset_refused", None, 5), 0),
        (by_process("tripped", Some("deadman"), 0), cause::DEADMAN),
        (log_entry("unloaded", None, None, json!({})), 0),
    ] {
        audit::append(&log, &[entry]).unwrap();
        history.read_new().unwrap();
        assert_eq!(history.causes("host"), causes);
    }
}

#[test]
fn logged_losses_of_other_loads_do_not_count() {
    let scratch = Scratch::new("lost");
    let log = scratch.log();
    let lost = |ring: u64, loaded_at: u64| {
        let counts =
            json!({ "ring_since_load": ring, "left_out_since_load": 2 * ring, "loaded_at": loaded_at });
        log_entry("events_lost", None, None, counts)
    };
    audit::append(&log, &[lost(900, 6), lost(5, 7), lost(12, 7), lost(800, 8)]).unwrap();
    let mut history = History::new(log.clone(), &names(), 7);
    history.read_new().unwrap();
    assert_eq!(history.losses(), Losses { ring: 12, left_out: 24 });
    let mut other = History::new(log, &names(), 9);
    other.read_new().unwrap();
    assert_eq!(other.losses(), Losses::default());
}

#[test]
fn a_warning_stays_in_the_history_until_its_scope_is_acknowledged() {
    let path = std::env::temp_dir().join(format!("breaker-warnings-{}.jsonl", std::process::id()));
    // A file of an earlier run is replaced.
    let _ = fs::remove_file(&path);
    let entry = |second: i64, kind: &str, scope: &str, counts: serde_json::Value| Entry {
        time: jiff::Timestamp::from_second(1_700_000_000 + second).unwrap(),
        kind: kind.to_owned(),
        scope: Some(scope.to_owned()),
        cause: None,
        actor: Actor::kernel(),
        reason: None,
        counts,
        policy: "p".to_owned(),
    };
    let limit = "500 order per 3s";
    let warned = |second, scope, level, used| {
        entry(second, "warned", scope, json!({ "limit": limit, "level": level, "used": used }))
    };
    let found = |path: &PathBuf| {
        let mut history = History::new(path.clone(), &names(), 0);
        history.read_new().unwrap();
        let warnings = history.warnings().into_iter();
        warnings.map(|one| (one.scope, one.level, one.used, one.since.as_second())).collect::<Vec<_>>()
    };
    let lines = [
        warned(1, "session/xnys-1", 2, 300),
        warned(5, "session/xnys-1", 1, 250),
        warned(7, "host", 1, 250),
        // A silent agent is about no limit.
        entry(8, "warned", "host", json!({})),
    ];
    audit::append(&path, &lines).unwrap();
    let host = ("host".to_owned(), 1, 250, 1_700_000_007);
    let session = |level, used, since: i64| ("session/xnys-1".to_owned(), level, used, 1_700_000_000 + since);
    assert_eq!(found(&path), [host.clone(), session(2, 300, 1)]);
    audit::append(&path, &[entry(9, "acknowledged", "session/xnys-1", json!({}))]).unwrap();
    assert_eq!(found(&path), std::slice::from_ref(&host));
    audit::append(&path, &[warned(11, "session/xnys-1", 1, 260)]).unwrap();
    assert_eq!(found(&path), [host, session(1, 260, 11)]);
    fs::remove_file(&path).unwrap();
}
