//! Reloading: whole or not at all, what is told of it, and all that is refused.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::privileged;
use breaker_tests::rig::{self, Rig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::host::{Host, POLICY, Said, breaker, scope};

/// The configuration that is loaded, changed: its path.
fn changed(rig: &Rig, changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(rig.config()).expect("the configuration");
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    });
    rig.configure("next.toml", &text).display().to_string()
}

fn reload(rig: &Rig, changes: &[(&str, &str)]) -> Said {
    let path = changed(rig, changes);
    rig.types(&format!("reload --json --config {path}"))
}

fn events(rig: &Rig) -> Vec<Value> {
    let said = rig.types("events --json").expect_exit(0);
    said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The agent on a host, ended with the test.
struct Agent(Child, String);

impl Agent {
    fn start(rig: &Rig, config: &str) -> Self {
        let mut command = rig::command();
        command
            .args(["agent", "--config", config])
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut agent = rig.inside(|| command.spawn().expect("starting an agent"));
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
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    rig.switch("disarm", "session/x2").expect_exit(0);
    rig.switch("trip", "group/desk").expect_exit(0);
    rig.switch("reset", "group/desk").expect_exit(0);
    let before = rig.types("status --json").expect_exit(11).json();
    let group = "[[group]]\nname = \"late\"\n[[session]]\nname = \"x3\"\nremote = \"10.9.0.2:9003\"\ngroups = [\"late\"]\n[[session]]\nname = \"x1\"";
    let done = reload(
        &rig,
        &[
            ("[[session]]\nname = \"x1\"", group),
            ("max = 2000", "max = 3000"),
            ("[host]", "policy = \"second\"\n[host]"),
        ],
    );
    // `policy` is a key of the file, not of a table.
    done.expect_exit(2);
    let path = changed(&rig, &[("[[session]]\nname = \"x1\"", group), ("max = 2000", "max = 3000")]);
    let text = format!("policy = \"second\"\n{}", std::fs::read_to_string(&path).expect("the file"));
    std::fs::write(&path, &text).expect("writing it");
    let said = rig.types(&format!("reload --json --config {path}")).expect_exit(0);
    assert_eq!(said.err, "");
    let done = said.json();
    let sha256 = rig.shell(&format!("sha256sum {path}")).split(' ').next().expect("a hash").to_owned();
    assert_eq!(done["changed"], true);
    assert_eq!(done["policy"], json!({ "name": "second", "sha256": sha256 }));
    assert_eq!(done["side"], 1);
    assert_eq!(done["loosened"], json!(["group/desk: 2000 order per 1s becomes 3000 order per 1s"]));
    assert_eq!(done["added"], json!(["group/late", "session/x3"]));
    assert_eq!(done["removed"], json!([]));
    let status = rig.types("status --json").expect_exit(11).json();
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
    let told = events(&rig).pop().expect("an event");
    assert_eq!(
        (&told["kind"], &told["policy"], &told["actor"]["via"]),
        (&json!("policy_changed"), &json!("second"), &json!("cli"))
    );
    assert_eq!(
        (&told["counts"]["sha256"], &told["counts"]["loosened"]),
        (&done["policy"]["sha256"], &done["loosened"])
    );

    // The very same file once more.
    let again = rig.types(&format!("reload --json --config {path}")).expect_exit(0).json();
    assert_eq!(
        (&again["changed"], &again["side"], &again["policy"]),
        (&json!(false), &json!(1), &done["policy"])
    );
    let said = rig.types(&format!("reload --config {path}")).expect_exit(0);
    assert_eq!(
        said.out,
        format!("policy second with sha256 {sha256} is in force already: nothing is changed\n")
    );

    // And back: what is gone is not shown, nor found.
    let said = rig.types(&format!("reload --config {}", rig.config().display())).expect_exit(0);
    assert!(said.out.contains("is in force, on side 0\nloosened:\n  group/late: no longer there\n  session/x3: no longer there\nremoved:\n  group/late\n  session/x3\n"), "{said:?}");
    rig.types("status session/x3").expect_exit(2);
    assert_eq!(scope(&rig.types("status --json").expect_exit(11).json(), "session/x2")["armed"], false);
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn what_only_a_load_can_change_is_refused_by_name_with_both_values() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    // A host speaks of its own, and those packets count too.
    let state = || {
        let mut found = rig.types("status --json").expect_exit(0).json();
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
        let said = reload(&rig, &[(from, to)]).expect_exit(4).because(found);
        said.because("reloading: refused, nothing is changed: ")
            .because("`breaker unload`, then `breaker load`");
    }
    let said = reload(&rig, &[("[\"eth1\"]", "[\"eth7\"]\nconnections = 4096")]).expect_exit(4);
    said.because("eth7").because("4096");
    assert_eq!(events(&rig).iter().filter(|event| event["kind"] == "policy_refused").count(), 8);
    // Nothing is written of a file that is none, and its errors are those of `check`.
    let bad = changed(&rig, &[("max = 5000", "max = 0")]);
    let said = rig.types(&format!("reload --config {bad}")).expect_exit(2);
    assert_eq!(said.err, rig.types(&format!("check --config {bad}")).expect_exit(2).err);
    rig.types("reload --config /nonexistent").expect_exit(2);
    assert_eq!(state(), before);
    rig.types("unload").expect_exit(0);
    rig.types(&format!("reload --config {}", rig.config().display())).expect_exit(3);
    breaker(&["reload", "--config"]).expect_exit(2);
}

#[test]
fn while_tripped_it_may_tighten_and_add_and_loosen_nothing() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    rig.switch("trip", "session/x2").expect_exit(0);
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
        let said = reload(&rig, &[(from, to)]).expect_exit(4).because(refused).because(loosened);
        said.because(": reset first, or only tighten");
    }
    let tighter = [
        ("max = 5,", "max = 4,"),
        ("[\"eth1\"]", "[\"eth1\"]\nundeclared = \"block\""),
        ("max = 2000", "max = 1999"),
    ];
    let done = reload(&rig, &tighter).expect_exit(0).json();
    assert_eq!(done["loosened"], json!([]));
    let status = rig.types("status --json").expect_exit(10).json();
    let x2 = scope(&status, "session/x2");
    assert_eq!((&x2["tripped"], &x2["causes"], &x2["epoch"]), (&json!(true), &json!(["manual"]), &json!(1)));
    rig.switch("reset", "session/x2").expect_exit(0);
    rig.types(&format!("reload --config {}", rig.config().display())).expect_exit(0);
}

