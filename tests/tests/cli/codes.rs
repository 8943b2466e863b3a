//! Exit codes that scripts tell apart: 3 not loaded, 4 refused, 8 interface missing, 10 tripped, 11 unprotected.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use aya::programs::links::PinnedLink;
use breaker_tests::frame::order;
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Sink};
use breaker_user::testbed::TwoHosts;

use super::host::{Host, POLICY, chain, scope};

#[test]
fn with_nothing_loaded_every_verb_ends_with_3_and_says_what_to_do() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
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
        let said = rig
            .types(words)
            .expect_exit(3)
            .because("nothing is loaded there: load first with `breaker load`");
        assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1), "{said:?}");
    }
    // A directory that somebody made holds nothing either.
    rig.shell("mkdir /sys/fs/bpf/breaker");
    rig.types("status").expect_exit(3);
    rig.load();
    rig.types("status").expect_exit(0);
}

#[test]
fn a_second_load_is_refused_and_changes_nothing() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("session/x1");
    let before = rig.types("status --json").expect_exit(10).json();
    rig.types(&format!("load --config {}", rig.config().display())).expect_exit(4).because("unload it first");
    assert_eq!(rig.types("status --json").expect_exit(10).json()["scopes"], before["scopes"]);
    assert_eq!(chain(&rig, "eth1"), 1);
}

#[test]
fn what_is_tripped_is_neither_unloaded_nor_disarmed() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("session/x1");
    rig.types("unload").expect_exit(4).because("session/x1 is tripped, and its orders would pass again");
    rig.trip("group/desk");
    rig.types("unload")
        .expect_exit(4)
        .because("group/desk, session/x1 are tripped, and their orders would pass again");
    rig.switch("disarm", "session/x1")
        .expect_exit(4)
        .because("refused, nothing is changed: it is tripped (manual)");
    assert_eq!(scope(&rig.types("status --json").expect_exit(10).json(), "session/x1")["armed"], true);
    rig.types("unload --force").expect_exit(0);
    rig.is_clean();
}

#[test]
fn what_is_not_tripped_is_not_reset() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("session/x1");
    let refused = "refused, nothing is changed: it is not tripped";
    rig.switch("reset", "session/x2").expect_exit(4).because(refused);
    // The host is not tripped because a session of it is.
    rig.switch("reset", "host").expect_exit(4).because(refused);
    rig.switch("reset", "session/x1").expect_exit(0);
    rig.switch("reset", "session/x1").expect_exit(4).because(refused);
}

#[test]
fn a_reset_is_refused_while_its_sender_has_not_stopped_and_a_long_window_is_no_dead_end() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let venue = SocketAddr::new(TwoHosts::VENUE, 9001);
    let sink = Sink::listen(&rig.wire.venue, venue);
    let mut stream = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    for id in 1..=6 {
        // The last one finds the connection reset.
        let _ = stream.write_all(&order(id));
        sleep(Duration::from_millis(1));
    }
    sink.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(sink.last().whole("D"), 5);
    let status = rig.types("status --json").expect_exit(10).json();
    let tripped = scope(&status, "session/x1");
    assert_eq!(tripped["causes"], serde_json::json!(["rate"]));
    assert_eq!(tripped["last_trip"]["limit"], "5 order per 2s");
    let epoch = tripped["epoch"].clone();
    rig.switch("reset", "session/x1")
        .expect_exit(4)
        .because("its sender has not stopped: something of it was withheld");
    assert_eq!(scope(&rig.types("status --json").expect_exit(10).json(), "session/x1")["epoch"], epoch);
    // Whoever knows better says so, and the log has it.
    rig.types("reset session/x1 --reason x --force").expect_exit(0);
    rig.types("status").expect_exit(0);
    assert_eq!(rig.told().pop().expect("a line")["kind"], "agent_stopped");
    let forced = rig.told().into_iter().rfind(|line| line["kind"] == "reset").expect("the reset");
    assert_eq!(forced["counts"]["forced"], true);

    // A day's limit that has tripped is no dead end: nothing is asked of what crossed hours ago, and the window begins anew.
    let text = std::fs::read_to_string(rig.config()).expect("the configuration");
    let day = rig.configure("day.toml", &text.replace("max = 5, per = \"2s\"", "max = 5, per = \"24h\""));
    rig.types(&format!("reload --config {}", day.display())).expect_exit(0);
    let mut stream = rig.inside(|| TcpStream::connect(venue)).expect("connecting");
    for id in 1..=6 {
        let _ = stream.write_all(&order(id));
        sleep(Duration::from_millis(1));
    }
    sink.wait("the reset", |all| all[1].end == End::Reset);
    rig.switch("reset", "session/x1").expect_exit(4).because("its sender has not stopped");
    // One whose rate is not at a limit is nobody to wait for.
    rig.trip("group/desk");
    rig.switch("reset", "group/desk").expect_exit(0);
    sleep(Duration::from_millis(5100));
    let said = rig.switch("reset", "session/x1").expect_exit(0);
    assert!(said.out.contains("session/x1: not tripped, armed"), "{said:?}");
    let status = rig.types("status --json").expect_exit(0).json();
    assert_eq!(scope(&status, "session/x1")["limits"][0]["used"], 0);
}

