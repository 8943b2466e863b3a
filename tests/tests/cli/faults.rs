//! A failing system call in a verb: no action is missing in the log, and none is reported that was not done.

use std::path::Path;
use std::process::Command;

use breaker_tests::cli::scope;
use breaker_tests::command::{CliOutput, PIN_ENVIRONMENT, binary};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::POLICY;

/// The system calls, and the numbers of the calls that fail: before, at and after the action.
const CALLS: [&str; 6] = ["bpf", "mmap", "openat", "write", "fsync", "fdatasync"];
const TURNS: [u32; 12] = [1, 2, 3, 5, 8, 12, 17, 23, 30, 36, 41, 48];

/// Runs a verb with one failing system call. Returns `None` if the verb makes fewer such calls.
fn failing(testbed: &Testbed, call: &str, turn: u32, words: &str) -> Option<CliOutput> {
    let trace = testbed.config().with_file_name("trace");
    let ran = testbed.on_host(|| {
        Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&trace)
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error=ENOMEM:when={turn}")])
            .arg(binary())
            .envs(PIN_ENVIRONMENT)
            .args(words.split(' '))
            .output()
    });
    let output = CliOutput::new(ran.expect("running strace"));
    std::fs::read_to_string(trace).expect("the trace").contains("(INJECTED)").then_some(output)
}

/// The kinds of the lines in the log.
fn kinds(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let kind = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["kind"].as_str().map(str::to_owned)
    };
    text.lines().filter_map(kind).collect()
}

/// Fails each system call of a verb in turn. `prepare` runs before each; `done` returns whether the action
/// was done.
fn never_unseen(testbed: &Testbed, verb: &str, kind: &str, prepare: impl Fn(), done: impl Fn() -> bool) {
    let mut failed = 0;
    for (call, turn) in CALLS.into_iter().flat_map(|call| TURNS.map(|turn| (call, turn))) {
        prepare();
        let before = kinds(&testbed.audit()).len();
        let Some(output) = failing(testbed, call, turn, verb) else { continue };
        let logged = kinds(&testbed.audit()).split_off(before);
        let what = format!("{verb}, {call} {turn}: {output:?}, in the log: {logged:?}");
        let is_logged = logged.iter().any(|found| found == kind);
        if done() {
            assert!(is_logged, "done and not in the log: {what}");
        } else {
            assert_ne!(output.exit_code, Some(0), "not done: {what}");
            // A process without any memory cannot log the failure.
            let corrected = logged.last().is_some_and(|last| last != kind);
            assert!(
                !is_logged || corrected || output.exit_code.is_none(),
                "not done, and the log says that it was: {what}"
            );
        }
        failed += 1;
    }
    assert!(failed > 10, "{verb}: only {failed} calls");
}

#[test]
fn a_verb_with_a_failing_system_call_does_nothing_unlogged() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let load = format!("load --config {}", testbed.config().display());
    let loaded = || testbed.on_host(|| Testbed::root().exists());
    let unloaded = || {
        if loaded() {
            testbed.cli("unload --force").expect_exit(0);
        }
    };
    never_unseen(&testbed, &load, "loaded", unloaded, loaded);
    let reloaded = || {
        if !loaded() {
            testbed.load_cli();
        }
    };
    never_unseen(&testbed, "unload --force", "unloaded", reloaded, || !loaded());
    reloaded();
    let state = |key: &str| {
        testbed.cli("status --json").json()["scopes"]
            .as_array()
            .map(|_| scope(&testbed.cli("status --json").json(), "session/x1")[key].clone())
    };
    never_unseen(
        &testbed,
        "reset session/x1 --reason x",
        "reset",
        || testbed.trip("session/x1"),
        || state("tripped") == Some(false.into()),
    );
    testbed.cli("reset session/x1 --reason x --force");
    let arm = || drop(testbed.switch("arm", "session/x1").expect_exit(0));
    never_unseen(&testbed, "disarm session/x1 --reason x", "disarmed", arm, || {
        state("armed") == Some(false.into())
    });
    arm();
    // A trip is done first. If it failed, the output does not claim it.
    for (call, turn) in CALLS.into_iter().flat_map(|call| TURNS.map(|turn| (call, turn))) {
        testbed.cli("reset session/x1 --reason x");
        let Some(output) = failing(&testbed, call, turn, "trip session/x1 --reason x") else { continue };
        let tripped = state("tripped") == Some(true.into());
        assert!(tripped || output.exit_code != Some(0), "{call} {turn}: {output:?}");
    }
}

#[test]
fn a_reload_with_a_failing_system_call_does_nothing_unlogged() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let other = testbed.write_config("other.toml", &text.replace("max = 5,", "max = 4,"));
    let verb = format!("reload --config {}", other.display());
    let back =
        || drop(testbed.cli(&format!("reload --config {}", testbed.config().display())).expect_exit(0));
    let most = || scope(&testbed.cli("status --json").json(), "session/x1")["limits"][0]["max"].clone();
    never_unseen(&testbed, &verb, "policy_changed", back, || most() == 4);
}
