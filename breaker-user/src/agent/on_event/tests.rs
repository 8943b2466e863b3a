//! Tests of the queue, and of runs of real programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::process::Running;
use crate::agent::event_queue::EventQueue;
use crate::audit::{Actor, Entry, Line};
use crate::config::{EventKind, OnEvent};

const LIMIT: Duration = Duration::from_secs(20);

/// A directory of this test program for a program and what it writes.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("breaker-on-event-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("making a directory");
        Self(path)
    }

    fn program(&self, script: &str) -> OnEvent {
        let path = self.0.join("program");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writing a program");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("making it executable");
        on_event(&path, &["one", "two words", "$HOME"])
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that is left is in the way of nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn on_event(path: &Path, arguments: &[&str]) -> OnEvent {
    OnEvent {
        program: path.to_str().expect("UTF-8").parse().expect("a path"),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        kinds: vec![EventKind::Tripped, EventKind::Warned],
    }
}

fn entry(kind: &str, scope: &str, time: Timestamp) -> Entry {
    Entry {
        time,
        kind: kind.to_owned(),
        scope: Some(scope.to_owned()),
        cause: None,
        actor: Actor::kernel(),
        reason: Some("a \"reason\"".to_owned()),
        counts: json!({ "used": 501 }),
        policy: "p".to_owned(),
    }
}

fn line(seq: u64, kind: &str) -> Line {
    Line { seq, entry: entry(kind, "session/x1", Timestamp::now()), prev: "00".to_owned() }
}

#[test]
fn the_program_gets_the_event_and_its_arguments_without_a_shell() {
    let directory = Directory::new("input");
    let output = directory.0.display();
    let program = directory.program(&format!(
        "cat > {output}/event; printf '%s\\n' \"$@\" > {output}/arguments; env > {output}/env"
    ));
    Running::default().run(&program, r#"{"kind":"tripped"}"#, LIMIT).expect("success");
    assert_eq!(directory.text("event"), "{\"kind\":\"tripped\"}\n");
    assert_eq!(directory.text("arguments"), "one\ntwo words\n$HOME\n");
    assert!(!directory.text("env").contains("CARGO"), "{}", directory.text("env"));
}

#[test]
fn a_program_that_does_not_read_its_input_succeeds() {
    let directory = Directory::new("closed");
    let program = directory.program("exec 0<&-; exit 0");
    Running::default().run(&program, &"x".repeat(1 << 20), LIMIT).expect("success");
}

#[test]
fn failures_say_what_was_found() {
    let directory = Directory::new("failures");
    let run = |program: &OnEvent| {
        let error = Running::default().run(program, "{}", LIMIT).expect_err("a failure");
        format!("{error:#}")
    };
    assert_eq!(run(&directory.program("exit 3")), "it ended with exit status: 3");
    assert_eq!(run(&directory.program("kill -9 $$")), "it ended with signal: 9 (SIGKILL)");
    let missing = on_event(Path::new("/nonexistent/program"), &[]);
    assert!(run(&missing).starts_with("it cannot be started: No such file"), "{}", run(&missing));
    fs::set_permissions(directory.0.join("program"), Permissions::from_mode(0o644)).expect("permissions");
    let text = run(&on_event(&directory.0.join("program"), &[]));
    assert!(text.starts_with("it cannot be started: Permission denied"), "{text}");
}

/// Waits until no process has this number.
fn wait_for_end(pid: &str) {
    let path = PathBuf::from("/proc").join(pid.trim()).join("stat");
    let is_running = || fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_running() {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let directory = Directory::new("hangs");
    let output = directory.0.display();
    let program =
        directory.program(&format!("trap '' TERM INT HUP; sleep 600 & echo $! > {output}/child; wait"));
    let start = Instant::now();
    let error = Running::default().run(&program, "{}", Duration::from_millis(1500)).expect_err("a failure");
    assert_eq!(format!("{error:#}"), "it was killed after 1.5 s");
    assert!((1400..10_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    wait_for_end(&directory.text("child"));
}

#[test]
fn the_children_of_a_program_end_with_it() {
    let directory = Directory::new("children");
    let output = directory.0.display();
    let program = directory.program(&format!("sleep 600 & echo $! > {output}/child; exit 0"));
    let start = Instant::now();
    Running::default().run(&program, "{}", LIMIT).expect("success");
    assert!(start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    wait_for_end(&directory.text("child"));
}

#[test]
fn only_the_configured_kinds_wait_and_in_their_order() {
    let queue = EventQueue::default();
    let program = on_event(Path::new("/bin/true"), &[]);
    queue.offer(&line(1, "tripped"));
    queue.configure(Some(program.clone()));
    for (seq, kind) in [(2, "reset"), (3, "tripped"), (4, "notify_failed"), (5, "warned")] {
        queue.offer(&line(seq, kind));
    }
    for (seq, kind) in [(3, "tripped"), (5, "warned")] {
        let (found, event) = queue.next().expect("an event");
        assert_eq!(
            (found, event.kind.as_str(), event.scope.as_deref()),
            (program.clone(), kind, Some("session/x1"))
        );
        let json: Value = serde_json::from_str(&event.json).expect("JSON");
        assert_eq!(
            (&json["seq"], &json["kind"], &json["counts"]["used"]),
            (&json!(seq), &json!(kind), &json!(501))
        );
    }
    assert_eq!(queue.end(), 0);
    assert_eq!(queue.next(), None);
}

#[test]
fn a_full_queue_counts_what_it_loses() {
    let queue = EventQueue::default();
    queue.configure(Some(on_event(Path::new("/bin/true"), &[])));
    (1..=1003).for_each(|seq| queue.offer(&line(seq, "tripped")));
    assert_eq!((queue.counts().lost, queue.take_lost(), queue.take_lost()), (3, 3, 0));
    let (_, first) = queue.next().expect("an event");
    assert!(first.json.contains("\"seq\":1,"), "{}", first.json);
    assert_eq!(queue.end(), 999);
}

#[test]
fn an_event_that_was_offered_before_its_line_waits_once() {
    let queue = EventQueue::default();
    queue.configure(Some(on_event(Path::new("/bin/true"), &[])));
    let time = Timestamp::now();
    queue.offer_early(&entry("tripped", "host", time));
    let same = entry("tripped", "host", time + SignedDuration::from_millis(1));
    queue.offer(&Line { seq: 7, entry: same.clone(), prev: String::new() });
    queue.offer(&Line { seq: 8, entry: same, prev: String::new() });
    let seqs: Vec<_> = (0..2)
        .map(|_| {
            serde_json::from_str::<Value>(&queue.next().expect("an event").1.json).expect("JSON")["seq"]
                .clone()
        })
        .collect();
    assert_eq!(seqs, [json!(0), json!(8)]);
    assert_eq!(queue.end(), 0);
}
