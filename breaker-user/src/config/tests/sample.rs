//! The documented sample, and the defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{HOST, accepted};
use crate::config::*;

/// The sample in the documentation of the configuration.
pub(super) const SAMPLE: &str = include_str!("sample.toml");

fn written(limits: &[Limit]) -> Vec<String> {
    let write = |limit: &Limit| {
        let (class, warn) = (limit.class.word(), limit.warn.as_slice());
        match limit.per_fill {
            Some(ratio) => format!("{class} {ratio} per fill after {} warn {warn:?}", limit.max),
            None => format!("{class} {} per {} warn {warn:?}", limit.max, limit.per),
        }
    };
    limits.iter().map(write).collect()
}

#[test]
fn the_sample_is_parsed_as_documented() {
    let policy = accepted(SAMPLE);
    assert_eq!(policy.name().as_str(), "us-equities 2026-11-22.1");
    let host = policy.host();
    assert_eq!(host.interfaces.iter().map(Interface::as_str).collect::<Vec<_>>(), ["eth1"]);
    assert_eq!((host.mode, host.hook), (Mode::Egress, Hook::Auto));
    assert_eq!(host.undeclared, Undeclared::Watch);
    assert_eq!(host.inbound, Inbound::Watch);
    assert_eq!(host.on_trip, OnTrip::Reset);
    assert_eq!(host.while_tripped, WhileTripped::ReduceOnly);
    assert_eq!(host.on_desync, OnDesync::Count);
    assert_eq!(host.on_table_full, OnTableFull::Block);
    assert_eq!(host.unclean_boot, UncleanBoot::Trip);
    assert_eq!(host.connections.get(), 65_536);
    assert!(host.armed);
    assert_eq!(written(&host.limits), ["order 5000 per 1s warn [50, 75, 90]"]);
    assert_eq!(host.deadman, Some(Deadman { after: Duration::from_secs(3), action: DeadmanAction::Warn }));

    let agent = policy.agent();
    assert_eq!(agent.metrics, SocketAddr::from((Ipv4Addr::LOCALHOST, 9469)));
    assert_eq!(agent.control.as_path(), Path::new("/run/breaker/control.sock"));
    assert_eq!(agent.state.as_path(), Path::new("/var/lib/breaker"));
    assert_eq!(agent.audit.as_path(), Path::new("/var/log/breaker/audit.jsonl"));

    let [group] = policy.groups() else { panic!("one group") };
    assert_eq!(group.name.as_str(), "us-equities");
    assert_eq!(written(&group.limits), ["order 2000 per 1s warn [50, 75, 90]"]);

    let [session] = policy.sessions() else { panic!("one session") };
    assert_eq!(session.name.as_str(), "xnys-1");
    assert_eq!(session.remotes.iter().map(Endpoint::to_string).collect::<Vec<_>>(), ["10.9.0.2:9001"]);
    assert_eq!(session.local, Some(IpAddr::from([10, 9, 0, 1])));
    assert_eq!(session.sender.as_ref().map(CompId::as_str), Some("FIRM"));
    assert_eq!(session.target.as_ref().map(CompId::as_str), Some("XNYS"));
    assert_eq!(session.sender_sub.as_ref().map(CompId::as_str), Some("DESK7"));
    assert_eq!(session.target_sub, None);
    assert_eq!(session.groups.iter().map(|group| group.get()).collect::<Vec<_>>(), [0]);
    assert_eq!(session.wire, WireFormat::Fix);
    assert!(session.armed);
    assert_eq!(session.possdup, PossDup::Block);
    // Own limits replace both classes of the preset.
    let limits = [
        "order 500 per 3s warn [50, 75, 90]",
        "cancel 1000 per 3s warn [50, 75, 90]",
        "reject 50 per 1m warn [50, 75, 90]",
        "order 100 per fill after 1000 warn [50, 75, 90]",
    ];
    assert_eq!(written(&session.limits), limits);
    assert!(session.classes.is_empty());
    assert_eq!(policy.warnings().to_string(), "");
}

#[test]
fn the_shortest_file_has_the_defaults_of_the_sample() {
    let (short, sample) = (accepted(HOST), accepted(SAMPLE));
    assert_eq!(short.name().as_str(), "unnamed");
    // No limit needs inbound messages.
    let limits = short.host().limits.clone();
    let host = Host { limits, deadman: None, inbound: Inbound::Ignore, ..sample.host().clone() };
    assert_eq!(short.host(), &host);
    assert_eq!(short.agent(), sample.agent());
    assert!(short.host().limits.is_empty() && short.groups().is_empty() && short.sessions().is_empty());
}

