//! Another policy takes over, as a whole or not at all.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::cli::scope;
use breaker_tests::command::{self, CliOutput};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use serde_json::json;

use super::{changed, events, reload};
use crate::POLICY;

#[test]
fn another_policy_takes_over_and_common_scopes_keep_their_state() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    testbed.switch("disarm", "session/x2").expect_exit(0);
    testbed.switch("trip", "group/desk").expect_exit(0);
    testbed.switch("reset", "group/desk").expect_exit(0);
    let before = testbed.cli("status --json").expect_exit(11).json();
    let group = "[[group]]\nname = \"late\"\n[[session]]\nname = \"x3\"\nremote = \"10.9.0.2:9003\"\n\
                 groups = [\"late\"]\n[[session]]\nname = \"x1\"";
    let done = reload(
        &testbed,
        &[
            ("[[session]]\nname = \"x1\"", group),
            ("max = 2000", "max = 3000"),
            ("[host]", "policy = \"second\"\n[host]"),
        ],
    );
    // `policy` is a key of the file, not of a table.
    done.expect_exit(2);
    let path = changed(&testbed, &[("[[session]]\nname = \"x1\"", group), ("max = 2000", "max = 3000")]);
    let text = format!("policy = \"second\"\n{}", std::fs::read_to_string(&path).expect("the file"));
    std::fs::write(&path, &text).expect("writing it");
    let output = testbed.cli(&format!("reload --json --config {path}")).expect_exit(0);
    assert_eq!(output.stderr, "");
    let done = output.json();
    let sha256 = testbed.shell(&format!("sha256sum {path}")).split(' ').next().expect("a hash").to_owned();
    assert_eq!(done["changed"], true);
    assert_eq!(done["policy"], json!({ "name": "second", "sha256": sha256 }));
    assert_eq!(done["side"], 1);
    assert_eq!(done["loosened"], json!(["group/desk: 2000 order per 1s becomes 3000 order per 1s"]));
    assert_eq!(done["added"], json!(["group/late", "session/x3"]));
    assert_eq!(done["removed"], json!([]));
    let status = testbed.cli("status --json").expect_exit(11).json();
    assert_eq!(status["policy"], done["policy"]);
    let names: Vec<_> =
        status["scopes"].as_array().expect("scopes").iter().map(|scope| scope["scope"].as_str()).collect();
    let expected =
        ["host", "group/desk", "group/late", "session/undeclared", "session/x1", "session/x2", "session/x3"];
    assert_eq!(names, expected.map(Some));
    for name in ["host", "session/undeclared", "session/x1", "session/x2"] {
        assert_eq!(scope(&status, name), scope(&before, name));
    }
    assert_eq!(scope(&status, "group/desk")["epoch"], 2);
    assert_eq!(scope(&status, "group/desk")["limits"][0]["max"], 3000);
    let event = events(&testbed).pop().expect("an event");
    assert_eq!(
        (&event["kind"], &event["policy"], &event["actor"]["via"]),
        (&json!("policy_changed"), &json!("second"), &json!("cli"))
    );
    assert_eq!(
        (&event["counts"]["sha256"], &event["counts"]["loosened"]),
        (&done["policy"]["sha256"], &done["loosened"])
    );

    // The same file again.
    let again = testbed.cli(&format!("reload --json --config {path}")).expect_exit(0).json();
    assert_eq!(
        (&again["changed"], &again["side"], &again["policy"]),
        (&json!(false), &json!(1), &done["policy"])
    );
    let output = testbed.cli(&format!("reload --config {path}")).expect_exit(0);
    assert_eq!(
        output.stdout,
        format!("policy second with sha256 {sha256} is already in force: nothing is changed\n")
    );

    // Back to the first policy: removed scopes are neither shown nor found.
    let output = testbed.cli(&format!("reload --config {}", testbed.config().display())).expect_exit(0);
    assert!(
        output.stdout.contains(
            "is in force, on side 0\nloosened:\n  group/late: no longer declared\n  \
             session/x3: no longer declared\nremoved:\n  group/late\n  session/x3\n"
        ),
        "{output:?}"
    );
    testbed.cli("status session/x3").expect_exit(2);
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(11).json(), "session/x2")["armed"], false);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn concurrent_reloads_succeed_as_a_whole_or_are_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let files = [changed(&testbed, &[("max = 5,", "max = 4,")]), testbed.config().display().to_string()];
    let all: Vec<_> = testbed.on_host(|| {
        (0..12)
            .map(|n| {
                let mut command = command::command();
                command
                    .args(["reload", "--json", "--config", &files[n % 2]])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                command.spawn().expect("starting breaker")
            })
            .collect()
    });
    let output: Vec<_> =
        all.into_iter().map(|one| CliOutput::new(one.wait_with_output().expect("waiting"))).collect();
    assert!(output.iter().all(|output| matches!(output.exit_code, Some(0 | 4))), "{output:#?}");
    assert!(output.iter().any(|output| output.exit_code == Some(0)), "{output:#?}");
    let max =
        scope(&testbed.cli("status --json").expect_exit(0).json(), "session/x1")["limits"][0]["max"].as_u64();
    assert!(matches!(max, Some(4 | 5)));
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_reload_that_dies_has_changed_everything_or_nothing() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let more = "[[session]]\nname = \"x3\"\nremote = \"10.9.0.0/24:9001\"\nlimits = [{ class = \"order\", \
                max = 7, per = \"2s\" }]\n";
    let other = changed(
        &testbed,
        &[
            ("max = 5,", "max = 5000,"),
            ("[[session]]\nname = \"x2\"", &format!("{more}[[session]]\nname = \"x2\"")),
        ],
    );
    let files = [testbed.config().display().to_string(), other];
    let mut in_force = 0;
    let mut died = [0, 0];
    for round in 0..40u64 {
        let wanted = 1 - in_force;
        let mut child = testbed.on_host(|| {
            let mut command = command::command();
            command.args(["reload", "--config", &files[wanted]]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("starting breaker")
        });
        sleep(Duration::from_micros(round * 1_000));
        child.kill().expect("killing it");
        child.wait().expect("waiting for its end");
        let status = testbed.cli("status --json").expect_exit(0).json();
        let max = scope(&status, "session/x1")["limits"][0]["max"].as_u64().expect("a limit");
        let has_more =
            status["scopes"].as_array().expect("scopes").iter().any(|scope| scope["scope"] == "session/x3");
        assert_eq!(max, if has_more { 5000 } else { 5 });
        let now = usize::from(has_more);
        died[usize::from(now == wanted)] += 1;
        in_force = now;
        // The next reload succeeds after any such death.
        if round % 4 == 3 {
            testbed.cli(&format!("reload --config {}", files[1 - in_force])).expect_exit(0);
            in_force = 1 - in_force;
        }
    }
    assert!(died[0] > 0, "the reloads were over too soon: {died:?}");
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}
