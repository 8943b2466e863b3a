//! Exit codes for scripts: 3 not loaded, 4 refused, 8 interface missing, 10 tripped, 11 unprotected.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use aya::programs::links::PinnedLink;
use breaker_tests::cli::scope;
use breaker_tests::frame::order;
use breaker_tests::receiver::{End, Receiver};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::POLICY;

#[test]
fn with_nothing_loaded_every_verb_ends_with_3() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    for words in [
        "status",
        "status --json",
        "status host",
        "unload",
        "unload --force",
        "events",
        "audit verify",
        "trip host --reason x",
        "reset host --reason x",
        "arm host --reason x",
        "disarm host --reason x",
    ] {
        let output = testbed
            .cli(words)
            .expect_exit(3)
            .expect_stderr("nothing is loaded there: load first with `breaker load`");
        assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "{output:?}");
    }
    // An empty directory is not a load either.
    testbed.shell("mkdir /sys/fs/bpf/breaker");
    testbed.cli("status").expect_exit(3);
    testbed.load_cli();
    testbed.cli("status").expect_exit(0);
}

#[test]
fn a_second_load_is_refused_and_changes_nothing() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    let before = testbed.cli("status --json").expect_exit(10).json();
    testbed
        .cli(&format!("load --config {}", testbed.config().display()))
        .expect_exit(4)
        .expect_stderr("unload it first");
    assert_eq!(testbed.cli("status --json").expect_exit(10).json()["scopes"], before["scopes"]);
    assert_eq!(testbed.tcx_programs("eth1"), 1);
}

#[test]
fn a_tripped_scope_is_neither_unloaded_nor_disarmed() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    testbed
        .cli("unload")
        .expect_exit(4)
        .expect_stderr("session/x1 is tripped, and its orders would pass again");
    testbed.trip("group/desk");
    testbed
        .cli("unload")
        .expect_exit(4)
        .expect_stderr("group/desk, session/x1 are tripped, and their orders would pass again");
    testbed
        .switch("disarm", "session/x1")
        .expect_exit(4)
        .expect_stderr("refused, nothing is changed: it is tripped (manual)");
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["armed"], true);
    testbed.cli("unload --force").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_scope_that_is_not_tripped_is_not_reset() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    let refused = "refused, nothing is changed: it is not tripped";
    testbed.switch("reset", "session/x2").expect_exit(4).expect_stderr(refused);
    // A tripped session does not make the host tripped.
    testbed.switch("reset", "host").expect_exit(4).expect_stderr(refused);
    testbed.switch("reset", "session/x1").expect_exit(0);
    testbed.switch("reset", "session/x1").expect_exit(4).expect_stderr(refused);
}

/// Sends one order more than the limit of `session/x1`, and waits for the reset.
fn exceed_limit(testbed: &Testbed, receiver: &Receiver) {
    let mut stream = testbed.connect(9001);
    for id in 1..=6 {
        // The last write may find the connection reset.
        let _ = stream.write_all(&order(id));
        sleep(Duration::from_millis(1));
    }
    receiver.wait("the reset", |all| all[0].end == End::Reset);
}

#[test]
fn a_reset_is_refused_while_its_sender_has_not_stopped() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    exceed_limit(&testbed, &receiver);
    assert_eq!(receiver.last().complete("D"), 5);
    let status = testbed.cli("status --json").expect_exit(10).json();
    let tripped = scope(&status, "session/x1");
    assert_eq!(tripped["causes"], serde_json::json!(["rate"]));
    assert_eq!(tripped["last_trip"]["limit"], "5 order per 2s");
    let epoch = tripped["epoch"].clone();
    testbed
        .switch("reset", "session/x1")
        .expect_exit(4)
        .expect_stderr("its sender has not stopped: a segment was withheld");
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["epoch"], epoch);
    // The operator may override, and the log records it.
    testbed.cli("reset session/x1 --reason x --force").expect_exit(0);
    testbed.cli("status").expect_exit(0);
    assert_eq!(testbed.events().pop().expect("a line")["kind"], "agent_stopped");
    let forced = testbed.events().into_iter().rfind(|line| line["kind"] == "reset").expect("the reset");
    assert_eq!(forced["counts"]["forced"], true);
}

