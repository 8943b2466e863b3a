//! The inbound hook: when it is attached, and that it withholds nothing.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use breaker_tests::frame::order;
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;
use breaker_tests::venue::{ConnectionPair, fill, random_inbound, random_segments, reject};
use breaker_user::testbed::TwoHosts;

use super::{POLICY, inbound, pair, sum};

#[test]
fn no_inbound_segment_is_withheld_while_tripped() {
    require_root!();
    let limits = "limits = [{ class = \"reject\", max = 3, per = \"1h\" }]\n[[session]]\nname = \"x2\"";
    for hook in ["auto", "clsact"] {
        let policy = POLICY.replacen("[[session]]\nname = \"x2\"", limits, 1);
        let testbed = Testbed::load(&format!("hook = {hook:?}\non_trip = \"drop\"\n{policy}"));
        let mut rng = Rng(0xd0_07);
        let mut old = pair(&testbed, TwoHosts::VENUE, 9001);
        old.venue_sends(&[&reject().repeat(3)]);
        old.venue_sends(&[&reject()]);
        let mut expected = [0, 4, 0];
        let mut come = |pair: &mut ConnectionPair, rng: &mut Rng| {
            let (bytes, counts) = random_inbound(rng, 500);
            pair.venue_sends(&random_segments(rng, &bytes, 30_000));
            expected = sum(expected, counts);
            assert_eq!(inbound(&testbed, [1]), [(expected, 0)]);
        };
        let causes = |scope: &str| {
            let found = testbed.status().scopes.into_iter().find(|found| found.scope == scope);
            found.expect("the scope").causes
        };
        assert_eq!(causes("session/x1"), ["rate"], "tripped by what came in");
        come(&mut old, &mut rng);
        testbed.trip("session/x1");
        testbed.trip("host");
        come(&mut old, &mut rng);
        // The next order fences the connection; inbound segments still pass.
        std::io::Write::write_all(&mut old.firm, &order(1)).expect("queueing");
        sleep(Duration::from_millis(20));
        assert_eq!(testbed.status().packets["fenced"], 1);
        come(&mut old, &mut rng);
        let mut new = pair(&testbed, TwoHosts::VENUE, 9001);
        come(&mut new, &mut rng);
        assert_eq!(testbed.counters(1).passed[0], 0);
    }
}

/// Number of programs at a hook of tcx, in the namespace of this thread.
fn tcx_programs(interface: &str, direction: TcAttachType) -> usize {
    SchedClassifier::query_tcx(interface, direction).map_or(0, |(_, programs)| programs.len())
}

#[test]
fn status_shows_the_inbound_hook_and_an_unload_detaches_it() {
    require_root!();
    let both = [TcAttachType::Ingress, TcAttachType::Egress];
    for (hook, word, each) in [("auto", "tcx", 1), ("clsact", "clsact", 0)] {
        let testbed = Testbed::load(&format!("hook = {hook:?}\n{POLICY}"));
        let interfaces: Vec<_> = testbed
            .status()
            .interfaces
            .into_iter()
            .map(|one| (one.mode, one.hook, one.attached, one.first))
            .collect();
        assert_eq!(interfaces, [("egress", word, true, true), ("inbound", word, true, true)]);
        let at = |direction| testbed.on_host(|| tcx_programs(TwoHosts::INTERFACE, direction));
        assert_eq!(both.map(at), [each; 2]);
        testbed.cli("unload").expect_exit(0);
        assert_eq!(both.map(at), [0; 2]);
        let tc = testbed
            .on_host(|| Command::new("tc").args(["qdisc", "show", "dev", TwoHosts::INTERFACE]).output());
        let tc = String::from_utf8(tc.expect("running tc").stdout).expect("text");
        assert!(!tc.contains("clsact"), "{tc}");
        assert!(!Testbed::root().exists(), "no pin is left");
    }
    let testbed = Inline::inline(Hook::Native, Offloads::Checksums, POLICY);
    let status = testbed.status_json();
    let interfaces: Vec<_> =
        (0..2).map(|i| (&status["interfaces"][i]["mode"], &status["interfaces"][i]["hook"])).collect();
    assert_eq!(interfaces, [(&"inline".into(), &"native".into()), (&"inbound".into(), &"tcx".into())]);
    let at = |direction| testbed.on_host(|| tcx_programs(Gateway::INSIDE, direction));
    assert_eq!(both.map(at), [0, 1]);
    assert_eq!(testbed.cli("unload").exit_code, Some(0));
    assert_eq!(both.map(at), [0, 0]);
}

#[test]
fn the_inbound_hook_is_attached_only_if_the_policy_needs_it() {
    require_root!();
    let quiet = POLICY.replace("inbound = \"watch\"\n", "");
    let testbed = Testbed::load(&quiet);
    let mut connection = pair(&testbed, TwoHosts::VENUE, 9001);
    connection.venue_sends(&[&fill()]);
    assert_eq!(inbound(&testbed, [1]), [([0; 3], 0)]);
    assert_eq!(testbed.on_host(|| tcx_programs(TwoHosts::INTERFACE, TcAttachType::Ingress)), 0);
    let status = testbed.status_json();
    assert!(status["sessions"][1].get("inbound").is_none(), "{}", status["sessions"][1]);
    // A limit on inbound messages attaches the hook.
    let testbed =
        Testbed::load(&format!("limits = [{{ class = \"fill\", max = 5, per = \"1s\" }}]\n{quiet}"));
    let mut connection = pair(&testbed, TwoHosts::VENUE, 9001);
    connection.venue_sends(&[&fill()]);
    assert_eq!(inbound(&testbed, [1]), [([1, 0, 0], 0)]);
}