#[test]
fn nothing_is_changed_unseen() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    std::fs::rename(rig.audit(), rig.audit().with_extension("old")).expect("the log away");
    std::fs::create_dir(rig.audit()).expect("a directory where the log should be");
    reload(&rig, &[("max = 5,", "max = 6,")]).expect_exit(4).because("the audit log cannot be written (");
    // Nor tightened: somebody would be stopped by a rule that nobody has noted.
    reload(&rig, &[("max = 5,", "max = 4,")]).expect_exit(4).because("the audit log cannot be written (");
    // `status` tells of the log too.
    assert_eq!(
        scope(&rig.types("status --json").expect_exit(11).json(), "session/x1")["limits"][0]["max"],
        5
    );
}

#[test]
fn what_the_maps_have_no_room_for_is_refused_with_both_figures() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let session = |n: u32| {
        format!("[[session]]\nname = \"more-{n}\"\nremote = \"10.9.1.{}:9001\"\nsender = \"S{n}\"\n", n % 200)
    };
    let text = std::fs::read_to_string(rig.config()).expect("the configuration");
    let many = rig.configure("many.toml", &(text.clone() + &(0..300).map(session).collect::<String>()));
    let said = rig.types(&format!("reload --config {}", many.display())).expect_exit(4);
    said.because("what is loaded is too small: it takes 305 scopes where there is room for 3")
        .because("sessions at shared places");
    rig.types("status session/more-1").expect_exit(2);
    let some = rig.configure("some.toml", &(text + &(0..25).map(session).collect::<String>()));
    rig.types(&format!("reload --config {}", some.display())).expect_exit(0);
    rig.types("status session/more-24").expect_exit(0);
    // What is there already takes no room of its own on the other side.
    let text = std::fs::read_to_string(&some).expect("the file").replace("max = 2000", "max = 1000");
    std::fs::write(&some, text).expect("another one");
    rig.types(&format!("reload --config {}", some.display())).expect_exit(0);
}

