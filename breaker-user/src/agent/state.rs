//! Writes the state file: when a scope trips, once a second if a state has changed, and at the end of the
//! agent.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::loaded::Loaded;
use super::log::Log;
use crate::kernel::durable::{self, ScopeStates};
use crate::state::{self, Act};

/// Time between two comparisons with the last written states.
const PERIOD: Duration = Duration::from_secs(1);
/// Delay after a trip, in which further trips of a burst are collected.
const BURST_DELAY: Duration = Duration::from_millis(10);
/// Longest time for the last write when the agent ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that writes the state file.
pub struct Writer {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    /// The last written states, and the hash of the policy in force at that time.
    written: Mutex<Option<(ScopeStates, [u8; 32])>>,
    /// True if the last write failed and the failure was reported.
    failing: Mutex<bool>,
}

impl Writer {
    /// Makes a writer that has not written yet.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>) -> Arc<Self> {
        Arc::new(Self { loaded, log, written: Mutex::default(), failing: Mutex::default() })
    }

    /// Writes until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                _ = tick.tick() => {}
                () = self.log.tripped() => sleep(BURST_DELAY).await,
                () = &mut shutdown => return,
            }
            let this = Arc::clone(&self);
            // A slow disk must not block the thread of the heartbeat.
            let written = spawn_blocking(move || this.write()).await.context("writing").flatten();
            self.report(written);
        }
    }

    /// Records in the state file that the agent has ended.
    pub async fn finish(self: Arc<Self>, was_unloaded: bool) {
        // `breaker unload` has written the state file.
        if was_unloaded {
            return;
        }
        let this = Arc::clone(&self);
        let write = spawn_blocking(move || state::save(&this.loaded.in_force().breaker, Act::AgentEnded));
        let written = timeout(FINISH_TIMEOUT, write).await.context("it takes too long");
        self.report(written.and_then(|joined| joined.context("writing").flatten()));
    }

    /// Writes the states if they or the policy have changed.
    fn write(&self) -> Result<()> {
        let now = self.loaded.in_force();
        // `breaker unload` writes the last state, which must not be overwritten.
        if self.loaded.was_unloaded() {
            return Ok(());
        }
        let states = (durable::read(&now.breaker)?, now.breaker.policy().sha256);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() == Some(&states) {
            return Ok(());
        }
        state::save(&now.breaker, if written.is_none() { Act::AgentStarted } else { Act::Changed })?;
        *written = Some(states);
        Ok(())
    }

    /// Reports the first failed write, and the first successful write after a failure.
    fn report(&self, written: Result<()>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match (std::mem::replace(&mut *failing, written.is_err()), written) {
            (false, Err(error)) => super::notice(&format!(
                "the state file is not written: {error:#}: enforcement goes on; a reboot would not find what \
                 has changed: free space, or correct [agent].state"
            )),
            (true, Ok(())) => super::notice("the state file is written again"),
            _ => {}
        }
    }
}
