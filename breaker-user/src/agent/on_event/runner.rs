//! Runs the program for one event after the other.

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::process::Running;
use crate::agent::event_queue::EventQueue;
use crate::agent::loaded::Loaded;
use crate::agent::log::Log;
use crate::agent::notice::notice;

/// Longest run of the program.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the program may still run when the agent ends.
const LAST_RUN: Duration = Duration::from_secs(4);
/// Time between two looks at the last run.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the program for the events of the queue until the shutdown. Starting a program may take long, for
/// example from a file system that hangs, so that this has a thread of its own.
pub async fn run(loaded: Arc<Loaded>, log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    let queue = Arc::clone(log.on_event());
    let running = Arc::new(Running::default());
    let runner = (Arc::clone(&running), Arc::clone(&queue), Arc::clone(&loaded), Arc::clone(&log));
    let name = thread::Builder::new().name("on_event".to_owned());
    if let Err(error) = name.spawn(move || run_all(&runner.0, &runner.1, &runner.2, &runner.3)) {
        notice(&format!("no program is run for events: {error}"));
        return;
    }
    shutdown.await;
    let left = queue.end();
    if left != 0 {
        log.record(loaded.entry("notify_lost", json!({ "lost": left, "for": "the agent ended" })));
    }
    let deadline = Instant::now() + LAST_RUN;
    while running.is_busy() && Instant::now() < deadline {
        sleep(PAUSE).await;
    }
    running.kill();
}

fn run_all(running: &Running, queue: &EventQueue, loaded: &Loaded, log: &Log) {
    while let Some((on_event, event)) = queue.next() {
        if let Err(error) = running.run(&on_event, &event.json, LIMIT) {
            queue.count_failure();
            let program = on_event.program.as_path().display().to_string();
            notice(&format!("{program} failed for {} of {:?}: {error:#}", event.kind, event.scope));
            let counts = json!({
                "program": program,
                "event": event.kind,
                "scope": event.scope,
                "found": format!("{error:#}"),
            });
            log.record(loaded.entry("notify_failed", counts));
        }
        let lost = queue.take_lost();
        if lost != 0 {
            log.record(loaded.entry("notify_lost", json!({ "lost": lost, "for": "the queue was full" })));
        }
    }
}