#[test]
fn of_many_reloads_at_once_each_is_whole_or_refused() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let files = [changed(&rig, &[("max = 5,", "max = 4,")]), rig.config().display().to_string()];
    let all: Vec<_> = rig.inside(|| {
        (0..12)
            .map(|n| {
                let mut command = rig::command();
                command
                    .args(["reload", "--json", "--config", &files[n % 2]])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                command.spawn().expect("starting breaker")
            })
            .collect()
    });
    let said: Vec<_> =
        all.into_iter().map(|one| Said::of(one.wait_with_output().expect("waiting"))).collect();
    assert!(said.iter().all(|said| matches!(said.code, Some(0 | 4))), "{said:#?}");
    assert!(said.iter().any(|said| said.code == Some(0)), "{said:#?}");
    let max =
        scope(&rig.types("status --json").expect_exit(0).json(), "session/x1")["limits"][0]["max"].as_u64();
    assert!(matches!(max, Some(4 | 5)));
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn a_reload_that_dies_has_changed_everything_or_nothing() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let more = "[[session]]\nname = \"x3\"\nremote = \"10.9.0.0/24:9001\"\nlimits = [{ class = \"order\", max = 7, per = \"2s\" }]\n";
    let other = changed(
        &rig,
        &[
            ("max = 5,", "max = 5000,"),
            ("[[session]]\nname = \"x2\"", &format!("{more}[[session]]\nname = \"x2\"")),
        ],
    );
    let files = [rig.config().display().to_string(), other];
    let mut in_force = 0;
    let mut died = [0, 0];
    for round in 0..40u64 {
        let wanted = 1 - in_force;
        let mut child = rig.inside(|| {
            let mut command = rig::command();
            command.args(["reload", "--config", &files[wanted]]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("starting breaker")
        });
        sleep(Duration::from_micros(round * 1_000));
        child.kill().expect("killing it");
        child.wait().expect("its end");
        let status = rig.types("status --json").expect_exit(0).json();
        let max = scope(&status, "session/x1")["limits"][0]["max"].as_u64().expect("a limit");
        let has_more =
            status["scopes"].as_array().expect("scopes").iter().any(|scope| scope["scope"] == "session/x3");
        assert_eq!(max, if has_more { 5000 } else { 5 });
        let now = usize::from(has_more);
        died[usize::from(now == wanted)] += 1;
        in_force = now;
        // Whatever it has left, the next one goes through.
        if round % 4 == 3 {
            rig.types(&format!("reload --config {}", files[1 - in_force])).expect_exit(0);
            in_force = 1 - in_force;
        }
    }
    assert!(died[0] > 0, "the reloads were over too soon: {died:?}");
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn the_agent_follows_what_the_command_line_reloads() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let config = rig.config().display().to_string();
    let agent = Agent::start(&rig, &config);
    let path = changed(&rig, &[("name = \"x2\"", "name = \"x9\""), ("max = 5,", "max = 7,")]);
    rig.types(&format!("reload --config {path}")).expect_exit(0);
    let metrics = || rig.shell("curl -s http://127.0.0.1:9469/metrics");
    let text =
        wait("the metrics of the new policy", || Some(metrics()).filter(|text| text.contains("session/x9")));
    assert!(!text.contains("session/x2"), "{text}");
    let limit =
        text.lines().find(|line| line.starts_with("breaker_limit{scope=\"session/x1\",class=\"order\""));
    assert!(limit.is_some_and(|line| line.ends_with(" 7")), "{limit:?}");
    rig.switch("trip", "session/x9").expect_exit(0);
    let trips = "breaker_trips_total{scope=\"session/x9\",cause=\"manual\"} 1";
    wait("the trip", || metrics().lines().any(|line| line == trips).then_some(()));
    agent.stop();
    // One that is started with the old file serves what is in force, and says so; with the new one there is nothing to say.
    let agent = Agent::start(&rig, &config);
    assert!(
        agent.1.contains("adopted policy") && agent.1.contains("ITS FILE IS NOT IN FORCE"),
        "{}",
        agent.1
    );
    agent.stop();
    let agent = Agent::start(&rig, &path);
    assert!(agent.1.contains("adopted policy") && !agent.1.contains("NOT IN FORCE"), "{}", agent.1);
    agent.stop();
}

#[test]
fn a_hang_up_has_the_agent_read_its_file_again() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let config = rig.config().display().to_string();
    let first = std::fs::read_to_string(&config).expect("the configuration");
    let agent = Agent::start(&rig, &config);
    let told = |kind: &str, count: usize| {
        wait(kind, || {
            let of: Vec<_> = events(&rig).into_iter().filter(|event| event["kind"] == kind).collect();
            of.get(count - 1).cloned()
        })
    };
    std::fs::write(&config, first.replace("max = 5,", "max = 9,")).expect("another policy");
    agent.signal(Signal::HUP);
    let changed = told("policy_changed", 1);
    assert_eq!(changed["actor"]["via"], "agent");
    assert_eq!(changed["counts"]["loosened"], json!(["session/x1: 5 order per 2s becomes 9 order per 2s"]));
    // Its line is there before it is in force.
    wait("the new policy", || {
        let status = rig.types("status --json").expect_exit(0).json();
        let now = (&status["policy"]["sha256"], &status["agent"]["running"]);
        (now == (&changed["counts"]["sha256"], &json!(true))).then_some(())
    });
    // A bad file, one that cannot be, and one that loosens while tripped: the last good one stays.
    rig.switch("trip", "session/x1").expect_exit(0);
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
        scope(&rig.types("status --json").expect_exit(10).json(), "session/x1")["limits"][0]["max"],
        9
    );
    agent.stop();
}
