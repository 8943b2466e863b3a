//! Reloads that are refused, with the reason.

use breaker_tests::cli::scope;
use breaker_tests::command::breaker;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::json;

use super::{changed, events, reload};
use crate::POLICY;

#[test]
fn a_change_that_needs_a_load_is_refused_with_both_values() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    // The host sends packets of its own, which count too.
    let state = || {
        let mut found = testbed.cli("status --json").expect_exit(0).json();
        found["packets"].take();
        found["state"]["age_ms"].take();
        found
    };
    let before = state();
    for (from, to, found) in [
        ("[\"eth1\"]", "[\"eth7\"]", r#"[host].interfaces is "eth1", and the file says "eth7""#),
        (
            "[\"eth1\"]",
            "[\"eth1\", \"eth2\"]",
            r#"[host].interfaces is "eth1", and the file says "eth1, eth2""#,
        ),
        (
            "[\"eth1\"]",
            "[\"eth1\"]\nmode = \"inline\"",
            r#"[host].mode is "egress", and the file says "inline""#,
        ),
        (
            "[\"eth1\"]",
            "[\"eth1\"]\nhook = \"clsact\"",
            r#"[host].hook is "tcx", and the file says "clsact""#,
        ),
        (
            "[\"eth1\"]",
            "[\"eth1\"]\nconnections = 4096",
            r#"[host].connections is "65536", and the file says "4096""#,
        ),
        (
            "[\"eth1\"]",
            "[\"eth1\"]\ninbound = \"watch\"",
            r#"[host].inbound is "ignore", and the file says "watch""#,
        ),
        ("audit.jsonl", "other.jsonl", "[agent].audit is "),
    ] {
        let output = reload(&testbed, &[(from, to)]).expect_exit(4).expect_stderr(found);
        output
            .expect_stderr("reloading: refused, nothing is changed: ")
            .expect_stderr("`breaker unload`, then `breaker load`");
    }
    let output = reload(&testbed, &[("[\"eth1\"]", "[\"eth7\"]\nconnections = 4096")]).expect_exit(4);
    output.expect_stderr("eth7").expect_stderr("4096");
    assert_eq!(events(&testbed).iter().filter(|event| event["kind"] == "policy_refused").count(), 8);
    // An invalid file leaves no event. Its errors are those of `check`.
    let bad = changed(&testbed, &[("max = 5000", "max = 0")]);
    let output = testbed.cli(&format!("reload --config {bad}")).expect_exit(2);
    assert_eq!(output.stderr, testbed.cli(&format!("check --config {bad}")).expect_exit(2).stderr);
    testbed.cli("reload --config /nonexistent").expect_exit(2);
    assert_eq!(state(), before);
    testbed.cli("unload").expect_exit(0);
    testbed.cli(&format!("reload --config {}", testbed.config().display())).expect_exit(3);
    breaker(&["reload", "--config"]).expect_exit(2);
}

#[test]
fn while_tripped_a_reload_may_tighten_but_not_loosen() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    testbed.switch("trip", "session/x2").expect_exit(0);
    let refused = "session/x2 is tripped, and it would loosen: ";
    for (from, to, loosened) in [
        ("max = 5,", "max = 6,", "session/x1: 5 order per 2s becomes 6 order per 2s"),
        ("name = \"x1\"\n", "name = \"x1\"\narmed = false\n", "session/x1: disarmed"),
        (
            "[[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\ngroups = [\"desk\"]\n",
            "",
            "session/x2: no longer declared",
        ),
        (
            "\"10.9.0.2:9002\"\ngroups = [\"desk\"]",
            "\"10.9.0.2:9002\"",
            "session/x2: no longer in group/desk",
        ),
        ("[\"eth1\"]", "[\"eth1\"]\nundeclared = \"ignore\"", "host: undeclared: watch becomes ignore"),
    ] {
        let output =
            reload(&testbed, &[(from, to)]).expect_exit(4).expect_stderr(refused).expect_stderr(loosened);
        output.expect_stderr(": reset first, or only tighten");
    }
    let tighter = [
        ("max = 5,", "max = 4,"),
        ("[\"eth1\"]", "[\"eth1\"]\nundeclared = \"block\""),
        ("max = 2000", "max = 1999"),
    ];
    let done = reload(&testbed, &tighter).expect_exit(0).json();
    assert_eq!(done["loosened"], json!([]));
    let status = testbed.cli("status --json").expect_exit(10).json();
    let x2 = scope(&status, "session/x2");
    assert_eq!((&x2["tripped"], &x2["causes"], &x2["epoch"]), (&json!(true), &json!(["manual"]), &json!(1)));
    testbed.switch("reset", "session/x2").expect_exit(0);
    testbed.cli(&format!("reload --config {}", testbed.config().display())).expect_exit(0);
}

#[test]
fn a_reload_that_cannot_be_logged_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    std::fs::rename(testbed.audit(), testbed.audit().with_extension("old")).expect("the log away");
    std::fs::create_dir(testbed.audit()).expect("a directory where the log should be");
    reload(&testbed, &[("max = 5,", "max = 6,")])
        .expect_exit(4)
        .expect_stderr("the audit log cannot be written (");
    // A tighter policy is refused too, because it would not be logged.
    reload(&testbed, &[("max = 5,", "max = 4,")])
        .expect_exit(4)
        .expect_stderr("the audit log cannot be written (");
    // `status` reports the log too.
    assert_eq!(
        scope(&testbed.cli("status --json").expect_exit(11).json(), "session/x1")["limits"][0]["max"],
        5
    );
}

#[test]
fn a_policy_too_large_for_the_loaded_maps_is_refused_with_both_sizes() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let session = |n: u32| {
        format!("[[session]]\nname = \"more-{n}\"\nremote = \"10.9.1.{}:9001\"\nsender = \"S{n}\"\n", n % 200)
    };
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let many =
        testbed.write_config("many.toml", &(text.clone() + &(0..300).map(session).collect::<String>()));
    let output = testbed.cli(&format!("reload --config {}", many.display())).expect_exit(4);
    output
        .expect_stderr("the loaded maps are too small: the policy needs 305 scopes where there is room for 3")
        .expect_stderr("sessions at shared endpoints");
    testbed.cli("status session/more-1").expect_exit(2);
    let some = testbed.write_config("some.toml", &(text + &(0..25).map(session).collect::<String>()));
    testbed.cli(&format!("reload --config {}", some.display())).expect_exit(0);
    testbed.cli("status session/more-24").expect_exit(0);
    // Entries that exist take no further room on the other side.
    let text = std::fs::read_to_string(&some).expect("the file").replace("max = 2000", "max = 1000");
    std::fs::write(&some, text).expect("another one");
    testbed.cli(&format!("reload --config {}", some.display())).expect_exit(0);
}
