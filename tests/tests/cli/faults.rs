//! One system call of a verb fails, whichever: nothing is done that the log does not tell of, and nothing is said to be done that is not.

use std::path::Path;
use std::process::Command;

use breaker_tests::privileged;
use breaker_tests::rig::{PINS, Rig, binary};

use super::host::{Host, POLICY, Said, scope};

/// The calls, and which of them in their turn: those that come before, at and after the deed.
const CALLS: [&str; 6] = ["bpf", "mmap", "openat", "write", "fsync", "fdatasync"];
const TURNS: [u32; 12] = [1, 2, 3, 5, 8, 12, 17, 23, 30, 36, 41, 48];

/// Runs a verb, of which one system call fails. `None` where there are fewer of that call.
fn failing(rig: &Rig, call: &str, turn: u32, words: &str) -> Option<Said> {
    let trace = rig.config().with_file_name("trace");
    let ran = rig.inside(|| {
        Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&trace)
            .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error=ENOMEM:when={turn}")])
            .arg(binary())
            .envs(PINS)
            .args(words.split(' '))
            .output()
    });
    let said = Said::of(ran.expect("running strace"));
    std::fs::read_to_string(trace).expect("the trace").contains("(INJECTED)").then_some(said)
}

/// The kinds of lines that the log has.
fn kinds(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let kind = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["kind"].as_str().map(str::to_owned)
    };
    text.lines().filter_map(kind).collect()
}

/// Fails every call of a verb in its turn. `prepare` comes before each, `done` tells whether it was done.
fn never_unseen(rig: &Rig, verb: &str, kind: &str, prepare: impl Fn(), done: impl Fn() -> bool) {
    let mut failed = 0;
    for (call, turn) in CALLS.into_iter().flat_map(|call| TURNS.map(|turn| (call, turn))) {
        prepare();
        let before = kinds(&rig.audit()).len();
        let Some(said) = failing(rig, call, turn, verb) else { continue };
        let told = kinds(&rig.audit()).split_off(before);
        let what = format!("{verb}, {call} {turn}: {said:?}, in the log: {told:?}");
        let noted = told.iter().any(|found| found == kind);
        if done() {
            assert!(noted, "done and not in the log: {what}");
        } else {
            assert_ne!(said.code, Some(0), "not done: {what}");
            // A process that finds no memory at all has no further word.
            let corrected = told.last().is_some_and(|last| last != kind);
            assert!(
                !noted || corrected || said.code.is_none(),
                "not done, and the log says that it was: {what}"
            );
        }
        failed += 1;
    }
    assert!(failed > 10, "{verb}: only {failed} calls");
}

#[test]
fn a_verb_of_which_a_system_call_fails_does_nothing_unseen() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let load = format!("load --config {}", rig.config().display());
    let loaded = || rig.inside(|| Rig::root().exists());
    let unloaded = || {
        if loaded() {
            rig.types("unload --force").expect_exit(0);
        }
    };
    never_unseen(&rig, &load, "loaded", unloaded, loaded);
    let reloaded = || {
        if !loaded() {
            rig.load();
        }
    };
    never_unseen(&rig, "unload --force", "unloaded", reloaded, || !loaded());
    reloaded();
    let state = |key: &str| {
        rig.types("status --json").json()["scopes"]
            .as_array()
            .map(|_| scope(&rig.types("status --json").json(), "session/x1")[key].clone())
    };
    never_unseen(
        &rig,
        "reset session/x1 --reason x",
        "reset",
        || rig.trip("session/x1"),
        || state("tripped") == Some(false.into()),
    );
    rig.types("reset session/x1 --reason x --force");
    let arm = || drop(rig.switch("arm", "session/x1").expect_exit(0));
    never_unseen(&rig, "disarm session/x1 --reason x", "disarmed", arm, || {
        state("armed") == Some(false.into())
    });
    arm();
    // A trip is made first. Where it could not be, it does not say that it was.
    for (call, turn) in CALLS.into_iter().flat_map(|call| TURNS.map(|turn| (call, turn))) {
        rig.types("reset session/x1 --reason x");
        let Some(said) = failing(&rig, call, turn, "trip session/x1 --reason x") else { continue };
        let tripped = state("tripped") == Some(true.into());
        assert!(tripped || said.code != Some(0), "{call} {turn}: {said:?}");
    }
}

#[test]
fn a_reload_of_which_a_system_call_fails_does_nothing_unseen() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let text = std::fs::read_to_string(rig.config()).expect("the configuration");
    let other = rig.configure("other.toml", &text.replace("max = 5,", "max = 4,"));
    let verb = format!("reload --config {}", other.display());
    let back = || drop(rig.types(&format!("reload --config {}", rig.config().display())).expect_exit(0));
    let most = || scope(&rig.types("status --json").json(), "session/x1")["limits"][0]["max"].clone();
    never_unseen(&rig, &verb, "policy_changed", back, || most() == 4);
}
