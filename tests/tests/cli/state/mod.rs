//! The state file: a load restores the scopes after the removal of the pins, an `unload` and a reboot.
//! A scope whose state is unknown comes up tripped.

mod storage;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::cli::scope;
use breaker_tests::command::{CliOutput, command};
use breaker_tests::frame::order;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_user::kernel::attach;
use breaker_user::testbed::TwoHosts;
use rustix::mount::mount_bind;
use serde_json::Value;

use super::POLICY;

/// Removes the pins as root. The kernel detaches the programs that only the pins held.
fn remove_pins(testbed: &Testbed) {
    testbed.shell("rm -rf /sys/fs/bpf/breaker");
}

/// Loads the configuration and expects success.
fn load(testbed: &Testbed) -> CliOutput {
    testbed.cli(&format!("load --config {}", testbed.config().display())).expect_exit(0)
}

fn status(testbed: &Testbed) -> Value {
    testbed.cli("status --json").json()
}

/// Returns the causes of a scope.
fn causes(testbed: &Testbed, name: &str) -> Vec<String> {
    let status = status(testbed);
    let causes = scope(&status, name)["causes"].as_array().expect("causes").clone();
    causes.iter().map(|cause| cause.as_str().expect("a name").to_owned()).collect()
}

/// Returns the kind, the scope and the cause of each line of the audit log.
fn log_entries(testbed: &Testbed) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(testbed.audit()).expect("the log");
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    lines.map(|line| (word(&line, "kind"), word(&line, "scope"), word(&line, "cause"))).collect()
}

/// Returns true if the audit log has a line with this kind, scope and cause.
fn log_contains(testbed: &Testbed, kind: &str, scope: &str, cause: &str) -> bool {
    log_entries(testbed).contains(&(kind.to_owned(), scope.to_owned(), cause.to_owned()))
}

/// Returns the path of the state file of the testbed's pin root.
fn state_file(testbed: &Testbed) -> std::path::PathBuf {
    status(testbed)["state"]["path"].as_str().expect("a path").into()
}

/// Starts an agent and waits until it serves metrics.
fn start_agent(testbed: &Testbed) -> Child {
    let mut command = command();
    command.args(["agent", "--config"]).arg(testbed.config());
    spawn_agent(testbed, command)
}

/// Starts an agent with a command and waits until it serves metrics.
fn spawn_agent(testbed: &Testbed, mut command: Command) -> Child {
    command.env_remove("NOTIFY_SOCKET").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = testbed.on_host(|| command.spawn().expect("starting an agent"));
    let mut line = String::new();
    BufReader::new(agent.stdout.take().expect("its output")).read_line(&mut line).expect("its line");
    assert!(line.contains("metrics at"), "{line}");
    agent
}

/// Simulates a reboot: mounts a file with another boot id over the kernel's file.
fn set_boot_id(testbed: &Testbed, id: &str) {
    let path = testbed.state().join(id);
    fs::write(&path, format!("{id}\n")).expect("a boot id");
    testbed.on_host(|| mount_bind(&path, "/proc/sys/kernel/random/boot_id")).expect("mounting it");
}

#[test]
fn a_trip_and_an_arm_come_up_as_they_were_when_the_pins_are_lost() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    assert_eq!(load(&testbed).stderr, "", "there is nothing to say of a first load");
    testbed.trip("session/x1");
    testbed.switch("disarm", "session/x2").expect_exit(0);
    remove_pins(&testbed);
    testbed.cli("status").expect_exit(3);
    load(&testbed)
        .expect_stderr("session/x1 comes up TRIPPED (manual), as the state file")
        .expect_stderr("session/x2 comes up DISARMED, as a person decided");
    assert_eq!(causes(&testbed, "session/x1"), ["manual"]);
    assert!(causes(&testbed, "host").is_empty() && causes(&testbed, "session/x2").is_empty());
    let found = status(&testbed);
    assert_eq!(scope(&found, "session/x2")["armed"], false);
    // The epoch is higher than before, so connections from before the load are fenced.
    assert_eq!(scope(&found, "session/x1")["epoch"], 2);
    assert_eq!(found["state"]["ok"], true, "{found}");
    assert!(log_contains(&testbed, "restored", "session/x1", "manual"), "{:?}", log_entries(&testbed));
    testbed.reset("session/x1");
    testbed.switch("arm", "session/x2").expect_exit(0);
    remove_pins(&testbed);
    assert_eq!(load(&testbed).stderr, "");
    assert!(causes(&testbed, "session/x1").is_empty());
    testbed.cli("audit verify").expect_exit(0);
}

