//! `trip`, `reset`, `arm`, `disarm`: their output is the state read back from the kernel, and nothing
//! prevents a trip.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::cli::scope;
use breaker_tests::command::{self, CliOutput};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::Reset;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, mount, mount_remount};
use serde_json::json;

use super::POLICY;

#[test]
fn each_verb_prints_the_state_read_back() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    for (verb, armed, tripped, epoch, code) in [
        ("disarm", false, false, 0, 11),
        ("trip", false, true, 1, 10),
        ("arm", true, true, 1, 10),
        ("trip", true, true, 2, 10),
        ("reset", true, false, 3, 0),
    ] {
        let output = testbed.cli(&format!("{verb} session/x1 --reason test --json")).expect_exit(0);
        assert_eq!(output.stderr, "");
        let printed = output.json();
        let causes = if tripped { json!(["manual"]) } else { json!([]) };
        for (key, expected) in [
            ("scope", json!("session/x1")),
            ("armed", json!(armed)),
            ("tripped", json!(tripped)),
            ("causes", causes),
            ("epoch", json!(epoch)),
        ] {
            assert_eq!(printed["scope"][key], expected, "{verb} {key}");
        }
        let status = testbed.cli("status --json").expect_exit(code).json();
        assert_eq!(printed["scope"], *scope(&status, "session/x1"), "{verb}");
        assert_eq!(
            testbed
                .with_breaker(|breaker| breaker.switch(breaker.find("session/x1")?))
                .expect("a switch")
                .epoch,
            epoch
        );
    }
    let output = testbed.switch("trip", "group/desk").expect_exit(0);
    let expected = "group/desk: TRIPPED (manual), armed, epoch 1; connections ended: 0\n\
                    the trip of group/desk:\n";
    assert!(output.stdout.starts_with(expected), "{output:?}");
    let output = testbed.switch("reset", "group/desk").expect_exit(0);
    let expected = "group/desk: not tripped, armed, epoch 2; connections fenced: 0, and their queued \
                    orders will never pass; connections ended: 0\n";
    assert!(output.stdout.starts_with(expected), "{output:?}");
    for way in ["PossDupFlag=Y", "sequence reset", "possdup = \"pass\""] {
        assert!(output.stdout.contains(way), "{output:?}");
    }
    assert_eq!(
        testbed.switch("disarm", "host").expect_exit(0).stdout,
        "host: not tripped, DISARMED, epoch 0\n"
    );
}

#[test]
fn a_reset_does_not_undo_a_trip_that_it_has_not_seen() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed.with_breaker(|breaker| {
        let scope = breaker.find("session/x1").expect("a scope");
        breaker.trip(scope, 1).expect("tripping");
        let seen = breaker.switch(scope).expect("reading the switch");
        breaker.trip(scope, 1).expect("tripping again, for the same cause");
        let before = breaker.scope(scope).expect("reading the switch");
        assert_eq!(breaker.reset(scope, seen, u64::MAX).expect("resetting"), Reset::Refused);
        assert_eq!(
            breaker.scope(scope).expect("reading the switch"),
            before,
            "a reset that is refused changes nothing"
        );
        let now = breaker.switch(scope).expect("reading the switch");
        assert_eq!(now.causes, 1);
        assert_eq!(breaker.reset(scope, now, u64::MAX).expect("resetting"), Reset::Done);
        assert_eq!(breaker.switch(scope).expect("reading the switch").causes, 0);
    });
}

#[test]
fn with_a_full_disk_a_trip_works_and_every_other_verb_is_refused() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let log = testbed.config().with_file_name("log");
    std::fs::create_dir(&log).expect("a directory");
    let text = std::fs::read_to_string(testbed.config()).expect("the configuration");
    let text =
        text.replace(&testbed.audit().display().to_string(), &log.join("audit.jsonl").display().to_string());
    let config = testbed.write_config("log.toml", &text);
    testbed
        .on_host(|| mount("tmpfs", &log, "tmpfs", MountFlags::empty(), Some(c"size=1m")))
        .expect("a small disk");
    testbed.cli(&format!("load --config {}", config.display())).expect_exit(0);
    let fill = || testbed.shell(&format!("cat /dev/zero > {}/full 2> /dev/null || true", log.display()));
    fill();
    // The log first fills its current page.
    let mut full = false;
    for _ in 0..40 {
        let output = testbed.switch("trip", "session/x1").expect_exit(0);
        assert!(output.stdout.contains("session/x1: TRIPPED (manual)"), "{output:?}");
        full = output.stderr.contains("No space left on device");
        if full {
            assert!(output.stderr.starts_with("breaker: the audit log was not written: "), "{output:?}");
            assert!(
                output.stderr.contains("record by hand: ")
                    && output.stderr.contains(" tripped session/x1 by "),
                "{output:?}"
            );
            break;
        }
    }
    assert!(full, "the disk was not full");
    let refused = "the audit log cannot be written (reserving space in";
    testbed
        .switch("reset", "session/x1")
        .expect_exit(4)
        .expect_stderr(refused)
        .expect_stderr("No space left on device");
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x1")["tripped"], true);
    // No loosening or other change is done without a log line.
    for verb in ["disarm session/x2 --reason x", "arm session/x2 --reason x", "unload --force"] {
        testbed
            .cli(verb)
            .expect_exit(4)
            .expect_stderr("the audit log cannot be written (")
            .expect_stderr("No space left on device");
    }
    testbed
        .cli(&format!("load --pin-root /sys/fs/bpf/other --config {}", config.display()))
        .expect_exit(4)
        .expect_stderr("No space left on device");
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x2")["armed"], true);
    testbed.shell(&format!("rm {}/full", log.display()));
    let output = testbed.switch("reset", "session/x1").expect_exit(0);
    assert_eq!(output.stderr, "");
    // No partial line was left.
    testbed.cli("audit verify").expect_exit(0);

    testbed.on_host(|| mount_remount(&log, MountFlags::RDONLY, c"")).expect("making it read-only");
    let output = testbed.switch("trip", "session/x1").expect_exit(0);
    assert!(output.stderr.contains("Read-only file system"), "{output:?}");
    testbed.switch("reset", "session/x1").expect_exit(4).expect_stderr("Read-only file system");
    testbed.cli("unload --force").expect_exit(4).expect_stderr("Read-only file system");
    testbed.on_host(|| mount_remount(&log, MountFlags::empty(), c"")).expect("making it writable");
    testbed.cli("unload --force").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_trip_does_not_wait_for_a_locked_log() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let log = File::open(testbed.audit()).expect("the log");
    flock(&log, FlockOperation::LockExclusive).expect("locking it");
    let start = Instant::now();
    let output = testbed.switch("trip", "session/x1").expect_exit(0);
    assert!(output.stderr.contains("another process has held its lock for 50ms"), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
    let lines =
        || std::fs::read_to_string(testbed.audit()).expect("the log").matches("\"kind\":\"tripped\"").count();
    assert_eq!(lines(), 0);
    drop(log);
    // The line is written when the log is free.
    while lines() == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "the line did not come");
        sleep(Duration::from_millis(10));
    }
    assert_eq!(testbed.switch("trip", "session/x1").expect_exit(0).stderr, "");
    testbed.cli("audit verify").expect_exit(0);
}

