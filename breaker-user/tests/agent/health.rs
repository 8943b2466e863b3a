//! Changes of the attachments and failures of the log: the agent reports them and keeps running.

use std::fs;
use std::io::{Read, Write};

use aya::EbpfLoader;
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use breaker_user::kernel::object::for_running_kernel;
use breaker_user::testbed::{TwoHosts, veth};
use rustix::mount::{MountFlags, mount};

use crate::host::{Host, ROOT, THREE, discard_server, eventually, order, pin, privileged};

/// Waits until `/healthz` is good, or until it is bad with these words.
fn wait_for_health(host: &Host, words: Option<&str>) {
    let wanted = |(code, text): &(u16, String)| match words {
        None => *code == 200,
        Some(words) => *code == 503 && text.contains(words),
    };
    let found = eventually(|| Some(host.get("/healthz")).filter(wanted));
    assert!(found.is_some(), "{words:?}: {:?}", host.get("/healthz"));
}

#[test]
fn a_program_in_front_and_its_removal_are_reported() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    wait_for_health(&host, None);
    host.inside(|| {
        let mut other = EbpfLoader::new().load(&for_running_kernel().bytes).expect("an object");
        let program: &mut SchedClassifier =
            other.program_mut("egress").expect("a program").try_into().expect("a classifier");
        program.load().expect("loading it");
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options("eth1", TcAttachType::Egress, first).expect("attaching it");
        let entry = &host.wait_for("displaced", 1)[0];
        assert_eq!((&entry.counts["interface"], entry.actor.via.as_str()), (&"eth1".into(), "agent"));
        wait_for_health(&host, Some("eth1: another program decides before it"));
        assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), Some(0.0));
    });
    host.wait_for("link_restored", 1);
    wait_for_health(&host, None);
    assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
    assert_eq!(host.entries("displaced").len(), 1, "once, not at each check");
    agent.stop();
    host.verify();
}

#[test]
fn removed_pins_are_pinned_again_and_enforcement_continues() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    discard_server(&host, 9001);
    let agent = host.agent();
    host.cli_ok(&["trip", "session/x1", "--reason", "test"]);
    host.inside(|| fs::remove_dir_all(ROOT)).expect("removing every pin");
    let entry = &host.wait_for("tampered", 1)[0];
    assert!(entry.counts["pins"].as_array().is_some_and(|pins| pins.len() > 20), "{entry:?}");
    wait_for_health(&host, None);
    assert_eq!(host.cli(&["status"]).status.code(), Some(10), "the pins are those of the tripped load");
    // The new directory is locked against a second agent.
    assert_eq!(host.refused_agent().status.code(), Some(4));
    host.inside(|| fs::remove_file(pin("link_0"))).expect("removing one pin");
    host.wait_for("tampered", 2);
    wait_for_health(&host, None);
    agent.stop();
    assert_eq!(host.cli(&["status"]).status.code(), Some(10), "attached without the agent");
    host.verify();
}

#[test]
fn a_removed_interface_is_reported_and_a_renamed_one_is_not() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    host.hosts.firm.set_down(TwoHosts::INTERFACE).expect("taking it down");
    host.hosts.firm.rename(TwoHosts::INTERFACE, "eth9").expect("renaming it");
    host.hosts.firm.set_up("eth9").expect("bringing it up");
    assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
    host.hosts.firm.remove("eth9").expect("removing it");
    let entry = &host.wait_for("link_lost", 1)[0];
    assert!(entry.counts["found"].as_str().is_some_and(|found| found.contains("detached")), "{entry:?}");
    wait_for_health(&host, Some("nothing is enforced there"));
    assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), Some(0.0));
    assert!(host.inside(|| pin("link_0").exists()), "the agent removes no pin");
    agent.stop();
    host.verify();
}