#[test]
fn a_trip_comes_up_after_a_forced_unload() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    testbed.trip("host");
    testbed.cli("unload --force").expect_exit(0);
    load(&testbed);
    assert_eq!(causes(&testbed, "host"), ["manual"]);
}

#[test]
fn a_trip_of_a_scope_that_the_policy_no_longer_has_is_kept() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    testbed.trip("session/x2");
    let whole = fs::read_to_string(testbed.config()).expect("the configuration");
    let without = &whole[..whole.find("[[session]]\nname = \"x2\"").expect("a session")];
    remove_pins(&testbed);
    fs::write(testbed.config(), without).expect("writing");
    load(&testbed).expect_stderr("session/x2 was tripped (manual), and this policy does not have it");
    assert_eq!(status(&testbed)["state"]["kept"], serde_json::json!(["session/x2"]));
    testbed.trip("session/x1");
    testbed.reset("session/x1");
    remove_pins(&testbed);
    fs::write(testbed.config(), whole).expect("writing");
    load(&testbed).expect_stderr("session/x2 comes up TRIPPED (manual)");
    assert_eq!(causes(&testbed, "session/x2"), ["manual"]);
}

#[test]
fn a_host_with_a_history_but_without_its_state_file_comes_up_tripped_and_names_the_remedy() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    testbed.switch("disarm", "session/x2").expect_exit(0);
    let file = state_file(&testbed);
    remove_pins(&testbed);
    fs::remove_file(&file).expect("removing it");
    let _ = fs::remove_file(format!("{}.previous", file.display()));
    load(&testbed)
        .expect_stderr("it is missing, though the audit log has lines")
        .expect_stderr(
            "comes up TRIPPED (state): group/desk, host, session/undeclared, session/x1, session/x2",
        )
        .expect_stderr("then `breaker reset` each");
    for name in ["host", "group/desk", "session/x1"] {
        assert_eq!(causes(&testbed, name), ["state"], "{name}");
        assert!(log_contains(&testbed, "tripped", name, "state"), "{:?}", log_entries(&testbed));
    }
    testbed.cli("status").expect_exit(10);
    for name in ["host", "group/desk", "session/x1", "session/x2", "session/undeclared"] {
        testbed.reset(name);
    }
    testbed.cli("status").expect_exit(0);
    remove_pins(&testbed);
    assert_eq!(load(&testbed).stderr, "");
}

#[test]
fn a_damaged_state_file_keeps_every_tripped_scope_tripped() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    testbed.trip("session/x1");
    testbed.switch("disarm", "session/x2").expect_exit(0);
    let file = state_file(&testbed);
    let whole = fs::read(&file).expect("the file");
    remove_pins(&testbed);
    fs::write(&file, &whole[..whole.len() / 2]).expect("cutting it");
    load(&testbed)
        .expect_stderr("the generation before it is taken")
        .expect_stderr("session/x1 comes up TRIPPED (manual)");
    assert_eq!(causes(&testbed, "session/x1"), ["manual", "state"]);
    assert_eq!(causes(&testbed, "host"), ["state"]);
}

