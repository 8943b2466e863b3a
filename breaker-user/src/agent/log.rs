//! The way into the audit log: what waits for it, in memory and bounded, and the one task that writes.
//!
//! A burst becomes one write with one fsync. A log that cannot be written stops nothing: entries wait, the agent says so, and tries on.
//! When too many wait, events stay in the kernel's ring, and what then finds no room there the kernel program counts.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::{Event, Limit};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::entry::{self, Glossary};
use super::loaded::{InForce, Loaded};
use crate::audit::{self, Entry};
use crate::config::{ScopeIndex, Scopes};
use crate::journal;

/// Events that may wait: 3 MB.
const MAX_EVENTS: usize = 32 * 1024;
/// Entries that may wait in all: room for the agent's own where events have taken theirs.
const MOST: usize = MAX_EVENTS + 1024;
/// Entries in one write.
const AT_ONCE: usize = 4096;
/// Time between two writes, in which a burst gathers.
const PAUSE: Duration = Duration::from_millis(50);
/// Time before a write is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Time that the last write may take when the agent ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// See the module.
pub struct Log {
    path: PathBuf,
    loaded: Arc<Loaded>,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Held while what waits is written: it is taken away after that only.
    turn: Mutex<()>,
    wake: Notify,
    failing: AtomicBool,
    failures: AtomicU64,
    refused: AtomicU64,
}

/// What waits: events as they came, which is a tenth of what their entries take.
enum Waiting {
    Event(Event),
    Own(Box<Entry>),
}

impl Log {
    /// The log of a load.
    pub fn new(loaded: Arc<Loaded>) -> Self {
        Self {
            path: journal::path(&loaded.now().breaker),
            loaded,
            waiting: Mutex::default(),
            turn: Mutex::default(),
            wake: Notify::new(),
            failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes what the agent itself did or found.
    pub fn note(&self, entry: Entry) {
        let mut waiting = self.waiting();
        if waiting.len() < MOST {
            waiting.push_back(Waiting::Own(Box::new(entry)));
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.wake.notify_one();
    }

    /// Writes what the agent is about to do before it does it; where that cannot be, it waits with the rest. Waits for the disk.
    pub fn note_now(&self, entry: Entry) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let written = audit::append(&self.path, std::slice::from_ref(&entry));
        drop(turn);
        if written.is_err() {
            self.note(entry);
        }
    }

    /// Takes an event of the kernel's.
    pub fn take(&self, event: Event) {
        self.waiting().push_back(Waiting::Event(event));
        self.wake.notify_one();
    }

    /// False where events should stay in the ring for now.
    pub fn has_room(&self) -> bool {
        self.waiting().len() < MAX_EVENTS
    }

    /// How many wait.
    pub fn pending(&self) -> usize {
        self.waiting().len()
    }

    /// True where the last write has failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// How many writes have failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How many of the agent's own entries found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Writes as entries come, until the shutdown.
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
                (false, Err(error)) => super::say(&format!(
                    "the audit log is not written: {error:#}: {} entries wait in memory, enforcement goes on: make room",
                    self.pending()
                )),
                (true, Ok(())) => super::say("the audit log is written again"),
                _ => {}
            }
            select! {
                () = sleep(if failing { RETRY } else { PAUSE }) => {}
                () = &mut shutdown => return,
            }
        }
    }

    /// Writes all that waits, once the agent has nothing more to tell. What cannot be written goes to standard error.
    pub async fn finish(self: Arc<Self>) {
        let all = async {
            while self.pending() != 0 {
                Arc::clone(&self).write().await?;
            }
            anyhow::Ok(())
        };
        let Err(error) = timeout(FAREWELL, all).await.context("it takes too long").flatten() else { return };
        super::say(&format!("the audit log is not written: {error:#}: {} entries follow", self.pending()));
        for entry in self.first(MOST) {
            super::say(&format!("{} {:?} {:?} {}", entry.time, entry.kind, entry.scope, entry.counts));
        }
    }

    /// Writes some of what waits, first come, first served. On a thread of its own: a disk may take its time.
    async fn write(self: Arc<Self>) -> Result<()> {
        let of = Arc::clone(&self);
        let write = move || -> Result<()> {
            let _turn = of.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let count = of.pending().min(AT_ONCE);
            audit::append(&of.path, &of.first(count))?;
            of.waiting().drain(..count);
            Ok(())
        };
        let written = spawn_blocking(write).await.context("writing")?;
        if written.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// Entries for the first that wait. Events that follow each other are told together.
    fn first(&self, count: usize) -> Vec<Entry> {
        let book = Book(self.loaded.now());
        let mut entries = Vec::new();
        let mut events = Vec::new();
        for waiting in self.waiting().iter().take(count) {
            match waiting {
                Waiting::Event(event) => events.push(*event),
                Waiting::Own(entry) => {
                    entries.extend(entry::entries(&events, &book));
                    events.clear();
                    entries.push(Entry::clone(entry));
                }
            }
        }
        entries.extend(entry::entries(&events, &book));
        entries
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What events are about, by the policy in force.
struct Book(Arc<InForce>);

impl Glossary for Book {
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