#[test]
fn a_recreated_interface_is_protected_again() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    host.cli_ok(&["trip", "session/x1", "--reason", "test"]);
    host.hosts.firm.remove(TwoHosts::INTERFACE).expect("removing it");
    host.wait_for("link_lost", 1);
    wait_for_health(&host, Some("DETACHED: eth1"));
    veth(&host.hosts.firm, TwoHosts::INTERFACE, &host.hosts.venue, TwoHosts::INTERFACE)
        .expect("a new veth pair");
    let entry = &host.wait_for("reattached", 1)[0];
    assert_eq!(entry.counts["interface"], "eth1");
    assert!(entry.counts["gap_ms"].is_u64(), "{entry:?}");
    wait_for_health(&host, None);
    assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
    assert_eq!(host.metric("breaker_reattached_total{interface=\"eth1\"}"), Some(1.0));
    assert_eq!(host.metric("breaker_enforced"), Some(1.0));
    // A tripped scope stays tripped and enforced without the agent.
    agent.stop();
    assert_eq!(host.cli(&["status"]).status.code(), Some(10));
    host.cli_ok(&["unload", "--force"]);
    host.verify();
}

#[test]
fn the_agent_ends_fenced_idle_connections() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    discard_server(&host, 9001);
    let agent = host.agent();
    let mut idle = host.connect(9001);
    idle.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a time limit");
    // A trip by the kernel program does not end idle connections.
    host.breaker(|breaker| {
        let scope = breaker.find("session/x1").expect("a scope");
        breaker.trip(scope, breaker_common::abi::cause::RATE).expect("tripping it");
    });
    let end = idle.read(&mut [0]).expect_err("an end");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionAborted);
    host.wait_for("connections_ended", 1);
    agent.stop();
    host.verify();
}

#[test]
fn a_full_disk_stops_neither_a_trip_nor_the_agent_and_events_are_logged_later() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    discard_server(&host, 9001);
    let directory = host.audit().parent().expect("a directory").to_owned();
    let (log, ballast) = (host.audit(), directory.join("ballast"));
    // The mount is in the host's mount namespace, and visible only inside.
    host.inside(|| {
        mount("tmpfs", &directory, "tmpfs", MountFlags::empty(), c"size=64k").expect("a small disk")
    });
    let agent = host.agent();
    let read = || host.inside(|| fs::read_to_string(&log).unwrap_or_default());
    eventually(|| read().contains("agent_started").then_some(())).expect("its start in the log");
    host.inside(|| {
        let mut ballast = fs::File::create(&ballast).expect("a file");
        while ballast.write_all(&[0; 512]).is_ok() {}
    });
    // The last page of the log still has space: refused resets fill it.
    let reset = || host.cli(&["reset", "host", "--reason", "filling"]);
    let full =
        eventually(|| String::from_utf8_lossy(&reset().stderr).contains("was not written").then_some(()));
    full.expect("a full disk");
    let whole = read();

    let mut stream = host.connect(9001);
    for number in 1..=4 {
        let _ = stream.write_all(&order(number));
    }
    eventually(|| (host.cli(&["status"]).status.code() == Some(10)).then_some(())).expect("a trip");
    wait_for_health(&host, Some("the audit log is not written"));
    assert!(host.metric("breaker_audit_pending").is_some_and(|waiting| waiting >= 2.0));
    assert!(host.metric("breaker_audit_failures_total").is_some_and(|failures| failures >= 1.0));
    assert!(read() == whole && whole.ends_with('\n'), "no half line is left: {}", read());

    host.inside(|| fs::remove_file(&ballast)).expect("freeing space");
    wait_for_health(&host, None);
    eventually(|| (read().contains("\"tripped\"") && read().contains("\"connection_fenced\"")).then_some(()))
        .expect("the events meanwhile");
    assert_eq!(host.metric("breaker_audit_pending"), Some(0.0));
    assert_eq!(host.metric("breaker_trips_total{scope=\"session/x1\",cause=\"rate\"}"), Some(1.0));
    let stderr = agent.stop();
    assert_eq!(stderr.matches("the audit log is not written").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("the audit log is written again").count(), 1, "{stderr}");
    host.inside(|| breaker_user::audit::verify(&log)).expect("an unbroken chain");
}
