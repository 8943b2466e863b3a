//! Results of the watch for the metrics and the health check: the time of the last check, and the
//! re-attachments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kernel::clock;

/// Age in ns above which a check is outdated.
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
    /// Number of re-attachments.
    pub count: u64,
    /// Total time without the program before the re-attachments.
    pub unprotected: Duration,
}

impl LastCheck {
    /// Returns true if the last check is older than 2 s, or if no check was made.
    pub fn is_stale(&self) -> bool {
        clock::now_ns().saturating_sub(self.at_ns.load(Ordering::Relaxed)) > STALE_NS
    }

    /// Records the current time as the time of the last check.
    pub fn record_check(&self) {
        self.at_ns.store(clock::now_ns(), Ordering::Relaxed);
    }

    /// Returns the re-attachments of an interface.
    pub fn reattachments(&self, interface: &str) -> Reattachments {
        self.lock().get(interface).copied().unwrap_or_default()
    }

    /// Counts a re-attachment, and the time without the program before it.
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
