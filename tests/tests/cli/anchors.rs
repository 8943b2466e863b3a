//! The anchors of the audit log: META, the state file, the metrics and the journal record its last line.
//! `audit verify` therefore detects missing lines at the end of the log.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use breaker_tests::agent::{Agent, metrics};
use breaker_tests::cli::argument;
use breaker_tests::command;
use breaker_tests::require_root;
use breaker_tests::testbed::{Testbed, wait_for};
use breaker_user::audit::{self, Line};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use super::POLICY;

/// Returns the path of the anchor in the directory of the log.
fn side_file(testbed: &Testbed) -> PathBuf {
    testbed.audit().with_file_name(".audit.jsonl.end")
}

/// Reads the log and the anchor in its directory.
fn snapshot(testbed: &Testbed) -> [(PathBuf, Vec<u8>); 2] {
    [testbed.audit(), side_file(testbed)].map(|path| (path.clone(), std::fs::read(path).expect("a file")))
}

/// Writes the files of a snapshot.
fn restore(files: &[(PathBuf, Vec<u8>)]) {
    files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).expect("writing"));
}

/// Makes a host with four lines in its log. Returns the host and a snapshot of the first three lines.
fn four_lines() -> (Testbed, [(PathBuf, Vec<u8>); 2]) {
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    testbed.switch("disarm", "session/x1").expect_exit(0);
    testbed.switch("arm", "session/x1").expect_exit(0);
    let three = snapshot(&testbed);
    testbed.trip("session/x1");
    (testbed, three)
}

#[test]
fn each_anchor_agrees_with_an_unchanged_log() {
    require_root!();
    let (testbed, _) = four_lines();
    let found = testbed.cli("audit verify --json").expect_exit(0).json();
    let anchors = found["anchors"].as_array().expect("anchors");
    assert_eq!(anchors.len(), 2, "{found}");
    assert!(anchors.iter().all(|anchor| anchor["result"] == "agrees" && anchor["seq"] == 4), "{found}");
    let text = testbed.cli("audit verify").expect_exit(0).stdout;
    assert!(text.contains("; it agrees with META of ") && text.contains(", the state file "), "{text}");
    // The anchors also agree after a rotation by rename and after one by truncation.
    std::fs::rename(testbed.audit(), testbed.audit().with_extension("jsonl.1")).expect("rotating");
    testbed.cli("audit verify").expect_exit(0);
    testbed.reset("session/x1");
    std::fs::copy(testbed.audit(), testbed.audit().with_extension("jsonl.2")).expect("copying");
    std::fs::File::create(testbed.audit()).expect("truncating");
    testbed.cli("audit verify").expect_exit(0);
    testbed.trip("session/x1");
    let found = testbed.cli("audit verify --json").expect_exit(0).json();
    assert_eq!((&found["lines"], &found["first"]), (&6.into(), &1.into()), "{found}");
    // The metric is an anchor too, because the scraper stores the number on another host.
    let agent = Agent::start(&testbed);
    let seq =
        || metrics(&testbed).lines().find_map(|line| line.strip_prefix("breaker_audit_seq ")?.parse().ok());
    wait_for("the line of the agent's start", || (seq() >= Some(7u64)).then_some(()));
    agent.stop();
    testbed.cli("audit verify").expect_exit(0);
}

