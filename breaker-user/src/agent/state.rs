//! Keeps the state file: writes it when a scope trips, each second where something has changed, and at the
//! agent's end.

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

/// How often totals are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Time in which the trips of a burst gather.
const PAUSE: Duration = Duration::from_millis(10);
/// Time that the last write may take when the agent ends.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Writer {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    /// What was last written, and the policy that was in force then.
    written: Mutex<Option<(ScopeStates, [u8; 32])>>,
    /// The last write has failed, which was said.
    failing: Mutex<bool>,
}

impl Writer {
    /// A writer that has written nothing yet.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>) -> Arc<Self> {
        Arc::new(Self { loaded, log, written: Mutex::default(), failing: Mutex::default() })
    }

    /// Writes until the shutdown.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                _ = tick.tick() => {}
                () = self.log.tripped() => sleep(PAUSE).await,
                () = &mut shutdown => return,
            }
            let this = Arc::clone(&self);
            // The disk may take its time: not on the thread of the heartbeat.
            let written = spawn_blocking(move || this.write()).await.context("writing").flatten();
            self.tell(written);
        }
    }

    /// Writes at the end of the agent that it ended.
    pub async fn finish(self: Arc<Self>, was_unloaded: bool) {
        // An `unload` has written by itself, and knows that nothing is loaded.
        if was_unloaded {
            return;
        }
        let this = Arc::clone(&self);
        let write = spawn_blocking(move || state::save(&this.loaded.in_force().breaker, Act::AgentEnded));
        let written = timeout(LAST_WRITE, write).await.context("it takes too long");
        self.tell(written.and_then(|joined| joined.context("writing").flatten()));
    }

    /// Writes where something has changed.
    fn write(&self) -> Result<()> {
        let now = self.loaded.in_force();
        // An `unload` has the last word.
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

    fn tell(&self, written: Result<()>) {
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
