//! `trip`, `reset`, `arm`, `disarm`: what they print is what the kernel then has, and nothing keeps a trip from being one.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::privileged;
use breaker_tests::rig::{self, Rig};
use breaker_user::kernel::Reset;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, mount, mount_remount};
use serde_json::json;

use super::host::{Host, POLICY, Said, scope};

#[test]
fn each_verb_prints_the_state_read_back() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    for (verb, armed, tripped, epoch, code) in [
        ("disarm", false, false, 0, 11),
        ("trip", false, true, 1, 10),
        ("arm", true, true, 1, 10),
        ("trip", true, true, 2, 10),
        ("reset", true, false, 3, 0),
    ] {
        let said = rig.types(&format!("{verb} session/x1 --reason test --json")).expect_exit(0);
        assert_eq!(said.err, "");
        let printed = said.json();
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
        let status = rig.types("status --json").expect_exit(code).json();
        assert_eq!(printed["scope"], *scope(&status, "session/x1"), "{verb}");
        assert_eq!(
            rig.breaker(|breaker| breaker.switch(breaker.find("session/x1")?)).expect("a switch").epoch,
            epoch
        );
    }
    let said = rig.switch("trip", "group/desk").expect_exit(0);
    assert_eq!(said.out, "group/desk: TRIPPED (manual), armed, epoch 1; connections ended: 0\n");
    let said = rig.switch("reset", "group/desk").expect_exit(0);
    let expected = "group/desk: not tripped, armed, epoch 2; connections fenced: 0, and what they had queued is dead; connections ended: 0\n";
    assert!(said.out.starts_with(expected), "{said:?}");
    for way in ["PossDupFlag=Y", "sequence reset", "possdup = \"pass\""] {
        assert!(said.out.contains(way), "{said:?}");
    }
    assert_eq!(rig.switch("disarm", "host").expect_exit(0).out, "host: not tripped, DISARMED, epoch 0\n");
}

#[test]
fn a_reset_does_not_undo_a_trip_that_it_has_not_seen() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.breaker(|breaker| {
        let scope = breaker.find("session/x1").expect("a scope");
        breaker.trip(scope, 1).expect("tripping");
        let seen = breaker.switch(scope).expect("looking");
        breaker.trip(scope, 1).expect("tripping again, for the same cause");
        let before = breaker.scope(scope).expect("looking");
        assert_eq!(breaker.reset(scope, seen).expect("resetting"), Reset::Refused);
        assert_eq!(breaker.scope(scope).expect("looking"), before, "a reset that is refused changes nothing");
        let now = breaker.switch(scope).expect("looking");
        assert_eq!(now.causes, 1);
        assert_eq!(breaker.reset(scope, now).expect("resetting"), Reset::Done);
        assert_eq!(breaker.switch(scope).expect("looking").causes, 0);
    });
}

#[test]
fn a_trip_works_with_no_disk_for_its_log_and_says_so_and_a_reset_waits_for_one() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let log = rig.config().with_file_name("log");
    std::fs::create_dir(&log).expect("a directory");
    let text = std::fs::read_to_string(rig.config()).expect("the configuration");
    let text =
        text.replace(&rig.audit().display().to_string(), &log.join("audit.jsonl").display().to_string());
    let config = rig.configure("log.toml", &text);
    rig.inside(|| mount("tmpfs", &log, "tmpfs", MountFlags::empty(), Some(c"size=1m")))
        .expect("a small disk");
    rig.types(&format!("load --config {}", config.display())).expect_exit(0);
    let fill = || rig.shell(&format!("cat /dev/zero > {}/full 2> /dev/null || true", log.display()));
    fill();
    // What is left of the page that the log has begun is used first.
    let mut full = false;
    for _ in 0..40 {
        let said = rig.switch("trip", "session/x1").expect_exit(0);
        assert!(said.out.contains("session/x1: TRIPPED (manual)"), "{said:?}");
        full = said.err.contains("No space left on device");
        if full {
            assert!(said.err.starts_with("breaker: the audit log was not written: "), "{said:?}");
            assert!(
                said.err.contains("note by hand: ") && said.err.contains(" tripped session/x1 by "),
                "{said:?}"
            );
            break;
        }
    }
    assert!(full, "the disk was not full");
    let refused = "the audit log cannot be written (setting room aside in";
    rig.switch("reset", "session/x1").expect_exit(4).because(refused).because("No space left on device");
    assert_eq!(scope(&rig.types("status --json").expect_exit(10).json(), "session/x1")["tripped"], true);
    // Nothing that is let loose, or changed at all, goes unseen.
    for verb in ["disarm session/x2 --reason x", "arm session/x2 --reason x", "unload --force"] {
        rig.types(verb)
            .expect_exit(4)
            .because("the audit log cannot be written (")
            .because("No space left on device");
    }
    rig.types(&format!("load --pin-root /sys/fs/bpf/other --config {}", config.display()))
        .expect_exit(4)
        .because("No space left on device");
    assert_eq!(scope(&rig.types("status --json").expect_exit(10).json(), "session/x2")["armed"], true);
    rig.shell(&format!("rm {}/full", log.display()));
    let said = rig.switch("reset", "session/x1").expect_exit(0);
    assert_eq!(said.err, "");
    // Half a line was never left behind.
    rig.types("audit verify").expect_exit(0);

    rig.inside(|| mount_remount(&log, MountFlags::RDONLY, c"")).expect("making it read-only");
    let said = rig.switch("trip", "session/x1").expect_exit(0);
    assert!(said.err.contains("Read-only file system"), "{said:?}");
    rig.switch("reset", "session/x1").expect_exit(4).because("Read-only file system");
    rig.types("unload --force").expect_exit(4).because("Read-only file system");
    rig.inside(|| mount_remount(&log, MountFlags::empty(), c"")).expect("making it writable");
    rig.types("unload --force").expect_exit(0);
    rig.is_clean();
}

