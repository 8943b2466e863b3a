//! The clsact hook, for kernels before 6.6 or by configuration: the guarantees of tcx, except against `tc` of
//! root.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::order;
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::veth;

use super::POLICY;

/// A host with this hook configured, and nothing loaded.
fn with(hook: &str) -> Testbed {
    Testbed::unloaded(&format!("hook = \"{hook}\"\n{POLICY}"))
}

fn filters(testbed: &Testbed) -> usize {
    testbed.shell("tc filter show dev eth1 egress").matches("handle 0xb4e").count()
}

fn qdisc(testbed: &Testbed) -> bool {
    testbed.shell("tc qdisc show dev eth1").contains("clsact")
}

#[test]
fn auto_selects_tcx_and_the_configuration_may_select_clsact() {
    require_root!();
    for (hook, expected) in [("auto", "tcx"), ("tcx", "tcx"), ("clsact", "clsact")] {
        let testbed = with(hook);
        let output = testbed.cli(&format!("check --config {}", testbed.config().display())).expect_exit(0);
        assert!(output.stdout.contains(&format!("by {expected} on eth1")), "{output:?}");
        testbed.load_cli();
        assert_eq!(testbed.cli("status --json").expect_exit(0).json()["interfaces"][0]["hook"], expected);
        assert_eq!(
            (testbed.tcx_programs("eth1"), filters(&testbed)),
            if expected == "tcx" { (1, 0) } else { (0, 1) }
        );
        testbed.cli("unload").expect_exit(0);
        testbed.assert_clean();
    }
}

#[test]
fn a_clsact_filter_enforces_without_a_process() {
    require_root!();
    let testbed = with("clsact");
    testbed.load_cli();
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    for id in 1..=20 {
        // The sixth write may find the connection reset.
        let _ = stream.write_all(&order(id));
        sleep(Duration::from_millis(1));
    }
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(receiver.last().count("D"), 5);
    let output = testbed.cli("status").expect_exit(10);
    assert!(
        output.stdout.contains("TRIPPED: rate")
            && output.stdout.contains("attached, first; `tc filter del` removes it"),
        "{output:?}"
    );
    sleep(Duration::from_millis(2100));
    testbed.reset("session/x1");
    let mut new_connection = testbed.connect(9001);
    new_connection.write_all(&order(1)).expect("sending");
    receiver.wait("the order of the new connection", |all| all.len() == 2 && all[1].complete("D") == 1);
}

#[test]
fn status_reports_a_removed_filter_or_qdisc() {
    require_root!();
    for removal in ["tc filter del dev eth1 egress", "tc qdisc del dev eth1 clsact"] {
        let testbed = with("clsact");
        testbed.load_cli();
        testbed.shell(removal);
        let output = testbed.cli("status").expect_exit(11);
        assert!(output.stdout.contains("DETACHED: nothing is enforced here"), "{removal}: {output:?}");
        testbed.switch("trip", "session/x1").expect_exit(8).expect_stderr("DETACHED: eth1");
        testbed.cli("unload --force").expect_exit(0);
        testbed.assert_clean();
    }
}

#[test]
fn status_reports_a_program_that_decides_first() {
    require_root!();
    let testbed = with("clsact");
    // A filter behind that of breaker is not a problem.
    testbed.load_cli();
    testbed
        .shell("tc filter add dev eth1 egress prio 7 protocol all bpf da pinned /sys/fs/bpf/breaker/program");
    testbed.cli("status").expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    assert_eq!(filters(&testbed), 0);
    assert!(qdisc(&testbed), "the other filter needs it");
    testbed.shell("tc qdisc del dev eth1 clsact");
    testbed.load_cli();
    testbed.on_host(|| {
        use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions};
        let mut object = aya::EbpfLoader::new()
            .load(&breaker_user::kernel::object::for_running_kernel().bytes)
            .expect("the object");
        let program: &mut SchedClassifier =
            object.program_mut("egress").expect("a program").try_into().expect("tc");
        program.load().expect("loading");
        // tcx runs before clsact, whatever its order.
        let last = TcAttachOptions::TcxOrder(LinkOrder::last());
        program.attach_with_options("eth1", TcAttachType::Egress, last).expect("attaching");
        let output = testbed.cli("status").expect_exit(11);
        assert!(output.stdout.contains("DISPLACED: another program decides before it"), "{output:?}");
    });
    testbed.cli("status").expect_exit(0);
}

#[test]
fn an_unload_keeps_a_qdisc_of_another_owner() {
    require_root!();
    let testbed = with("clsact");
    testbed.shell("tc qdisc add dev eth1 clsact");
    testbed.load_cli();
    testbed.cli("unload").expect_exit(0);
    assert!(qdisc(&testbed) && filters(&testbed) == 0);
}

#[test]
fn an_unload_keeps_its_qdisc_if_another_filter_needs_it() {
    require_root!();
    let testbed = with("clsact");
    testbed.load_cli();
    testbed.shell(
        "tc filter add dev eth1 ingress prio 9 protocol all bpf da pinned /sys/fs/bpf/breaker/program",
    );
    testbed.cli("unload").expect_exit(0);
    assert!(qdisc(&testbed) && filters(&testbed) == 0);
    assert!(testbed.shell("tc filter show dev eth1 ingress").contains("pref 9"));
}

#[test]
fn a_failed_load_leaves_no_filter_and_no_qdisc() {
    require_root!();
    let testbed = with("clsact");
    veth(&testbed.network.firm, "eth2", &testbed.network.venue, "eth2").expect("a second cable");
    // The place on the second interface is taken, so that the load fails after it has attached to the first.
    testbed.load_cli();
    let (audit, state) = (testbed.audit(), testbed.state());
    let agent = format!("[agent]\naudit = {audit:?}\nstate = {state:?}\n");
    let text = format!("[host]\nhook = \"clsact\"\ninterfaces = [\"eth2\", \"eth1\"]\n{agent}");
    let config = testbed.write_config("two.toml", &text);
    let words = format!("load --config {} --pin-root /sys/fs/bpf/second", config.display());
    testbed.cli(&words).expect_exit(4).expect_stderr("another filter has breaker's position");
    assert!(!testbed.shell("tc qdisc show dev eth2").contains("clsact"));
    testbed.cli("status --pin-root /sys/fs/bpf/second").expect_exit(3);
    // The earlier load is unchanged.
    testbed.cli("status").expect_exit(0);
    assert_eq!(filters(&testbed), 1);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_load_removes_the_filter_of_a_load_that_died() {
    require_root!();
    let testbed = with("clsact");
    testbed.load_cli();
    testbed.shell("mkdir /sys/fs/bpf/breaker_next && mv /sys/fs/bpf/breaker /sys/fs/bpf/breaker_next/pins");
    testbed.cli("status").expect_exit(3);
    assert_eq!(filters(&testbed), 1);
    testbed.load_cli();
    assert_eq!(filters(&testbed), 1);
    testbed.cli("status").expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_filter_is_removed_with_its_interface() {
    require_root!();
    let testbed = with("clsact");
    testbed.load_cli();
    testbed.network.firm.remove("eth1").expect("removing it");
    let output = testbed.cli("status").expect_exit(11);
    assert!(output.stdout.contains("DETACHED"), "{output:?}");
    testbed.cli("unload").expect_exit(0);
    testbed.cli("status").expect_exit(3);
}