#[test]
fn a_reboot_trips_the_armed_scopes_only_if_an_agent_was_running() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    set_boot_id(&testbed, "first");
    remove_pins(&testbed);
    load(&testbed).expect_stderr("no agent has ever run on this host");
    assert!(causes(&testbed, "host").is_empty());

    let mut running = start_agent(&testbed);
    wait_for("a change", || (status(&testbed)["state"]["agent"] == "running").then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), rustix::process::Signal::TERM)
        .expect("a signal");
    assert!(running.wait().expect("its end").success());
    assert_eq!(status(&testbed)["state"]["agent"], "ended");
    remove_pins(&testbed);
    set_boot_id(&testbed, "second");
    assert_eq!(load(&testbed).stderr, "", "the agent has ended");

    let mut running = start_agent(&testbed);
    wait_for("a change", || (status(&testbed)["state"]["agent"] == "running").then_some(()));
    running.kill().expect("killing it");
    running.wait().expect("its end");
    remove_pins(&testbed);
    set_boot_id(&testbed, "third");
    let text = fs::read_to_string(testbed.config()).expect("the configuration");
    fs::write(testbed.config(), text.replace("[host]\n", "[host]\nunclean_boot = \"pass\"\n"))
        .expect("writing");
    load(&testbed).expect_stderr("unclean_boot = \"pass\"");
    assert!(causes(&testbed, "host").is_empty());
    fs::write(testbed.config(), text).expect("writing");

    let mut running = start_agent(&testbed);
    wait_for("a change", || (status(&testbed)["state"]["agent"] == "running").then_some(()));
    running.kill().expect("killing it");
    running.wait().expect("its end");
    remove_pins(&testbed);
    set_boot_id(&testbed, "fourth");
    load(&testbed).expect_stderr("the host went down while an agent was running");
    assert_eq!(causes(&testbed, "host"), ["state"]);
}

#[test]
fn an_agent_records_a_trip_of_the_kernel_and_restores_it_when_the_load_is_removed() {
    require_root!();
    let testbed = Testbed::unloaded(
        "[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\non_trip = \"drop\"\n\
         limits = [{ class = \"order\", max = 3, per = \"1h\" }]\n",
    );
    let _sink = testbed.listen(9001);
    load(&testbed);
    let mut running = start_agent(&testbed);
    let mut stream = testbed.connect(9001);
    for number in 0..5 {
        stream.write_all(&order(number)).expect("sending");
        sleep(Duration::from_millis(2));
    }
    // The agent writes the trip to the state file; no verb runs.
    let file = state_file(&testbed);
    wait_for("a change", || {
        let text = fs::read_to_string(&file).ok()?;
        let json: Value = serde_json::from_str(text.rsplit_once("sha256 ")?.0).ok()?;
        (json["scopes"]["session/x1"]["causes"] == serde_json::json!(["rate"])).then_some(())
    });
    // A detached link and removed pins are tampering, not an unload.
    detach(&testbed);
    remove_pins(&testbed);
    wait_for("the repair", || log_contains(&testbed, "reattached", "", "").then_some(()));
    wait_for("the pins", || (testbed.cli("status").exit_code == Some(10)).then_some(()));
    assert!(log_contains(&testbed, "tampered", "", ""), "{:?}", log_entries(&testbed));
    assert_eq!(causes(&testbed, "session/x1"), ["rate"], "pinned and attached again, as it was");
    // Without an agent nothing repairs the load; the next agent restores it.
    running.kill().expect("killing it");
    running.wait().expect("its end");
    detach(&testbed);
    remove_pins(&testbed);
    let mut again = start_agent(&testbed);
    assert_eq!(causes(&testbed, "session/x1"), ["rate"]);
    again.kill().expect("killing it");
    again.wait().expect("its end");
    assert!(log_contains(&testbed, "restored", "session/x1", "rate"));
}

