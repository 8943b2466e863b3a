//! Tests of the text of the metrics, and of the choice of the format.

use std::time::Duration;

use breaker_common::abi::{Counters, cause};

use super::FAMILIES;
use super::figures::{Figures, Limit, Scope, Session};
use super::text::{Format, text};
use crate::agent::event_queue::Counts;
use crate::agent::last_check::Reattachments;
use crate::enforced::{Enforced, Problem, ProblemKind};
use crate::kernel::connections::ConnectionCount;

/// Names and labels, a contract with dashboards.
const NAMES: &[(&str, &[&str])] = &[
    ("breaker_build_info", &["version", "git", "abi", "program_tag"]),
    ("breaker_policy_info", &["policy", "sha256"]),
    ("breaker_armed", &["scope"]),
    ("breaker_tripped", &["scope", "cause"]),
    ("breaker_epoch", &["scope"]),
    ("breaker_trips_total", &["scope", "cause"]),
    ("breaker_messages_total", &["session", "class", "verdict"]),
    ("breaker_inbound_messages_total", &["session", "kind"]),
    ("breaker_inbound_desyncs_total", &["session"]),
    ("breaker_packets_total", &["session", "verdict"]),
    ("breaker_retransmitted_segments_total", &["session"]),
    ("breaker_desyncs_total", &["session"]),
    ("breaker_connections", &["session", "state"]),
    ("breaker_blind_connections", &["session"]),
    ("breaker_unread_segments_total", &["session"]),
    ("breaker_limit", &["scope", "class", "per"]),
    ("breaker_limit_used", &["scope", "class", "per"]),
    ("breaker_limit_peak", &["scope", "class", "per"]),
    ("breaker_warning", &["scope", "class", "per"]),
    ("breaker_warning_age_seconds", &["scope", "class", "per"]),
    ("breaker_interface_attached", &["interface"]),
    ("breaker_unseen_packets_total", &["interface", "kind"]),
    ("breaker_reattached_total", &["interface"]),
    ("breaker_unprotected_seconds_total", &["interface"]),
    ("breaker_tampered_total", &[]),
    ("breaker_enforced", &[]),
    ("breaker_problem", &["what", "where"]),
    ("breaker_heartbeat_age_seconds", &[]),
    ("breaker_connection_table_used", &[]),
    ("breaker_connection_table_size", &[]),
    ("breaker_events_lost_total", &[]),
    ("breaker_events_left_out_total", &[]),
    ("breaker_audit_seq", &[]),
    ("breaker_audit_pending", &[]),
    ("breaker_audit_failures_total", &[]),
    ("breaker_notify_failures_total", &[]),
    ("breaker_notify_lost_total", &[]),
    ("breaker_state_ok", &[]),
    ("breaker_state_age_seconds", &[]),
];

fn figures() -> Figures {
    let counters = Counters {
        passed: [10, 11, 12, 13, 14],
        withheld: [20, 21, 22, 23, 24],
        packets_passed: 30,
        packets_withheld: 31,
        retransmitted: 32,
        desyncs: 33,
        inbound: [40, 41, 42],
        inbound_desyncs: 43,
        unread: 44,
        blind_orders: 45,
    };
    Figures {
        build: ["0.1.0", "abc", "1", "00ff"].map(str::to_owned),
        policy: ["a \"b\" \\ c", "5e1f"].map(str::to_owned),
        scopes: vec![Scope {
            name: "host".to_owned(),
            armed: true,
            causes: cause::RATE | cause::MANUAL,
            epoch: 3,
            trips: [1, 2, 0, 0, 0, 0, 0, 0],
            limits: vec![Limit {
                class: "order",
                per: "3s".to_owned(),
                max: 500,
                used: 12,
                peak: 77,
                warning: 2,
                warning_age: Some(Duration::from_millis(61_500)),
            }],
        }],
        sessions: vec![Session {
            name: "xnys-1".to_owned(),
            counters,
            connections: ConnectionCount { live: 2, fenced: 2, blind: 1 },
        }],
        inbound: true,
        interfaces: [("eth1".to_owned(), true), ("eth2".to_owned(), false)].into(),
        reattached: [
            ("eth1".to_owned(), Reattachments { count: 1, unprotected: Duration::from_millis(250) }),
            ("eth2".to_owned(), Reattachments::default()),
        ]
        .into(),
        tampered: 3,
        enforced: Enforced {
            ok: false,
            problems: vec![Problem {
                kind: ProblemKind::Displaced,
                location: "eth2".to_owned(),
                found: "another".to_owned(),
                cure: "remove it".to_owned(),
                open: true,
            }],
            notes: Vec::new(),
        },
        heartbeat_age_ns: Some(42_000_000),
        table: [5, 65_536],
        unseen: vec![("eth1".to_owned(), "mpls", 9), ("eth2".to_owned(), "vlan", 10)],
        events_lost: 6,
        events_left_out: 11,
        audit_seq: 41,
        audit_pending: 7,
        audit_failures: 8,
        on_event: Counts { failures: 12, lost: 13 },
        state: (true, Some(2500)),
    }
}

#[test]
fn names_and_labels_are_the_documented_ones() {
    let found: Vec<_> = FAMILIES.iter().map(|family| (family.name, family.labels)).collect();
    assert_eq!(found, NAMES);
}

#[test]
fn both_formats_are_as_recorded() {
    assert_eq!(text(figures(), Format::Classic).unwrap(), include_str!("golden.classic.txt"));
    assert_eq!(text(figures(), Format::OpenMetrics).unwrap(), include_str!("golden.openmetrics.txt"));
}

#[test]
fn inbound_counters_are_served_only_if_inbound_messages_are_read() {
    let unread = text(Figures { inbound: false, ..figures() }, Format::Classic).unwrap();
    let samples: Vec<_> = unread.lines().filter(|line| line.starts_with("breaker_inbound")).collect();
    assert!(samples.is_empty(), "{samples:?}");
}

#[test]
fn the_formats_differ_only_in_the_name_of_a_counter() {
    let classic = text(figures(), Format::Classic).unwrap();
    let open = text(figures(), Format::OpenMetrics).unwrap();
    let samples = |text: &str| {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&classic), samples(&open));
    assert_eq!(open.lines().last(), Some("# EOF"));
    for family in FAMILIES {
        let kind = if family.name.ends_with("_total") { "counter" } else { "gauge" };
        assert!(classic.contains(&format!("# TYPE {} {kind}\n", family.name)), "{}", family.name);
        assert!(open.contains(&format!("# TYPE {} {kind}\n", family.base())), "{}", family.name);
    }
}

#[test]
fn openmetrics_is_served_on_request() {
    let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,\
                           application/openmetrics-text;version=0.0.1;q=0.75,\
                           text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, expected) in [
        ("", Format::Classic),
        ("*/*", Format::Classic),
        ("text/plain", Format::Classic),
        (prometheus_2_42, Format::OpenMetrics),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("Application/OpenMetrics-Text; q=0.2", Format::OpenMetrics),
        ("application/openmetrics-text;q=0", Format::Classic),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.8", Format::Classic),
        ("application/openmetrics-text;q=junk", Format::OpenMetrics),
        (";;,,=;q", Format::Classic),
    ] {
        assert_eq!(Format::accepted(accept), expected, "{accept:?}");
    }
}