#[test]
fn missing_last_lines_are_detected_although_the_anchor_file_agrees() {
    require_root!();
    let (testbed, three) = four_lines();
    restore(&three);
    let cut = "has line number 4, and the log ends with line number 3: lines were cut off its end";
    let output = testbed.cli("audit verify").expect_exit(1);
    assert!(output.stderr.contains(&format!("META of /sys/fs/bpf/breaker {cut}")), "{output:?}");
    assert!(
        output.stderr.contains("the state file ") && output.stderr.matches(cut).count() == 2,
        "{output:?}"
    );
    // META still detects the missing line if the state directory is empty.
    let state = testbed.state();
    testbed.shell(&format!("mkdir -p {}/empty", state.display()));
    testbed.cli(&format!("audit verify --state {}/empty", state.display())).expect_exit(1);
    // After the next line the chain itself shows the gap, even if the anchors agree again.
    testbed.switch("arm", "session/x2").expect_exit(0);
    let output = testbed.cli("audit verify").expect_exit(1);
    output.expect_stderr("line 4: its `prev` does not match the line before");
    let last: Line = std::fs::read_to_string(testbed.audit())
        .expect("the log")
        .lines()
        .next_back()
        .and_then(|line| serde_json::from_str(line).ok())
        .expect("a line");
    assert_eq!(last.seq, 5, "no number is given twice");
}

#[test]
fn without_a_load_the_state_file_is_an_anchor() {
    require_root!();
    let (testbed, three) = four_lines();
    testbed.cli("unload --force").expect_exit(0);
    let log = testbed.audit();
    let verify = format!("audit verify --audit {} --state {}", argument(&log), testbed.state().display());
    testbed.cli(&verify).expect_exit(0);
    restore(&three);
    testbed
        .cli(&verify)
        .expect_exit(1)
        .expect_stderr("has line number 5, and the log ends with line number 3");
}

#[test]
fn a_last_line_replaced_by_a_valid_line_is_detected() {
    require_root!();
    let (testbed, three) = four_lines();
    let text = std::fs::read_to_string(testbed.audit()).expect("the log");
    let mut entry =
        serde_json::from_str::<Line>(text.lines().next_back().expect("a line")).expect("an event").entry;
    restore(&three);
    entry.reason = Some("it was somebody else".to_owned());
    audit::append(&testbed.audit(), &[entry]).expect("forging");
    audit::verify(&testbed.audit()).expect("a chain that is valid by itself");
    let output = testbed.cli("audit verify").expect_exit(1);
    output.expect_stderr("META of /sys/fs/bpf/breaker has line number 4 with SHA-256 ");
    testbed.switch("arm", "session/x2").expect_exit(0);
    testbed.cli("audit verify").expect_exit(1).expect_stderr("line 5: its `prev` does not match");
}

#[test]
fn a_removed_log_continues_with_the_next_number() {
    require_root!();
    let (testbed, _) = four_lines();
    for file in [testbed.audit(), side_file(&testbed)] {
        std::fs::remove_file(file).expect("removing it");
    }
    testbed.cli("audit verify").expect_exit(1);
    testbed.reset("session/x1");
    let found = testbed.cli("audit verify --json").expect_exit(0).json();
    assert_eq!((&found["first"], &found["lines"]), (&5.into(), &1.into()), "{found}");
}

