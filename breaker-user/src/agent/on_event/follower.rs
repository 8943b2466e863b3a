//! Follows the audit log, which has the events of the kernel, of the agent and of every verb.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::agent::event_queue::EventQueue;
use crate::agent::loaded::Loaded;
use crate::agent::periodic::{Interval, run_blocking};
use crate::audit::{Line, Reader};
use crate::config::{self, OnEvent};
use crate::journal;
use crate::state;

const INTERVAL: Interval = Interval::new(Duration::from_millis(200));
/// Kinds of events after which another policy may be in force.
const CHANGES: [&str; 2] = ["loaded", "policy_changed"];

/// A reader of the new lines of the log.
pub struct Follower {
    loaded: Arc<Loaded>,
    queue: Arc<EventQueue>,
    log: Mutex<Reader>,
}

impl Follower {
    /// Follows the log of a load from its end on. `file` has the settings of the agent's file, if that policy
    /// is in force.
    pub fn new(loaded: Arc<Loaded>, queue: Arc<EventQueue>, file: Option<OnEvent>) -> Self {
        let mut log = Reader::of_tail(journal::path(&loaded.in_force().breaker), 0);
        // The result is ignored: the log need not exist yet.
        let _ = log.read_new(|_| Ok(()));
        queue.configure(settings(&loaded).or(file));
        Self { loaded, queue, log: Mutex::new(log) }
    }

    /// Offers the new lines to the queue until the shutdown.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        run_blocking(INTERVAL, shutdown, move || self.read_new(), |()| {}).await;
    }

    fn read_new(&self) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // The result is ignored: a log that cannot be read is a problem of the health check.
        let _ = log.read_new(|text| {
            let Ok(line) = serde_json::from_slice::<Line>(text) else { return Ok(()) };
            if CHANGES.contains(&line.entry.kind.as_str()) && self.loaded.follow_policy().is_ok() {
                self.queue.configure(settings(&self.loaded));
            }
            self.queue.offer(&line);
            Ok(())
        });
    }
}

/// The settings of the policy in force, from the copy of its text. Another text counts as no settings.
fn settings(loaded: &Loaded) -> Option<OnEvent> {
    let now = loaded.in_force();
    let text = state::store(&now.breaker).policy_text().ok()?;
    let is_in_force = Sha256::digest(text.as_bytes()).as_slice() == now.breaker.policy().sha256;
    is_in_force.then(|| config::parse_on_event(&text))?
}
