//! The agent while another process replaces the program.

use std::thread::sleep;
use std::time::Duration;

use crate::host::{Host, THREE, eventually, privileged};

#[test]
fn the_agent_follows_an_upgrade_and_reports_no_loss() {
    if !privileged() {
        return;
    }
    for hook in ["tcx", "clsact"] {
        let host = Host::new(&format!("hook = \"{hook}\"\n{THREE}"));
        let agent = host.agent();
        host.wait_for("agent_started", 1);
        let generation = || host.breaker(|breaker| breaker.meta().generation);
        let before = generation();
        for _ in 0..8 {
            host.cli_ok(&["upgrade"]);
            // The agent checks the hooks ten times a second.
            sleep(Duration::from_millis(130));
        }
        assert_eq!(generation(), before + 8);
        let healthy = eventually(|| (host.get("/healthz").0 == 200).then_some(()));
        assert!(healthy.is_some(), "{:?}", host.get("/healthz"));
        assert_eq!(host.metric("breaker_interface_attached{interface=\"eth1\"}"), Some(1.0));
        host.cli_ok(&["trip", "session/x1", "--reason", "test"]);
        host.cli_ok(&["upgrade"]);
        assert_eq!(host.metric("breaker_tripped{scope=\"session/x1\",cause=\"manual\"}"), Some(1.0));
        for kind in ["link_lost", "displaced", "link_restored", "tampered"] {
            assert_eq!(host.entries(kind).len(), 0, "{kind} on {hook}");
        }
        assert_eq!(host.entries("upgraded").len(), 9);
        agent.stop();
        host.verify();
    }
}
