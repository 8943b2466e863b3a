//! Whether the breaker is in force, for the health check and the metrics.
//!
//! Most facts are read once a second. The attachments and the state of the audit log are read for each
//! answer.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::loaded::Loaded;
use super::log::Log;
use super::periodic::{Interval, run_blocking};
use super::tampering::Tampering;
use crate::enforced::{Enforced, Facts, facts};
use crate::journal;

const INTERVAL: Interval = Interval::new(Duration::from_secs(1));

/// The facts of the last second.
pub struct Monitor {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    tampering: Arc<Tampering>,
    facts: Mutex<Facts>,
}

impl Monitor {
    /// Reads the facts for the first time.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, tampering: Arc<Tampering>) -> Self {
        let facts = Mutex::new(read(&loaded));
        Self { loaded, log, tampering, facts }
    }

    /// Whether the breaker is in force now.
    pub fn enforced(&self) -> Enforced {
        let failing = self
            .log
            .is_failing()
            .then(|| format!("the audit log is not written: {} entries wait", self.log.pending()));
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let audit = failing.or_else(|| facts.audit.clone());
        let attachments = if facts.namespace.is_some() { Vec::new() } else { self.loaded.attachments() };
        Enforced::judge(Facts { attachments, audit, tampered: self.tampering.problems(), ..facts })
    }

    /// Reads the facts in each interval until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        let work = move || {
            let facts = read(&self.loaded);
            *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
        };
        run_blocking(INTERVAL, shutdown, work, |()| {}).await;
    }
}

/// Reads all facts but the attachments.
fn read(loaded: &Loaded) -> Facts {
    let in_force = loaded.in_force();
    let breaker = &in_force.breaker;
    facts::read(breaker, Vec::new(), &breaker.connection_table(), journal::problem(breaker))
}
