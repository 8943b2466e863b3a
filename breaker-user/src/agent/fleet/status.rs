//! The agent's contact with the fleet, shared by its tasks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The contact of this host with its fleet.
pub struct Status {
    contact: Mutex<Contact>,
}

/// The figures.
#[derive(Clone, Debug)]
pub struct Contact {
    /// When etcd last answered; the start before the first answer.
    pub at: Instant,
    /// Revision up to which the records are applied.
    pub revision: i64,
    /// The last error, if the last call failed.
    pub error: Option<String>,
}

impl Status {
    /// Before the first contact.
    pub fn new() -> Self {
        let contact = Contact { at: Instant::now(), revision: 0, error: None };
        Self { contact: Mutex::new(contact) }
    }

    /// The figures.
    pub fn contact(&self) -> Contact {
        self.lock().clone()
    }

    /// Time since etcd last answered, or since the start.
    pub fn age(&self) -> Duration {
        self.lock().at.elapsed()
    }

    /// Changes the figures.
    pub fn update(&self, change: impl FnOnce(&mut Contact)) {
        change(&mut self.lock());
    }

    /// Records an answer of etcd.
    pub fn answered(&self) {
        self.update(|contact| {
            contact.at = Instant::now();
            contact.error = None;
        });
    }

    fn lock(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