/// A tripped limit of a day does not block the reset for a day: only recent messages count, and the window
/// starts again.
#[test]
fn a_reset_after_a_long_window_waits_for_recent_messages_only() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let day =
        testbed.write_config("day.toml", &text.replace("max = 5, per = \"2s\"", "max = 5, per = \"24h\""));
    testbed.cli(&format!("reload --config {}", day.display())).expect_exit(0);
    exceed_limit(&testbed, &receiver);
    testbed.switch("reset", "session/x1").expect_exit(4).expect_stderr("its sender has not stopped");
    // A sender whose rate is below the limit does not block the reset.
    testbed.trip("group/desk");
    testbed.switch("reset", "group/desk").expect_exit(0);
    sleep(Duration::from_millis(5100));
    let output = testbed.switch("reset", "session/x1").expect_exit(0);
    assert!(output.stdout.contains("session/x1: not tripped, armed"), "{output:?}");
    let status = testbed.cli("status --json").expect_exit(0).json();
    assert_eq!(scope(&status, "session/x1")["limits"][0]["used"], 0);
}

#[test]
fn verbs_report_another_program_that_decides_first() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    {
        let _other = Other::before(&testbed, "eth1");
        let output = testbed.cli("status").expect_exit(11);
        assert!(output.stdout.contains("DISPLACED: another program decides before it"), "{output:?}");
        for (verb, done) in [("trip", "TRIPPED"), ("reset", "not tripped"), ("arm", "armed")] {
            let output = testbed
                .switch(verb, "session/x1")
                .expect_exit(8)
                .expect_stderr("DISPLACED: eth1: another program decides before it");
            assert!(output.stdout.contains(done) && output.stderr.contains("\"egress\""), "{output:?}");
        }
    }
    testbed.switch("arm", "session/x1").expect_exit(0);
    let _other = Other::before(&testbed, "eth1");
    // Nothing is tripped any more, but the hook is displaced.
    testbed.cli("status").expect_exit(11);
    let interface = &testbed.cli("status --json").expect_exit(11).json()["interfaces"][0];
    assert_eq!((&interface["attached"], &interface["first"]), (&true.into(), &false.into()));
}

#[test]
fn verbs_report_a_detached_hook() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.trip("session/x1");
    let pin = Testbed::root().link(0);
    let held = testbed.on_host(|| PinnedLink::from_pin(&pin)).expect("the link");
    testbed.shell(&format!("rm {}", pin.display()));
    // A link without a pin detaches when its holder ends.
    let output = testbed.cli("status").expect_exit(11);
    assert!(output.stdout.contains("UNPINNED: it detaches when the agent ends"), "{output:?}");
    assert_eq!(
        testbed.cli("status session/x2 --json").expect_exit(11).json()["interfaces"][0]["pinned"],
        false
    );
    drop(held);
    let output = testbed.cli("status").expect_exit(11);
    assert!(output.stdout.contains("DETACHED: nothing is enforced here"), "{output:?}");
    for (verb, done) in [("trip", "TRIPPED"), ("reset", "not tripped"), ("arm", "armed")] {
        let output = testbed
            .switch(verb, "session/x1")
            .expect_exit(8)
            .expect_stderr("DETACHED: eth1: detached: nothing is enforced there");
        assert!(output.stdout.contains(done), "{output:?}");
    }
    let output = testbed.cli("trip session/x1 --reason test --json").expect_exit(8).json();
    assert_eq!(output["enforced"]["problems"][0]["what"], "detached");
    // The cure that the problem names.
    testbed.cli("unload --force").expect_exit(0);
    testbed.load_cli();
    testbed.cli("status").expect_exit(10);
    testbed.reset("session/x1");
    testbed.cli("status").expect_exit(0);
}