#[test]
fn a_trip_does_not_wait_for_whoever_holds_the_log() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    let log = File::open(rig.audit()).expect("the log");
    flock(&log, FlockOperation::LockExclusive).expect("locking it");
    let start = Instant::now();
    let said = rig.switch("trip", "session/x1").expect_exit(0);
    assert!(said.err.contains("another process has held its lock for 50ms"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
    let lines =
        || std::fs::read_to_string(rig.audit()).expect("the log").matches("\"kind\":\"tripped\"").count();
    assert_eq!(lines(), 0);
    drop(log);
    // Its line comes when the log is free.
    while lines() == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "the line did not come");
        sleep(Duration::from_millis(10));
    }
    assert_eq!(rig.switch("trip", "session/x1").expect_exit(0).err, "");
    rig.types("audit verify").expect_exit(0);
}

#[test]
fn a_trip_with_nobody_listening_is_a_trip() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    // The log cannot be written, so that there is something to say on standard error, which is as closed as standard output.
    std::fs::create_dir(rig.audit()).expect("a directory where the log should be");
    let deaf = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let ran = rig.inside(|| {
        let mut command = rig::command();
        command.args(["trip", "session/x1", "--reason", "x"]).stdout(deaf()).stderr(deaf()).status()
    });
    assert_eq!(ran.expect("running breaker").code(), Some(0));
    rig.types("status").expect_exit(10);
    // The same where there is nothing to write to at all.
    let full = || {
        Stdio::from(
            File::create("/dev/full").expect("/dev/full").as_fd().try_clone_to_owned().expect("a copy"),
        )
    };
    let ran =
        rig.inside(|| rig::command().args(["trip", "session/x2", "--reason", "x"]).stdout(full()).output());
    Said::of(ran.expect("running breaker"))
        .expect_exit(1)
        .because("writing to standard output: No space left on device");
    assert_eq!(scope(&rig.types("status --json").expect_exit(10).json(), "session/x2")["tripped"], true);
    // That it does not hold is told by its code also then.
    rig.shell("rm /sys/fs/bpf/breaker/link_0");
    let ran = rig.inside(|| rig::command().args(["trip", "session/x1"]).stdout(deaf()).status());
    assert_eq!(ran.expect("running breaker").code(), Some(8));
}

#[test]
fn a_trip_takes_any_reason_and_tells_what_it_made_of_it() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
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
        let ran = rig.inside(|| rig::command().args(["trip", "session/x1"]).args(reason).output());
        let said = Said::of(ran.expect("running breaker")).expect_exit(0);
        assert_eq!((said.out.contains("TRIPPED (manual)"), said.err.as_str()), (true, ""), "{said:?}");
        let log = std::fs::read_to_string(rig.audit()).expect("the log");
        let line: serde_json::Value =
            serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        assert_eq!((&line["kind"], &line["reason"]), (&json!("tripped"), &json!(noted)));
        assert_eq!(line["counts"]["reason_replaced"].as_str(), found);
        assert_eq!(found.is_some_and(|found| said.out.contains(found)), found.is_some(), "{said:?}");
        rig.switch("reset", "session/x1").expect_exit(0);
    }
}

#[test]
fn no_verb_needs_or_starts_a_process() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.load();
    for (verb, code) in [("disarm", 11), ("arm", 0), ("trip", 10), ("reset", 0)] {
        rig.switch(verb, "session/x1").expect_exit(0);
        let status = rig.types("status --json").expect_exit(code).json();
        assert_eq!(status["agent"], json!({ "running": false, "heartbeat_age_ms": null }));
    }
    let said = rig.types("status").expect_exit(0);
    assert!(said.out.contains("agent   none since the load; enforcement needs none"), "{said:?}");
}
