//! Writes to the maps as root: the switches and the policy.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use breaker_tests::agent::metrics;
use breaker_tests::command::PIN_ROOT;
use breaker_tests::require_root;
use breaker_tests::testbed::wait_for;

use super::flood::Flood;
use super::{Host, MAX_DETECTION, bpf, report};

/// Opens a pinned map for writing.
fn map(name: &str) -> MapData {
    MapData::from_pin(Path::new(PIN_ROOT).join(name)).expect("a pinned map")
}

#[test]
fn causes_cleared_in_the_map_are_set_again() {
    require_root!();
    let host = Host::start("auto");
    let size = size_of::<breaker_common::abi::Scope>();
    // The agent must read the cause first: it restores an unknown cause as `state`.
    sleep(Duration::from_millis(300));
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        for round in 1..=5 {
            host.testbed.on_host(|| {
                let data = map("scopes");
                write_each_value(&data, size, |value| value[..8].fill(0));
            });
            let entry = host.wait_for_event("tampered", round);
            assert_eq!(
                (&entry["scope"], &entry["cause"]),
                (&"session/x1".into(), &"manual".into()),
                "{entry}"
            );
            host.wait_for_status(10);
            sleep(MAX_DETECTION);
        }
    });
    report("causes cleared in the map", withheld, leaked);
    assert_eq!(host.metric("breaker_tampered_total"), 5.0);
    assert_eq!(host.testbed.causes("session/x1"), ["manual"]);
    // A reset is not reported as tampering.
    host.testbed.reset("session/x1");
    sleep(Duration::from_millis(300));
    host.testbed.cli("status").expect_exit(0);
    assert_eq!(host.metric("breaker_tampered_total"), 5.0);
}

#[test]
fn a_scope_disarmed_in_the_map_is_armed_again() {
    require_root!();
    let host = Host::start("auto");
    host.testbed.reset("session/x1");
    sleep(Duration::from_millis(300));
    let armed = std::mem::offset_of!(breaker_common::abi::Scope, armed);
    host.testbed.on_host(|| {
        let size = size_of::<breaker_common::abi::Scope>();
        write_each_value(&map("scopes"), size, |value| value[armed..armed + 4].fill(0));
    });
    let entry = host.wait_for_event("tampered", 1);
    let found = entry["counts"]["found"].as_str().expect("a description");
    assert!(found.ends_with("it is armed again"), "{entry}");
    host.wait_for_status(0);
    let tampered = host.metric("breaker_tampered_total");
    assert!(tampered >= 1.0);
    // The verbs are not reported as tampering.
    host.testbed.switch("disarm", "session/x1").expect_exit(0);
    host.testbed.switch("arm", "session/x1").expect_exit(0);
    sleep(Duration::from_millis(300));
    assert_eq!(host.metric("breaker_tampered_total"), tampered);
}

/// Changes every value of an array, as `bpftool map update` does.
fn write_each_value(data: &MapData, size: usize, change: impl Fn(&mut [u8])) {
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    let scopes = data.info().expect("the shape of the map").max_entries();
    let mut value = vec![0u8; size];
    for number in 0..scopes {
        let mut attr =
            [data.fd().as_fd().as_raw_fd() as u64, &raw const number as u64, value.as_mut_ptr() as u64, 0];
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr);
        change(&mut value);
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr);
    }
}

#[test]
fn a_changed_policy_map_is_a_problem_until_a_reload() {
    require_root!();
    let host = Host::start("auto");
    // The agent must hash the policy once before it can detect a change.
    sleep(2 * MAX_DETECTION);
    host.testbed.on_host(|| {
        let mut ports = Array::<_, u64>::try_from(Map::Array(map("ports"))).expect("the ports");
        ports.set(9001 >> 6, 0, 0).expect("clearing the ports");
    });
    let entry = host.wait_for_event("tampered", 1);
    assert!(entry["counts"]["before"] != entry["counts"]["after"], "{entry}");
    let output = host.testbed.cli("status").expect_exit(11);
    assert!(output.stdout.contains("TAMPERED: host"), "{output:?}");
    assert_eq!(host.metric("breaker_problem{what=\"tampered\",where=\"host\"}"), 1.0);
    let text = std::fs::read_to_string(host.testbed.config()).expect("the configuration");
    let text = format!("{text}\n[[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n");
    let file = host.testbed.write_config("next.toml", &text);
    host.testbed.cli(&format!("reload --config {}", file.display())).expect_exit(0);
    wait_for("the end of the problem", || {
        (host.metric("breaker_tampered_total") >= 1.0
            && !metrics(&host.testbed).contains("breaker_problem{what=\"tampered\""))
        .then_some(())
    });
    assert_eq!(host.events("tampered").len(), 1, "the reload is no tampering");
}