#[test]
fn what_is_done_while_another_program_decides_first_is_said_not_to_hold() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("session/x1");
    {
        let _other = Other::before(&rig, "eth1");
        let said = rig.types("status").expect_exit(11);
        assert!(said.out.contains("DISPLACED: another program decides before it"), "{said:?}");
        for (verb, done) in [("trip", "TRIPPED"), ("reset", "not tripped"), ("arm", "armed")] {
            let said = rig
                .switch(verb, "session/x1")
                .expect_exit(8)
                .because("DISPLACED: eth1: another program decides before it");
            assert!(said.out.contains(done) && said.err.contains("\"egress\""), "{said:?}");
        }
    }
    rig.switch("arm", "session/x1").expect_exit(0);
    let _other = Other::before(&rig, "eth1");
    // Nothing is tripped any more, and that is not all there is to it.
    rig.types("status").expect_exit(11);
    let interface = &rig.types("status --json").expect_exit(11).json()["interfaces"][0];
    assert_eq!((&interface["attached"], &interface["first"]), (&true.into(), &false.into()));
}

#[test]
fn what_is_done_while_nothing_is_attached_is_said_not_to_hold() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.trip("session/x1");
    let pin = Rig::root().link(0);
    let held = rig.inside(|| PinnedLink::from_pin(&pin)).expect("the link");
    rig.shell(&format!("rm {}", pin.display()));
    // As long as somebody holds it, it is there, and that is not enough.
    let said = rig.types("status").expect_exit(11);
    assert!(said.out.contains("UNPINNED: it detaches when the agent ends"), "{said:?}");
    assert_eq!(
        rig.types("status session/x2 --json").expect_exit(11).json()["interfaces"][0]["pinned"],
        false
    );
    drop(held);
    let said = rig.types("status").expect_exit(11);
    assert!(said.out.contains("DETACHED: nothing is enforced here"), "{said:?}");
    for (verb, done) in [("trip", "TRIPPED"), ("reset", "not tripped"), ("arm", "armed")] {
        let said = rig
            .switch(verb, "session/x1")
            .expect_exit(8)
            .because("DETACHED: eth1: detached: nothing is enforced there");
        assert!(said.out.contains(done), "{said:?}");
    }
    let said = rig.types("trip session/x1 --reason test --json").expect_exit(8).json();
    assert_eq!(said["enforced"]["problems"][0]["what"], "detached");
    // The way out that the problem's cure names.
    rig.types("unload --force").expect_exit(0);
    rig.load();
    rig.types("status").expect_exit(0);
}

#[test]
fn status_ends_with_11_for_what_is_disarmed_and_with_10_for_what_is_tripped() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.types("status").expect_exit(0);
    rig.switch("disarm", "group/desk").expect_exit(0);
    rig.types("status").expect_exit(11);
    // Of one scope it tells that scope's.
    rig.types("status group/desk").expect_exit(11);
    rig.types("status session/x1").expect_exit(0);
    rig.trip("session/x2");
    rig.types("status").expect_exit(10);
    rig.types("status session/x2").expect_exit(10);
    rig.types("status group/desk").expect_exit(11);
    rig.types("unload").expect_exit(4);
    rig.reset("session/x2");
    rig.switch("arm", "group/desk").expect_exit(0);
    rig.types("status").expect_exit(0);
}

#[test]
fn missing_interfaces_end_with_8_all_named_and_nothing_is_left_behind() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    for (interfaces, found) in [
        ("\"eth1\", \"eth9\"", "interface eth9: there is no such interface here"),
        ("\"eth8\", \"eth1\", \"eth9\"", "interfaces eth8, eth9: there are no such interfaces here"),
    ] {
        let text = format!("[host]\ninterfaces = [{interfaces}]\n");
        let file = rig.configure("missing.toml", &text);
        for verb in ["check", "load"] {
            let said =
                rig.types(&format!("{verb} --config {}", file.display())).expect_exit(8).because(found);
            assert_eq!(said.err.lines().count(), 1, "{said:?}");
        }
        rig.is_clean();
        rig.types("status").expect_exit(3);
    }
}

#[test]
fn a_removed_interface_is_told_and_can_be_unloaded() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.wire.firm.remove("eth1").expect("removing it");
    let said = rig.types("status").expect_exit(11);
    assert!(said.out.contains("eth1") && said.out.contains("DETACHED: nothing is enforced here"), "{said:?}");
    assert_eq!(rig.types("status --json").expect_exit(11).json()["interfaces"][0]["attached"], false);
    // The switch still works, and nobody is told that it holds.
    rig.switch("trip", "host").expect_exit(8).because("DETACHED");
    rig.types("unload").expect_exit(4);
    rig.types("unload --force").expect_exit(0);
    rig.types("status").expect_exit(3);
    rig.types(&format!("load --config {}", rig.config().display())).expect_exit(8);
}

#[test]
fn a_renamed_interface_stays_protected_under_the_name_in_the_configuration() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.wire.firm.set_down("eth1").expect("taking it down");
    rig.wire.firm.rename("eth1", "trade0").expect("renaming it");
    rig.wire.firm.set_up("trade0").expect("bringing it up");
    let interface = &rig.types("status --json").expect_exit(0).json()["interfaces"][0];
    assert_eq!((&interface["name"], &interface["attached"]), (&"eth1".into(), &true.into()));
    rig.types("unload").expect_exit(0);
    assert_eq!(chain(&rig, "trade0"), 0);
}

/// Another program, in front of ours as long as this lives.
struct Other {
    _object: aya::Ebpf,
}

impl Other {
    fn before(rig: &Rig, interface: &str) -> Self {
        use aya::programs::tc::TcAttachOptions;
        use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
        rig.inside(|| {
            // Our own program with empty maps does for one that lets everything pass.
            let mut object =
                aya::EbpfLoader::new().load(&breaker_user::kernel::load::object()).expect("the object");
            let program: &mut SchedClassifier =
                object.program_mut("egress").expect("a program").try_into().expect("tc");
            program.load().expect("loading");
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options(interface, TcAttachType::Egress, first).expect("attaching");
            Self { _object: object }
        })
    }
}