#[test]
fn with_an_invalid_file_after_a_reboot_the_last_policy_is_loaded() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    testbed.trip("session/x1");
    let hash = status(&testbed)["policy"]["sha256"].clone();
    remove_pins(&testbed);
    let config = testbed.config();
    let valid = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, format!("{valid}\nunknown = 1\n")).expect("an invalid configuration");
    let load_with = |option: &str| {
        let words = format!("load {option} --config {}", config.display());
        let words: Vec<_> = words.split_whitespace().collect();
        let mut command = command();
        command.args(words).env("STATE_DIRECTORY", testbed.state());
        CliOutput::new(testbed.on_host(|| command.output().expect("running breaker")))
    };
    load_with("").expect_exit(2);
    load_with("--last-if-invalid").expect_exit(0).expect_stderr("was in force before, and is loaded from");
    assert_eq!(status(&testbed)["policy"]["sha256"], hash);
    assert_eq!(causes(&testbed, "session/x1"), ["manual"]);
    // The agent does the same.
    remove_pins(&testbed);
    let mut agent = command();
    agent.args(["agent", "--config"]).arg(&config).env("STATE_DIRECTORY", testbed.state());
    let mut agent = spawn_agent(&testbed, agent);
    assert_eq!(status(&testbed)["policy"]["sha256"], hash);
    assert_eq!(causes(&testbed, "session/x1"), ["manual"]);
    agent.kill().expect("killing it");
    agent.wait().expect("its end");
    assert!(log_contains(&testbed, "policy_refused", "", ""));
    // After an `unload` no policy is in force, so there is none to load again.
    testbed.cli("unload --force").expect_exit(0);
    load_with("--last-if-invalid").expect_exit(2);
}

/// Detaches every link of the load. Removed pins alone detach nothing while the agent holds the links open.
fn detach(testbed: &Testbed) {
    testbed.with_breaker(|breaker| {
        breaker.attach_points().expect("places").iter().try_for_each(attach::detach).expect("detaching");
    });
}

#[test]
fn a_total_continues_after_an_unload_and_a_load() {
    require_root!();
    let testbed = Testbed::unloaded(
        "[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n\
         limits = [{ class = \"order\", max = 5, per = \"total\" }]\n",
    );
    let sink = testbed.listen(9001);
    load(&testbed);
    let send = |count: u32| {
        let mut stream = testbed.connect(9001);
        for number in 0..count {
            if stream.write_all(&order(number)).is_err() {
                break;
            }
            sleep(Duration::from_millis(2));
        }
        sleep(Duration::from_millis(100));
    };
    send(3);
    testbed.cli("unload").expect_exit(0);
    load(&testbed);
    assert_eq!(scope(&status(&testbed), "session/x1")["limits"][0]["used"], 3);
    send(9);
    let crossed: usize = sink.received().iter().map(|found| found.count("D")).sum();
    assert_eq!(crossed, 5);
    assert_eq!(causes(&testbed, "session/x1"), ["rate"]);
}

#[test]
fn a_connection_older_than_a_trip_and_a_reset_is_fenced_by_the_next_load_too() {
    use breaker_tests::frame::Frame;
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    load(&testbed);
    let from: std::net::SocketAddr = "10.9.0.1:4000".parse().expect("an address");
    let segment = |port: u16, seq: u32, payload: &[u8]| {
        Frame::new(from, TwoHosts::venue_socket(port), seq, payload).bytes()
    };
    let syn = |port: u16| Frame::new(from, TwoHosts::venue_socket(port), 999, b"").with_flags(2).bytes();
    let (one, two) = (order(1), order(2));
    for port in [9001, 9002] {
        testbed.inject_frames(&[syn(port), segment(port, 1_000, &one)]);
    }
    testbed.trip("session/x1");
    testbed.reset("session/x1");
    testbed.cli("unload").expect_exit(0);
    load(&testbed);
    for port in [9001, 9002] {
        testbed.inject_frames(&[segment(port, 1_000 + one.len() as u32, &two)]);
    }
    let found = status(&testbed);
    let packets = |name: &str| {
        let sessions = found["sessions"].as_array().expect("sessions");
        let session = sessions.iter().find(|session| session["name"] == name).expect("a session");
        (session["packets"]["passed"].as_u64(), session["packets"]["withheld"].as_u64())
    };
    assert_eq!(packets("x1"), (Some(0), Some(1)), "older than the reset");
    assert_eq!(packets("x2"), (Some(1), Some(0)), "nothing of it has ever tripped");
}
