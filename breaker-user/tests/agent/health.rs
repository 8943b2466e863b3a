//! What is done to the attachment and to the log, and that the agent sees it, says it and lives on.

use std::fs;
use std::io::{Read, Write};

use aya::EbpfLoader;
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use breaker_user::kernel::load::object;
use breaker_user::testbed::{TwoHosts, veth};
use rustix::mount::{MountFlags, mount};

use crate::host::{Host, ROOT, THREE, eventually, order, pin, privileged, swallow};

/// Waits until the agent's health is good, or is not and says so with these words.
fn wait_for_health(host: &Host, words: Option<&str>) {
    let wanted = |(code, text): &(u16, String)| match words {
        None => *code == 200,
        Some(words) => *code == 503 && text.contains(words),
    };
    let found = eventually(|| Some(host.get("/healthz")).filter(wanted));
    assert!(found.is_some(), "{words:?}: {:?}", host.get("/healthz"));
}

#[test]
fn a_program_in_front_is_seen_and_so_is_its_end() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    wait_for_health(&host, None);
    host.inside(|| {
        let mut other = EbpfLoader::new().load(&object()).expect("an object");
        let program: &mut SchedClassifier =
            other.program_mut("egress").expect("a program").try_into().expect("a classifier");
        program.load().expect("loading it");
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options("eth1", TcAttachType::Egress, first).expect("attaching it");
        let told = &host.wait_for("displaced", 1)[0];
        assert_eq!((&told.counts["interface"], told.actor.via.as_str()), (&"eth1".into(), "agent"));
        wait_for_health(&host, Some("eth1: another program decides before it"));
        assert_eq!(host.figure("breaker_interface_attached{interface=\"eth1\"}"), Some(0.0));
    });
    host.wait_for("link_restored", 1);
    wait_for_health(&host, None);
    assert_eq!(host.figure("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
    assert_eq!(host.told("displaced").len(), 1, "once, not at each look");
    agent.stop();
    host.verify();
}

#[test]
fn pins_that_are_removed_detach_nothing_while_it_lives() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    swallow(&host, 9001);
    let agent = host.agent();
    host.inside(|| fs::remove_dir_all(ROOT)).expect("removing every pin");
    let told = &host.wait_for("link_lost", 1)[0];
    assert!(told.counts["found"].as_str().is_some_and(|found| found.contains("its pin is gone")), "{told:?}");
    wait_for_health(&host, Some("its pin is gone"));
    let mut stream = host.connect(9001);
    for number in 1..=4 {
        // The reset may be there before the last one is written.
        let _ = stream.write_all(&order(number));
    }
    host.wait_for("tripped", 1);
    assert_eq!(host.figure("breaker_tripped{scope=\"session/x1\",cause=\"rate\"}"), Some(1.0));
    agent.stop();
    host.verify();
}

#[test]
fn an_interface_that_goes_is_seen_and_one_that_is_renamed_is_no_matter() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    host.wire.firm.set_down(TwoHosts::INTERFACE).expect("taking it down");
    host.wire.firm.rename(TwoHosts::INTERFACE, "eth9").expect("renaming it");
    host.wire.firm.set_up("eth9").expect("bringing it up");
    assert_eq!(host.figure("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
    host.wire.firm.remove("eth9").expect("removing it");
    let told = &host.wait_for("link_lost", 1)[0];
    assert!(told.counts["found"].as_str().is_some_and(|found| found.contains("detached")), "{told:?}");
    wait_for_health(&host, Some("nothing is enforced there"));
    assert_eq!(host.figure("breaker_interface_attached{interface=\"eth1\"}"), Some(0.0));
    assert!(host.inside(|| pin("link_0").exists()), "it removes no pin");
    agent.stop();
    host.verify();
}

#[test]
fn an_interface_that_is_made_again_is_protected_again() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    let agent = host.agent();
    host.done(&["trip", "session/x1", "--reason", "test"]);
    host.wire.firm.remove(TwoHosts::INTERFACE).expect("removing it");
    host.wait_for("link_lost", 1);
    wait_for_health(&host, Some("DETACHED: eth1"));
    veth(&host.wire.firm, TwoHosts::INTERFACE, &host.wire.venue, TwoHosts::INTERFACE).expect("another cable");
    let told = &host.wait_for("reattached", 1)[0];
    assert_eq!(told.counts["interface"], "eth1");
    assert!(told.counts["gap_ms"].is_u64(), "{told:?}");
    wait_for_health(&host, None);
    assert_eq!(host.figure("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
    assert_eq!(host.figure("breaker_reattached_total{interface=\"eth1\"}"), Some(1.0));
    assert_eq!(host.figure("breaker_enforced"), Some(1.0));
    // What was tripped is tripped, in force, and stays so without the agent.
    agent.stop();
    assert_eq!(host.cli(&["status"]).status.code(), Some(10));
    host.done(&["unload", "--force"]);
    host.verify();
}

#[test]
fn what_is_fenced_and_idle_is_ended_by_the_agent() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    swallow(&host, 9001);
    let agent = host.agent();
    let mut idle = host.connect(9001);
    idle.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a time limit");
    // As the kernel trips: nobody ends what is idle.
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
fn a_full_disk_stops_neither_a_trip_nor_the_agent_and_what_happened_is_told_later() {
    if !privileged() {
        return;
    }
    let host = Host::new(THREE);
    swallow(&host, 9001);
    let directory = host.audit().parent().expect("a directory").to_owned();
    let (log, ballast) = (host.audit(), directory.join("ballast"));
    // Mounted in the host's own mount namespace, and so only seen from inside.
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
    // What room the last page of the log still has is filled by a person who resets what is not tripped.
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
    assert!(host.figure("breaker_audit_pending").is_some_and(|waiting| waiting >= 2.0));
    assert!(host.figure("breaker_audit_failures_total").is_some_and(|failures| failures >= 1.0));
    assert!(read() == whole && whole.ends_with('\n'), "nothing half written is left: {}", read());

    host.inside(|| fs::remove_file(&ballast)).expect("making room");
    wait_for_health(&host, None);
    eventually(|| (read().contains("\"tripped\"") && read().contains("\"connection_fenced\"")).then_some(()))
        .expect("what happened meanwhile");
    assert_eq!(host.figure("breaker_audit_pending"), Some(0.0));
    assert_eq!(host.figure("breaker_trips_total{scope=\"session/x1\",cause=\"rate\"}"), Some(1.0));
    let said = agent.stop();
    assert_eq!(said.matches("the audit log is not written").count(), 1, "{said}");
    assert_eq!(said.matches("the audit log is written again").count(), 1, "{said}");
    host.inside(|| breaker_user::audit::verify(&log)).expect("an unbroken chain");
}
