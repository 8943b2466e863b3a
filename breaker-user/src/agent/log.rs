//! The agent's queue in front of the audit log: bounded, in memory, with one task that writes.
//!
//! A burst becomes one write with one fsync. If the log cannot be written, the entries wait in their order,
//! journald gets each at once, and the agent reports it and retries. If the queue is full, events stay in the
//! kernel's ring; the kernel program counts those that find no room.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::{Event, Limit, kind};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::entry::{self, EventContext};
use super::event_queue::EventQueue;
use super::loaded::{InForce, Loaded};
use super::notice::notice;
use crate::audit::{self, AuditLog as _, Entry, LogEnd};
use crate::config::{ScopeIndex, Scopes};
use crate::journald;
use crate::load_log::LoadLog;

/// Longest queue of events: 3 MB.
const MAX_EVENTS: usize = 32 * 1024;
/// Longest queue in all: room for the agent's own entries when events have filled theirs.
const MAX_QUEUED: usize = MAX_EVENTS + 1024;
/// Entries in one write.
const MAX_BATCH: usize = 4096;
/// Time between two writes, in which a burst collects.
const PAUSE: Duration = Duration::from_millis(50);
/// Time before a failed write is retried.
const RETRY: Duration = Duration::from_secs(1);
/// Longest time for the last write when the agent ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The queue of the audit log.
pub struct Log {
    log: LoadLog,
    loaded: Arc<Loaded>,
    on_event: Arc<EventQueue>,
    queue: Mutex<VecDeque<Queued>>,
    /// Held during a write, so that entries are written in order. Entries leave the queue after the write.
    /// The value is the number of items at the front of the queue that were sent to journald.
    write_lock: Mutex<usize>,
    wake: Notify,
    trip: Notify,
    failing: AtomicBool,
    failures: AtomicU64,
    refused: AtomicU64,
}

/// A queued item. An event takes a tenth of the memory of its entry.
enum Queued {
    Event(Event),
    Own(Box<Entry>),
}

impl Log {
    /// Makes the queue for the log of a load.
    pub fn new(loaded: Arc<Loaded>) -> Self {
        Self {
            log: LoadLog::open(&loaded.in_force().breaker),
            loaded,
            on_event: Arc::default(),
            queue: Mutex::default(),
            write_lock: Mutex::default(),
            wake: Notify::new(),
            trip: Notify::new(),
            failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Queues an entry about the agent itself.
    pub fn record(&self, entry: Entry) {
        let mut queue = self.queue();
        if queue.len() < MAX_QUEUED {
            queue.push_back(Queued::Own(Box::new(entry)));
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.wake.notify_one();
    }

    /// Writes an entry before its action; on failure, queues the entry. Waits for the disk.
    pub fn record_now(&self, entry: Entry) {
        let turn = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let written = audit::append(&self.log, std::slice::from_ref(&entry));
        drop(turn);
        if written.is_err() {
            self.record(entry);
        }
    }

    /// Queues an event of the kernel program.
    pub fn push_event(&self, event: Event) {
        if event.kind == kind::TRIPPED {
            self.trip.notify_one();
        }
        self.queue().push_back(Queued::Event(event));
        self.wake.notify_one();
    }

    /// Returns number and hash of the last line of the log, as recorded in META.
    pub fn last_line(&self) -> Option<LogEnd> {
        self.log.kept()
    }

    /// The queue of the program that runs for events.
    pub fn on_event(&self) -> &Arc<EventQueue> {
        &self.on_event
    }

    /// Path of the log.
    pub fn path(&self) -> &Path {
        self.log.path()
    }

    /// Completes with the next event of a trip.
    pub async fn tripped(&self) {
        self.trip.notified().await;
    }

    /// Returns false if events should stay in the ring for now.
    pub fn has_room(&self) -> bool {
        self.queue().len() < MAX_EVENTS
    }

    /// Number of queued items.
    pub fn pending(&self) -> usize {
        self.queue().len()
    }

    /// Returns true if the last write failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Number of failed writes.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Number of the agent's own entries that found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Writes queued items until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let next = async {
                if self.pending() == 0 {
                    self.wake.notified().await;
                }
            };
            select! {
                () = next => {}
                () = &mut shutdown => return,
            }
            let written = Arc::clone(&self).write().await;
            let failing = written.is_err();
            match (self.failing.swap(failing, Ordering::Relaxed), written) {
                (false, Err(error)) => notice(&format!(
                    "the audit log is not written: {error:#}: {} entries wait in memory, enforcement goes \
                     on: free space",
                    self.pending()
                )),
                (true, Ok(())) => notice("the audit log is written again"),
                _ => {}
            }
            let pause = async {
                if failing {
                    self.wait_for_retry().await;
                } else {
                    sleep(PAUSE).await;
                }
            };
            select! {
                () = pause => {}
                () = &mut shutdown => return,
            }
        }
    }

