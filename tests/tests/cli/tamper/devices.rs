//! Interfaces that are removed, renamed or moved, and XDP programs that are detached.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::command::PIN_ROOT;
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::require_root;
use breaker_tests::testbed::wait_for;
use breaker_user::testbed::veth;

use super::flood::Flood;
use super::{Host, POLICY, detach_link, report};

/// Longest time, in milliseconds, until a recreated interface is enforced.
const MAX_EXPOSED_MS: u64 = 100;

impl Host {
    /// Removes the interface and creates it again with the same addresses.
    fn recreate_interface(&self) {
        let (firm, venue) = (self.firm(), &self.testbed.network.venue);
        firm.remove("eth1").expect("removing it");
        veth(firm, "eth1", venue, "eth1").expect("making it again");
        for (end, address) in [(firm, "10.9.0.1"), (venue, "10.9.0.2")] {
            end.add_address("eth1", address.parse().expect("an address"), 24).expect("an address");
            end.set_up("eth1").expect("bringing it up");
        }
    }

    /// Moves the interface to the namespace of the venue, under another name.
    fn move_interface_away(&self) {
        self.firm().rename("eth1", "moved").expect("renaming it");
        self.firm().move_to("moved", &self.testbed.network.venue).expect("moving it");
    }
}

#[test]
fn a_recreated_interface_is_enforced_within_a_tenth_of_a_second() {
    require_root!();
    let host = Host::start("auto");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        for round in 1..=3 {
            host.recreate_interface();
            let entry = host.wait_for_event("reattached", round);
            let exposed = entry["counts"]["exposed_ms"].as_u64().expect("a time");
            println!("made again: exposed for {exposed} ms, {entry}");
            assert!(exposed <= MAX_EXPOSED_MS, "{entry}");
            wait_for("the hook", || (host.testbed.tcx_programs("eth1") == 1).then_some(()));
            sleep(Duration::from_millis(300));
        }
    });
    report("made again, three times", withheld, leaked);
    assert_eq!(host.metric("breaker_reattached_total{interface=\"eth1\"}"), 3.0);
    assert_eq!(host.testbed.causes("session/x1"), ["manual"]);
}

#[test]
fn a_renamed_or_flapping_interface_is_reported_and_enforced() {
    require_root!();
    let host = Host::start("auto");
    let found = |count: usize| host.wait_for_event("interface_changed", count)["counts"]["found"].clone();
    host.firm().set_down("eth1").expect("taking it down");
    assert_eq!(found(1), "went down");
    host.firm().rename("eth1", "eth9").expect("renaming it");
    assert_eq!(found(2), "renamed from eth1 to eth9: its hook stays");
    for _ in 0..10 {
        host.firm().set_up("eth9").expect("bringing it up");
        host.firm().set_down("eth9").expect("taking it down");
    }
    let last = found(3);
    assert!(last.as_str().is_some_and(|text| text.contains("up and down")), "{last}");
    host.firm().set_up("eth9").expect("bringing it up");
    assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), 1.0);
    assert!(host.events("tampered").is_empty());
    host.wait_for_status(10);
}

#[test]
fn an_interface_in_another_namespace_is_a_problem_until_it_exists_again() {
    require_root!();
    let host = Host::start("auto");
    host.move_interface_away();
    let found = host.wait_for_event("link_lost", 1);
    assert_eq!(found["counts"]["interface"], "eth1", "{found}");
    host.wait_for_status(11);
    assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), 0.0);
    // The moved interface still has the program, so nothing of the session passes there.
    host.testbed.network.venue.remove("moved").expect("removing it");
    let ((), withheld, leaked) = Flood::during(&host.testbed, |_| {
        let (firm, venue) = (host.firm(), &host.testbed.network.venue);
        veth(firm, "eth1", venue, "eth1").expect("making it again");
        for (end, address) in [(firm, "10.9.0.1"), (venue, "10.9.0.2")] {
            end.add_address("eth1", address.parse().expect("an address"), 24).expect("an address");
            end.set_up("eth1").expect("bringing it up");
        }
        let entry = host.wait_for_event("reattached", 1);
        assert!(entry["counts"]["exposed_ms"].as_u64().is_some_and(|ms| ms <= MAX_EXPOSED_MS), "{entry}");
        host.wait_for_status(10);
        sleep(Duration::from_millis(500));
    });
    report("moved to another namespace and made again", withheld, leaked);
    assert_eq!(host.testbed.causes("session/x1"), ["manual"]);
}

#[test]
fn a_detached_xdp_program_is_attached_again() {
    require_root!();
    for hook in Hook::ALL {
        let host = Host::with(Inline::inline_unloaded(hook, Offloads::None, POLICY));
        for round in 1..=2 {
            host.testbed.on_host(|| detach_link(&Path::new(PIN_ROOT).join("link_0")));
            let entry = host.wait_for_event("reattached", round);
            assert!(entry["counts"]["gap_ms"].as_u64().is_some_and(|gap| gap <= 300), "{hook:?}: {entry}");
            host.wait_for_status(10);
            assert!(host.testbed.is_attached_by(hook));
        }
        let attached = format!("breaker_interface_attached{{interface=\"{}\"}}", Gateway::INSIDE);
        wait_for("the metric", || (host.metric(&attached) == 1.0).then_some(()));
        assert!(host.metric("breaker_tampered_total") >= 1.0);
    }
}