#[test]
fn a_session_inherits_settings_of_the_host() {
    let own = "on_trip = \"reset\"\nwhile_tripped = \"isolate\"\non_desync = \"warn\"\n";
    let policy = accepted(&format!(
        "{HOST}on_trip = \"drop\"\nwhile_tripped = \"admin-only\"\non_desync = \"trip\"\n\
         [[session]]\nname = \"a\"\nremote = \"10.0.0.1:1\"\n\
         [[session]]\nname = \"b\"\nremote = \"10.0.0.1:2\"\n{own}"
    ));
    let [a, b] = policy.sessions() else { panic!("two sessions") };
    assert_eq!(
        (a.on_trip, a.while_tripped, a.on_desync),
        (OnTrip::Drop, WhileTripped::AdminOnly, OnDesync::Trip)
    );
    assert_eq!(
        (b.on_trip, b.while_tripped, b.on_desync),
        (OnTrip::Reset, WhileTripped::Isolate, OnDesync::Warn)
    );
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    // printf '[host]\ninterfaces = ["eth1"]\n' | sha256sum
    let policy = accepted(HOST);
    assert_eq!(policy.sha256_hex(), "f98ef8d1f754fe608dd414c05ca1220799cc7648a35207a36bc9fc1739fc5507");
    assert_ne!(policy.sha256(), accepted(&format!("{HOST}\n")).sha256());
}

#[test]
fn every_choice_can_be_written() {
    fn all<T: Word + std::fmt::Debug + PartialEq>(key: &str, read: fn(&Policy) -> T) {
        for word in T::ALL {
            let policy = accepted(&format!("{HOST}{key} = \"{}\"\n", word.word()));
            assert_eq!(read(&policy), *word);
        }
    }
    all("mode", |policy| policy.host().mode);
    all("undeclared", |policy| policy.host().undeclared);
    all("inbound", |policy| policy.host().inbound);
    all("on_trip", |policy| policy.host().on_trip);
    all("while_tripped", |policy| policy.host().while_tripped);
    all("on_desync", |policy| policy.host().on_desync);
    all("unclean_boot", |policy| policy.host().unclean_boot);
    all("on_table_full", |policy| policy.host().on_table_full);
}

#[test]
fn presets_add_limits_for_classes_without_own_limits() {
    let limits = |lines: &str| {
        let text = format!("{HOST}[[session]]\nname = \"x\"\nremote = \"10.0.0.1:1\"\n{lines}\n");
        written(&accepted(&text).sessions()[0].limits)
    };
    let warn = "warn [50, 75, 90]";
    for (preset, expected) in [
        ("cme", &["order 500 per 3s", "cancel 1000 per 3s"][..]),
        ("eurex-hf", &["order 150 per 1s"]),
        ("eurex-lf", &["order 50 per 1s"]),
        ("cboe-digital", &["order 100 per 1s"]),
        ("cboe-us", &["order 10000 per 1s"]),
        ("refinitiv", &["order 15 per 5s"]),
    ] {
        let expected: Vec<_> = expected.iter().map(|limit| format!("{limit} {warn}")).collect();
        assert_eq!(limits(&format!("preset = \"{preset}\"")), expected);
    }
    let own = "limits = [{ class = \"order\", max = 9, per = \"total\", warn = [] }]";
    assert_eq!(
        limits(&format!("preset = \"cme\"\n{own}")),
        ["order 9 per total warn []", "cancel 1000 per 3s warn [50, 75, 90]"]
    );
    let ratio = "limits = [{ class = \"order\", per_fill = 9, after = 5, warn = [] }]";
    assert_eq!(
        limits(&format!("preset = \"eurex-hf\"\n{ratio}")),
        ["order 9 per fill after 5 warn []", "order 150 per 1s warn [50, 75, 90]"]
    );
}

#[test]
fn times_are_read_and_written_in_one_unit() {
    for (text, written, milliseconds) in [
        ("1ms", "1ms", 1),
        ("500ms", "500ms", 500),
        ("1000ms", "1s", 1_000),
        ("90s", "90s", 90_000),
        ("60s", "1m", 60_000),
        ("1m", "1m", 60_000),
        ("24h", "24h", 86_400_000),
        ("1440m", "24h", 86_400_000),
    ] {
        let per: Per = text.parse().unwrap();
        assert_eq!(per, Per::Window(Duration::from_millis(milliseconds)), "{text}");
        assert_eq!(per.to_string(), written);
        assert_eq!(written.parse::<Per>().unwrap(), per);
    }
    assert_eq!("total".parse::<Per>().unwrap().to_string(), "total");
}
