//! The clsact mode of kernels before 6.6, which a newer one can be told to use: the same promises, but for what root's `tc` can do.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::order;
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Sink};
use breaker_user::testbed::{TwoHosts, veth};

use super::host::{Host, POLICY, chain};

/// A host with this kind of hook configured, and nothing loaded.
fn with(hook: &str) -> Rig {
    Rig::unloaded(&format!("hook = \"{hook}\"\n{POLICY}"))
}

fn filters(rig: &Rig) -> usize {
    rig.shell("tc filter show dev eth1 egress").matches("handle 0xb4e").count()
}

fn qdisc(rig: &Rig) -> bool {
    rig.shell("tc qdisc show dev eth1").contains("clsact")
}

#[test]
fn auto_takes_tcx_where_the_kernel_has_it_and_clsact_is_taken_where_it_is_wanted() {
    if !privileged() {
        return;
    }
    for (hook, expected) in [("auto", "tcx"), ("tcx", "tcx"), ("clsact", "clsact")] {
        let rig = with(hook);
        let said = rig.types(&format!("check --config {}", rig.config().display())).expect_exit(0);
        assert!(said.out.contains(&format!("by {expected} on eth1")), "{said:?}");
        rig.load();
        assert_eq!(rig.types("status --json").expect_exit(0).json()["interfaces"][0]["hook"], expected);
        assert_eq!((chain(&rig, "eth1"), filters(&rig)), if expected == "tcx" { (1, 0) } else { (0, 1) });
        rig.types("unload").expect_exit(0);
        rig.is_clean();
    }
}

#[test]
fn as_a_filter_of_clsact_it_enforces_with_no_process() {
    if !privileged() {
        return;
    }
    let rig = with("clsact");
    rig.load();
    let venue = SocketAddr::new(TwoHosts::VENUE, 9001);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let mut stream = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    for id in 1..=20 {
        // The sixth finds the connection reset.
        let _ = stream.write_all(&order(id));
        sleep(Duration::from_millis(1));
    }
    sink.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(sink.last().count("D"), 5);
    let said = rig.types("status").expect_exit(10);
    assert!(
        said.out.contains("TRIPPED: rate")
            && said.out.contains("attached, first; any `tc filter del` removes it"),
        "{said:?}"
    );
    sleep(Duration::from_millis(2100));
    rig.reset("session/x1");
    let mut fresh = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    fresh.write_all(&order(1)).expect("sending");
    sink.wait("the order of the new connection", |all| all.len() == 2 && all[1].whole("D") == 1);
}

#[test]
fn status_tells_when_the_filter_or_its_qdisc_is_removed() {
    if !privileged() {
        return;
    }
    for removal in ["tc filter del dev eth1 egress", "tc qdisc del dev eth1 clsact"] {
        let rig = with("clsact");
        rig.load();
        rig.shell(removal);
        let said = rig.types("status").expect_exit(11);
        assert!(said.out.contains("DETACHED: nothing is enforced here"), "{removal}: {said:?}");
        rig.switch("trip", "session/x1").expect_exit(8).because("DETACHED: eth1");
        rig.types("unload --force").expect_exit(0);
        rig.is_clean();
    }
}

#[test]
fn status_tells_when_something_else_decides_first() {
    if !privileged() {
        return;
    }
    let rig = with("clsact");
    // A filter behind ours is none of our business.
    rig.load();
    rig.shell("tc filter add dev eth1 egress prio 7 protocol all bpf da pinned /sys/fs/bpf/breaker/program");
    rig.types("status").expect_exit(0);
    rig.types("unload").expect_exit(0);
    assert_eq!(filters(&rig), 0);
    assert!(qdisc(&rig), "the other filter needs it");
    rig.shell("tc qdisc del dev eth1 clsact");
    rig.load();
    rig.inside(|| {
        use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions};
        let mut object =
            aya::EbpfLoader::new().load(&breaker_user::kernel::load::object()).expect("the object");
        let program: &mut SchedClassifier =
            object.program_mut("egress").expect("a program").try_into().expect("tc");
        program.load().expect("loading");
        // tcx runs before clsact, whatever its order.
        let last = TcAttachOptions::TcxOrder(LinkOrder::last());
        program.attach_with_options("eth1", TcAttachType::Egress, last).expect("attaching");
        let said = rig.types("status").expect_exit(11);
        assert!(said.out.contains("DISPLACED: another program decides before it"), "{said:?}");
    });
    rig.types("status").expect_exit(0);
}

#[test]
fn a_qdisc_that_was_there_before_stays_and_so_do_others_filters() {
    if !privileged() {
        return;
    }
    let rig = with("clsact");
    // Somebody else's, empty: it stays.
    rig.shell("tc qdisc add dev eth1 clsact");
    rig.load();
    rig.types("unload").expect_exit(0);
    assert!(qdisc(&rig) && filters(&rig) == 0);
    rig.shell("tc qdisc del dev eth1 clsact");
    // Ours, with somebody else's filter by now: it stays too.
    rig.load();
    rig.shell("tc filter add dev eth1 ingress prio 9 protocol all bpf da pinned /sys/fs/bpf/breaker/program");
    rig.types("unload").expect_exit(0);
    assert!(qdisc(&rig) && filters(&rig) == 0);
    assert!(rig.shell("tc filter show dev eth1 ingress").contains("pref 9"));
}

#[test]
fn a_failed_load_leaves_no_filter_and_no_qdisc() {
    if !privileged() {
        return;
    }
    let rig = with("clsact");
    veth(&rig.wire.firm, "eth2", &rig.wire.venue, "eth2").expect("a second cable");
    // The second interface's place is taken, so that the load fails after the first is attached.
    rig.load();
    let audit = rig.audit();
    let text =
        format!("[host]\nhook = \"clsact\"\ninterfaces = [\"eth2\", \"eth1\"]\n[agent]\naudit = {audit:?}\n");
    let config = rig.configure("two.toml", &text);
    let words = format!("load --config {} --pin-root /sys/fs/bpf/second", config.display());
    rig.types(&words).expect_exit(4).because("another filter has breaker's place");
    assert!(!rig.shell("tc qdisc show dev eth2").contains("clsact"));
    rig.types("status --pin-root /sys/fs/bpf/second").expect_exit(3);
    // The one that was there before is untouched.
    rig.types("status").expect_exit(0);
    assert_eq!(filters(&rig), 1);
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn what_a_load_that_died_left_of_clsact_is_removed_by_the_next() {
    if !privileged() {
        return;
    }
    let rig = with("clsact");
    rig.load();
    rig.shell("mkdir /sys/fs/bpf/breaker_next && mv /sys/fs/bpf/breaker /sys/fs/bpf/breaker_next/pins");
    rig.types("status").expect_exit(3);
    assert_eq!(filters(&rig), 1);
    rig.load();
    assert_eq!(filters(&rig), 1);
    rig.types("status").expect_exit(0);
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn a_removed_interface_takes_its_filter_along() {
    if !privileged() {
        return;
    }
    let rig = with("clsact");
    rig.load();
    rig.wire.firm.remove("eth1").expect("removing it");
    let said = rig.types("status").expect_exit(11);
    assert!(said.out.contains("DETACHED"), "{said:?}");
    rig.types("unload").expect_exit(0);
    rig.types("status").expect_exit(3);
}