    /// Waits until a failed write is retried. Meanwhile sends new items of the queue to journald.
    async fn wait_for_retry(self: &Arc<Self>) {
        let retry = Instant::now() + RETRY;
        while timeout_at(retry, self.wake.notified()).await.is_ok() {
            let sender = Arc::clone(self);
            let send = move || {
                let mut in_journald = sender.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
                *in_journald = sender.send_to_journald(*in_journald);
            };
            // The result is ignored: a panic affects only these messages, and the write is retried anyway.
            let _ = spawn_blocking(send).await;
            sleep(PAUSE).await;
        }
    }

    /// Writes the whole queue at the end of the agent. Prints entries that cannot be written on standard
    /// error.
    pub async fn finish(self: Arc<Self>) {
        let all = async {
            while self.pending() != 0 {
                Arc::clone(&self).write().await?;
            }
            anyhow::Ok(())
        };
        let Err(error) = timeout(FINISH_TIMEOUT, all).await.context("it takes too long").flatten() else {
            return;
        };
        notice(&format!("the audit log is not written: {error:#}: {} entries follow", self.pending()));
        for entry in self.first_entries(0..MAX_QUEUED) {
            notice(&format!("{} {:?} {:?} {}", entry.time, entry.kind, entry.scope, entry.counts));
        }
    }

    /// Writes the first items of the queue, on a blocking thread because a disk may be slow.
    async fn write(self: Arc<Self>) -> Result<()> {
        let writer = Arc::clone(&self);
        let write = move || -> Result<()> {
            let mut in_journald = writer.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
            let count = writer.pending().min(MAX_BATCH);
            let written = audit::append(&writer.log, &writer.first_entries(0..count));
            if written.is_ok() {
                writer.queue().drain(..count);
                *in_journald = in_journald.saturating_sub(count);
            } else {
                *in_journald = writer.send_to_journald(*in_journald);
            }
            written
        };
        let written = spawn_blocking(write).await.context("writing")?;
        if written.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// Sends at most one batch of the queue to journald and to the program that runs for events, starting at
    /// this item: the log does not contain the batch yet. Returns the position after the batch. An error is
    /// ignored: on a host without journald the entries stay in the queue.
    fn send_to_journald(&self, from: usize) -> usize {
        let until = self.pending().min(from + MAX_BATCH);
        let mut is_reachable = true;
        for entry in self.first_entries(from..until) {
            self.on_event.offer_early(&entry);
            is_reachable = is_reachable && journald::send_entry(self.log.path(), &entry).is_ok();
        }
        until
    }

    /// Entries for these items of the queue. Consecutive events become entries together.
    fn first_entries(&self, items: Range<usize>) -> Vec<Entry> {
        let context = PolicyContext(self.loaded.in_force());
        let mut entries = Vec::new();
        let mut events = Vec::new();
        for queued in self.queue().iter().take(items.end).skip(items.start) {
            match queued {
                Queued::Event(event) => events.push(*event),
                Queued::Own(entry) => {
                    entries.extend(entry::entries(&events, &context));
                    events.clear();
                    entries.push(Entry::clone(entry));
                }
            }
        }
        entries.extend(entry::entries(&events, &context));
        entries
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The policy in force as the context of events.
struct PolicyContext(Arc<InForce>);

impl EventContext for PolicyContext {
    fn names(&self) -> &Scopes {
        &self.0.names
    }

    fn limit(&self, scope: u32, position: u32) -> Option<Limit> {
        let scope: ScopeIndex = self.names().scope(scope)?;
        self.0.breaker.limit(scope, position as usize).ok()?
    }

    fn policy(&self) -> &str {
        &self.0.policy
    }
}
