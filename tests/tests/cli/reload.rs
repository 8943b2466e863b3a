//! Reloads: as a whole or not at all, their output and events, and all that is refused.

use breaker_tests::cli::{self, CliOutput, breaker, scope};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::POLICY;

/// Writes a changed copy of the configuration. Returns its path.
fn changed(testbed: &Testbed, changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    });
    testbed.write_config("next.toml", &text).display().to_string()
}

fn reload(testbed: &Testbed, changes: &[(&str, &str)]) -> CliOutput {
    let path = changed(testbed, changes);
    testbed.cli(&format!("reload --json --config {path}"))
}

fn events(testbed: &Testbed) -> Vec<Value> {
    let output = testbed.cli("events --json").expect_exit(0);
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// An agent on a host, stopped at the end of the test.
struct Agent(Child, String);

impl Agent {
    fn start(testbed: &Testbed, config: &str) -> Self {
        let mut command = cli::command();
        command
            .args(["agent", "--config", config])
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut agent = testbed.on_host(|| command.spawn().expect("starting an agent"));
        let mut ready = String::new();
        BufReader::new(agent.stdout.take().expect("its output")).read_line(&mut ready).expect("its line");
        Self(agent, ready)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a signal");
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.0.wait().expect("its end").success(), "{}", self.1);
    }
}

fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn another_policy_takes_over_and_what_both_have_stays() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    testbed.switch("disarm", "session/x2").expect_exit(0);
    testbed.switch("trip", "group/desk").expect_exit(0);
    testbed.switch("reset", "group/desk").expect_exit(0);
    let before = testbed.cli("status --json").expect_exit(11).json();
    let group = "[[group]]\nname = \"late\"\n[[session]]\nname = \"x3\"\nremote = \"10.9.0.2:9003\"\ngroups = [\"late\"]\n[[session]]\nname = \"x1\"";
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
    let told = events(&testbed).pop().expect("an event");
    assert_eq!(
        (&told["kind"], &told["policy"], &told["actor"]["via"]),
        (&json!("policy_changed"), &json!("second"), &json!("cli"))
    );
    assert_eq!(
        (&told["counts"]["sha256"], &told["counts"]["loosened"]),
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
        format!("policy second with sha256 {sha256} is in force already: nothing is changed\n")
    );

    // Back to the first policy: removed scopes are neither shown nor found.
    let output = testbed.cli(&format!("reload --config {}", testbed.config().display())).expect_exit(0);
    assert!(output.stdout.contains("is in force, on side 0\nloosened:\n  group/late: no longer there\n  session/x3: no longer there\nremoved:\n  group/late\n  session/x3\n"), "{output:?}");
    testbed.cli("status session/x3").expect_exit(2);
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(11).json(), "session/x2")["armed"], false);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn what_only_a_load_can_change_is_refused_by_name_with_both_values() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    // The host sends packets of its own, which count too.
    let state = || {
        let mut found = testbed.cli("status --json").expect_exit(0).json();
        found["packets"].take();
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
fn while_tripped_it_may_tighten_and_add_and_loosen_nothing() {
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
            "session/x2: no longer there",
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
fn nothing_is_changed_unseen() {
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
fn what_the_maps_have_no_room_for_is_refused_with_both_figures() {
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
        .expect_stderr("what is loaded is too small: it takes 305 scopes where there is room for 3")
        .expect_stderr("sessions at shared places");
    testbed.cli("status session/more-1").expect_exit(2);
    let some = testbed.write_config("some.toml", &(text + &(0..25).map(session).collect::<String>()));
    testbed.cli(&format!("reload --config {}", some.display())).expect_exit(0);
    testbed.cli("status session/more-24").expect_exit(0);
    // Entries that exist take no further room on the other side.
    let text = std::fs::read_to_string(&some).expect("the file").replace("max = 2000", "max = 1000");
    std::fs::write(&some, text).expect("another one");
    testbed.cli(&format!("reload --config {}", some.display())).expect_exit(0);
}

#[test]
fn of_many_reloads_at_once_each_is_whole_or_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let files = [changed(&testbed, &[("max = 5,", "max = 4,")]), testbed.config().display().to_string()];
    let all: Vec<_> = testbed.on_host(|| {
        (0..12)
            .map(|n| {
                let mut command = cli::command();
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
    let more = "[[session]]\nname = \"x3\"\nremote = \"10.9.0.0/24:9001\"\nlimits = [{ class = \"order\", max = 7, per = \"2s\" }]\n";
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
            let mut command = cli::command();
            command.args(["reload", "--config", &files[wanted]]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("starting breaker")
        });
        sleep(Duration::from_micros(round * 1_000));
        child.kill().expect("killing it");
        child.wait().expect("its end");
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

#[test]
fn the_agent_follows_what_the_command_line_reloads() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let config = testbed.config().display().to_string();
    let agent = Agent::start(&testbed, &config);
    let path = changed(&testbed, &[("name = \"x2\"", "name = \"x9\""), ("max = 5,", "max = 7,")]);
    testbed.cli(&format!("reload --config {path}")).expect_exit(0);
    let metrics = || testbed.shell("curl -s http://127.0.0.1:9469/metrics");
    let text =
        wait("the metrics of the new policy", || Some(metrics()).filter(|text| text.contains("session/x9")));
    assert!(!text.contains("session/x2"), "{text}");
    let limit =
        text.lines().find(|line| line.starts_with("breaker_limit{scope=\"session/x1\",class=\"order\""));
    assert!(limit.is_some_and(|line| line.ends_with(" 7")), "{limit:?}");
    testbed.switch("trip", "session/x9").expect_exit(0);
    let trips = "breaker_trips_total{scope=\"session/x9\",cause=\"manual\"} 1";
    wait("the trip", || metrics().lines().any(|line| line == trips).then_some(()));
    agent.stop();
    // An agent with the old file serves the policy in force, and reports the difference. With the new file
    // there is no difference.
    let agent = Agent::start(&testbed, &config);
    assert!(
        agent.1.contains("adopted policy") && agent.1.contains("ITS FILE IS NOT IN FORCE"),
        "{}",
        agent.1
    );
    agent.stop();
    let agent = Agent::start(&testbed, &path);
    assert!(agent.1.contains("adopted policy") && !agent.1.contains("NOT IN FORCE"), "{}", agent.1);
    agent.stop();
}

#[test]
fn a_hang_up_has_the_agent_read_its_file_again() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config().display().to_string();
    let first = std::fs::read_to_string(&config).expect("the configuration");
    let agent = Agent::start(&testbed, &config);
    let told = |kind: &str, count: usize| {
        wait(kind, || {
            let of: Vec<_> = events(&testbed).into_iter().filter(|event| event["kind"] == kind).collect();
            of.get(count - 1).cloned()
        })
    };
    std::fs::write(&config, first.replace("max = 5,", "max = 9,")).expect("another policy");
    agent.signal(Signal::HUP);
    let changed = told("policy_changed", 1);
    assert_eq!(changed["actor"]["via"], "agent");
    assert_eq!(changed["counts"]["loosened"], json!(["session/x1: 5 order per 2s becomes 9 order per 2s"]));
    // The line of the reload is logged before the policy is in force.
    wait("the new policy", || {
        let status = testbed.cli("status --json").expect_exit(0).json();
        let now = (&status["policy"]["sha256"], &status["agent"]["running"]);
        (now == (&changed["counts"]["sha256"], &json!(true))).then_some(())
    });
    // An invalid file, a change that needs a load, and a loosening while tripped: the last valid policy
    // stays.
    testbed.switch("trip", "session/x1").expect_exit(0);
    let refusals = [
        (first.replace("max = 5,", "max = 0,"), "the configuration is refused"),
        (first.replace("[\"eth1\"]", "[\"eth1\"]\nconnections = 4096"), "[host].connections is"),
        (first.replace("max = 5,", "max = 10,"), "session/x1 is tripped, and it would loosen"),
    ];
    for (n, (text, found)) in refusals.iter().enumerate() {
        std::fs::write(&config, text).expect("a file");
        agent.signal(Signal::HUP);
        let refused = told("policy_refused", n + 1);
        assert!(refused["counts"]["found"].as_str().is_some_and(|text| text.contains(found)), "{refused}");
    }
    assert_eq!(
        scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["limits"][0]["max"],
        9
    );
    agent.stop();
}