#[test]
fn status_ends_with_11_for_a_disarmed_scope_and_with_10_for_a_tripped_one() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.cli("status").expect_exit(0);
    testbed.switch("disarm", "group/desk").expect_exit(0);
    testbed.cli("status").expect_exit(11);
    // The exit code for one scope is that of the scope.
    testbed.cli("status group/desk").expect_exit(11);
    testbed.cli("status session/x1").expect_exit(0);
    testbed.trip("session/x2");
    testbed.cli("status").expect_exit(10);
    testbed.cli("status session/x2").expect_exit(10);
    testbed.cli("status group/desk").expect_exit(11);
    testbed.cli("unload").expect_exit(4);
    testbed.reset("session/x2");
    testbed.switch("arm", "group/desk").expect_exit(0);
    testbed.cli("status").expect_exit(0);
}

#[test]
fn missing_interfaces_end_with_8_and_leave_nothing() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    for (interfaces, found) in [
        ("\"eth1\", \"eth9\"", "interface eth9: there is no such interface here"),
        ("\"eth8\", \"eth1\", \"eth9\"", "interfaces eth8, eth9: there are no such interfaces here"),
    ] {
        let text = format!("[host]\ninterfaces = [{interfaces}]\n");
        let file = testbed.write_config("missing.toml", &text);
        for verb in ["check", "load"] {
            let output = testbed
                .cli(&format!("{verb} --config {}", file.display()))
                .expect_exit(8)
                .expect_stderr(found);
            assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        }
        testbed.assert_clean();
        testbed.cli("status").expect_exit(3);
    }
}

#[test]
fn a_removed_interface_is_reported_and_can_be_unloaded() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.network.firm.remove("eth1").expect("removing it");
    let output = testbed.cli("status").expect_exit(11);
    assert!(
        output.stdout.contains("eth1") && output.stdout.contains("DETACHED: nothing is enforced here"),
        "{output:?}"
    );
    assert_eq!(testbed.cli("status --json").expect_exit(11).json()["interfaces"][0]["attached"], false);
    // The switch is set, and the output says that nothing is enforced.
    testbed.switch("trip", "host").expect_exit(8).expect_stderr("DETACHED");
    testbed.cli("unload").expect_exit(4);
    testbed.cli("unload --force").expect_exit(0);
    testbed.cli("status").expect_exit(3);
    testbed.cli(&format!("load --config {}", testbed.config().display())).expect_exit(8);
}

#[test]
fn a_renamed_interface_stays_protected_under_the_name_in_the_configuration() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.network.firm.set_down("eth1").expect("taking it down");
    testbed.network.firm.rename("eth1", "trade0").expect("renaming it");
    testbed.network.firm.set_up("trade0").expect("bringing it up");
    let interface = &testbed.cli("status --json").expect_exit(0).json()["interfaces"][0];
    assert_eq!((&interface["name"], &interface["attached"]), (&"eth1".into(), &true.into()));
    testbed.cli("unload").expect_exit(0);
    assert_eq!(testbed.tcx_programs("trade0"), 0);
}

/// Another program in front of that of breaker, attached until the value is dropped.
struct Other {
    _object: aya::Ebpf,
}

impl Other {
    fn before(testbed: &Testbed, interface: &str) -> Self {
        use aya::programs::tc::TcAttachOptions;
        use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
        testbed.on_host(|| {
            // The program of breaker with empty maps passes everything.
            let mut object = aya::EbpfLoader::new()
                .load(&breaker_user::kernel::object::for_running_kernel().bytes)
                .expect("the object");
            let program: &mut SchedClassifier =
                object.program_mut("egress").expect("a program").try_into().expect("tc");
            program.load().expect("loading");
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options(interface, TcAttachType::Egress, first).expect("attaching");
            Self { _object: object }
        })
    }
}