/// Binds a socket in place of journald's in the mount namespace of the host.
fn bind_journald(testbed: &Testbed) -> UnixDatagram {
    testbed.on_host(|| {
        mount("none", "/run", "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
        std::fs::create_dir_all("/run/systemd/journal").expect("a directory");
        let socket = UnixDatagram::bind("/run/systemd/journal/socket").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        socket
    })
}

/// Receives the next message and returns its fields. The values have no newlines.
fn receive(socket: &UnixDatagram) -> HashMap<String, String> {
    let mut bytes = [0; 16 << 10];
    let length = socket.recv(&mut bytes).expect("a message");
    let text = String::from_utf8(bytes[..length].to_vec()).expect("UTF-8");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn journald_gets_the_entries_that_the_log_cannot_store_and_the_log_gets_them_later() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let journald = bind_journald(&testbed);
    testbed.load_cli();
    let agent = Agent::start(&testbed);
    let anchor = receive(&journald);
    assert_eq!(anchor["BREAKER_AUDIT_LOG"], argument(&testbed.audit()), "{anchor:?}");
    let text = std::fs::read_to_string(testbed.audit()).expect("the log");
    let seq: usize = anchor["BREAKER_AUDIT_SEQ"].parse().expect("a number");
    let line = text.lines().nth(seq - 1).expect("that line");
    let sum =
        testbed.shell(&format!("sed -n {seq}p {} | tr -d '\\n' | sha256sum", testbed.audit().display()));
    assert_eq!(sum.split(' ').next(), Some(&anchor["BREAKER_AUDIT_HASH"][..]), "{line}");

    // A directory at the path of the log makes every write fail.
    let agent_started =
        || std::fs::read_to_string(testbed.audit()).is_ok_and(|text| text.contains("agent_started"));
    wait_for("its start in the log", || agent_started().then_some(()));
    let kept = testbed.audit().with_extension("kept");
    std::fs::rename(testbed.audit(), &kept).expect("moving it away");
    std::fs::create_dir(testbed.audit()).expect("a directory in its place");
    let output = testbed.switch("trip", "session/x1").expect_exit(0);
    assert!(output.stderr.contains("journald has it: "), "{output:?}");
    let found = receive(&journald);
    assert_eq!((&found["BREAKER_KIND"][..], &found["BREAKER_SCOPE"][..]), ("tripped", "session/x1"));
    assert_eq!((&found["BREAKER_REASON"][..], &found["PRIORITY"][..]), ("test", "4"));
    // A refused configuration makes the agent write a line itself.
    std::fs::write(testbed.config(), "").expect("an empty file");
    agent.signal(rustix::process::Signal::HUP);
    let found = loop {
        let found = receive(&journald);
        if found.get("BREAKER_KIND").is_some_and(|kind| kind == "policy_refused") {
            break found;
        }
    };
    assert_eq!(found["BREAKER_SCOPE"], "-");
    let pending = || {
        metrics(&testbed).lines().find_map(|line| line.strip_prefix("breaker_audit_pending ")?.parse().ok())
    };
    wait_for("entries in memory", || (pending() >= Some(1u64)).then_some(()));

    std::fs::remove_dir(testbed.audit()).expect("removing the directory");
    std::fs::rename(&kept, testbed.audit()).expect("moving it back");
    wait_for("an empty queue", || (pending() == Some(0)).then_some(()));
    let lines = std::fs::read_to_string(testbed.audit()).expect("the log");
    assert_eq!(lines.matches("policy_refused").count(), 1, "{lines}");
    agent.stop();
    testbed.cli("audit verify").expect_exit(0);
}

#[test]
fn an_anchor_in_the_journal_is_compared() {
    require_root!();
    let (testbed, _) = four_lines();
    let bin = testbed.state().join("bin");
    std::fs::create_dir(&bin).expect("a directory");
    let verify = |hash: &str, seq: u64| {
        let record = format!("{{\"BREAKER_AUDIT_SEQ\":\"{seq}\",\"BREAKER_AUDIT_HASH\":\"{hash}\"}}");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *BREAKER_AUDIT_LOG={}*_UID=0*) echo '{record}';; esac\n",
            testbed.audit().display()
        );
        std::fs::write(bin.join("journalctl"), script).expect("a program");
        testbed.shell(&format!("chmod +x {}/journalctl", bin.display()));
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
        let run = || command::command().args(["audit", "verify", "--json"]).env("PATH", &path).output();
        command::CliOutput::new(testbed.on_host(run).expect("running breaker"))
    };
    let last = testbed.cli("audit verify --json").expect_exit(0).json()["hash"].clone();
    let last = last.as_str().expect("a hash");
    let found = verify(last, 4).expect_exit(0).json();
    let sources: Vec<&Value> =
        found["anchors"].as_array().expect("anchors").iter().map(|anchor| &anchor["source"]).collect();
    assert!(sources.contains(&&"journald".into()), "{found}");
    verify(last, 9)
        .expect_exit(1)
        .expect_stderr("journald has line number 9, and the log ends with line number 4");
    verify(last, 2).expect_exit(1).expect_stderr("journald has line number 2 with SHA-256 ");
}