#[test]
fn a_trip_works_without_standard_output_and_error() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    // The log cannot be written, so that there is an error to report on the closed standard error.
    std::fs::create_dir(testbed.audit()).expect("a directory where the log should be");
    let deaf = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let ran = testbed.on_host(|| {
        let mut command = command::command();
        command.args(["trip", "session/x1", "--reason", "x"]).stdout(deaf()).stderr(deaf()).status()
    });
    assert_eq!(ran.expect("running breaker").code(), Some(0));
    testbed.cli("status").expect_exit(10);
    // The same with a standard output that is full.
    let full = || {
        Stdio::from(
            File::create("/dev/full").expect("/dev/full").as_fd().try_clone_to_owned().expect("a copy"),
        )
    };
    let ran = testbed
        .on_host(|| command::command().args(["trip", "session/x2", "--reason", "x"]).stdout(full()).output());
    CliOutput::new(ran.expect("running breaker"))
        .expect_exit(1)
        .expect_stderr("writing to standard output: No space left on device");
    assert_eq!(scope(&testbed.cli("status --json").expect_exit(10).json(), "session/x2")["tripped"], true);
    // The exit code reports that the trip is not enforced, also without output.
    testbed.shell("rm /sys/fs/bpf/breaker/link_0");
    let ran = testbed.on_host(|| command::command().args(["trip", "session/x1"]).stdout(deaf()).status());
    assert_eq!(ran.expect("running breaker").code(), Some(8));
}

#[test]
fn a_trip_takes_any_reason_and_reports_its_changes() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    let long = "x".repeat(100_000);
    for (reason, noted, found) in [
        (&[][..], "no reason given", Some("it is missing")),
        (&[OsStr::new("--reason")], "no reason given", Some("it is empty")),
        (&[OsStr::new("--reason"), OsStr::new("")], "no reason given", Some("it is empty")),
        (
            &[OsStr::new("--reason"), OsStr::new(&long)],
            &long[..1000],
            Some("it has 100000 bytes, cut to 1000"),
        ),
        (&[OsStr::new("--reason"), OsStr::from_bytes(b"\xff!")], "\u{fffd}!", Some("it is not UTF-8")),
        (&[OsStr::new("--reason"), OsStr::new("-x")], "-x", None),
    ] {
        let ran = testbed.on_host(|| command::command().args(["trip", "session/x1"]).args(reason).output());
        let output = CliOutput::new(ran.expect("running breaker")).expect_exit(0);
        assert_eq!(
            (output.stdout.contains("TRIPPED (manual)"), output.stderr.as_str()),
            (true, ""),
            "{output:?}"
        );
        let log = std::fs::read_to_string(testbed.audit()).expect("the log");
        let line: serde_json::Value =
            serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        assert_eq!((&line["kind"], &line["reason"]), (&json!("tripped"), &json!(noted)));
        assert_eq!(line["counts"]["reason_replaced"].as_str(), found);
        assert_eq!(found.is_some_and(|found| output.stdout.contains(found)), found.is_some(), "{output:?}");
        testbed.switch("reset", "session/x1").expect_exit(0);
    }
}

#[test]
fn no_verb_needs_or_starts_a_process() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.load_cli();
    for (verb, code) in [("disarm", 11), ("arm", 0), ("trip", 10), ("reset", 0)] {
        testbed.switch(verb, "session/x1").expect_exit(0);
        let status = testbed.cli("status --json").expect_exit(code).json();
        assert_eq!(status["agent"], json!({ "running": false, "heartbeat_age_ms": null }));
    }
    let output = testbed.cli("status").expect_exit(0);
    assert!(output.stdout.contains("agent   none since the load; enforcement needs none"), "{output:?}");
}
