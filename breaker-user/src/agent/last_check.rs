//! What the watch tells the metrics and the health check: when it last checked, and what it attached again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kernel::clock;

/// Age in ns after which a check says nothing about the present.
const STALE_NS: u64 = 2_000_000_000;

/// Time of the last check, for `/healthz`, and the re-attachments.
#[derive(Debug, Default)]
pub struct LastCheck {
    at_ns: AtomicU64,
    reattached: Mutex<BTreeMap<String, Reattachments>>,
}

/// The re-attachments of an interface since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reattachments {
    /// Their number.
    pub count: u64,
    /// Time that the interface was without the program before them.
    pub unprotected: Duration,
}

impl LastCheck {
    /// Returns true if the last check is too long ago, or there was none.
    pub fn is_stale(&self) -> bool {
        clock::now_ns().saturating_sub(self.at_ns.load(Ordering::Relaxed)) > STALE_NS
    }

    /// Records a check at this moment.
    pub fn checked(&self) {
        self.at_ns.store(clock::now_ns(), Ordering::Relaxed);
    }

    /// The re-attachments of an interface.
    pub fn reattachments(&self, interface: &str) -> Reattachments {
        self.lock().get(interface).copied().unwrap_or_default()
    }

    /// Counts a re-attachment after this time without the program.
    pub fn count_reattachment(&self, interface: &str, unprotected: Duration) {
        let mut all = self.lock();
        let found = all.entry(interface.to_owned()).or_default();
        found.count += 1;
        found.unprotected += unprotected;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Reattachments>> {
        self.reattached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
