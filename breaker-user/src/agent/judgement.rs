//! The judgement whether the breaker is in force, for health check and metrics. Most facts are read once a second, on a thread of
//! their own; what is attached and how the audit log does are looked at when somebody asks.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::loaded::Loaded;
use super::log::Log;
use crate::enforced::{Enforced, Facts, facts};

/// How often the facts are read.
const EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Judgement {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    facts: Mutex<Facts>,
}

impl Judgement {
    /// Reads the facts for the first time.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>) -> Self {
        let facts = Mutex::new(read(&loaded));
        Self { loaded, log, facts }
    }

    /// Whether the breaker is in force now.
    pub fn now(&self) -> Enforced {
        let failing = self
            .log
            .is_failing()
            .then(|| format!("the audit log is not written: {} entries wait", self.log.pending()));
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let audit = failing.or_else(|| facts.audit.clone());
        let attachments = if facts.namespace.is_some() { Vec::new() } else { self.loaded.attachments() };
        Enforced::judge(Facts { attachments, audit, ..facts })
    }

    /// Reads the facts again and again until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                _ = tick.tick() => {}
                () = &mut shutdown => return,
            }
            // A full connection table takes a tenth of a second to walk: not on the thread of the heartbeat.
            let of = Arc::clone(&self);
            let refreshed = spawn_blocking(move || {
                let facts = read(&of.loaded);
                *of.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
            });
            if let Err(error) = refreshed.await {
                super::say(&format!("the judgement is of a second ago: {error}"));
            }
        }
    }
}

/// All facts but the attachments.
fn read(loaded: &Loaded) -> Facts {
    let now = loaded.now();
    facts::read(&now.breaker, Vec::new(), &now.breaker.connection_table())
}
