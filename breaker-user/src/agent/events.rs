//! Reads the kernel program's event ring into the audit log, and logs how many events were lost.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use breaker_common::abi::{Event, reason};
use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use super::history::Losses;
use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;

/// Period of the check for lost events, and of a read of the ring in case a wake-up was lost.
const EVERY: Duration = Duration::from_millis(100);
/// Shortest time between two entries about losses.
const LOSS_PERIOD: Duration = Duration::from_secs(1);
/// Events read before other tasks get their turn.
const MAX_BATCH: usize = 1024;

/// The reader of the ring.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    /// Logged losses: the kernel's counts, and the agent's own entries without room.
    logged: (Losses, u64),
    /// Time of the last entry about losses.
    logged_at: Option<Instant>,
}

impl Events {
    /// Opens a reader that continues where the last one ended. `losses` are those that the log contains.
    pub fn open(loaded: Arc<Loaded>, log: Arc<Log>, losses: Losses) -> Result<Self> {
        let ring = loaded.in_force().breaker.maps().events()?;
        // SAFETY: the ring owns its file descriptor for its whole lifetime.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(std::io::Error::from).context("waiting for the event ring")?;
        Ok(Self { ring, loaded, log, logged: (losses, 0), logged_at: None })
    }

    /// Reads until the shutdown, and then the rest of the ring.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut empty = false;
        loop {
            select! {
                // Without room in the queue, events stay in the ring until the next tick.
                ready = self.ring.readable(), if empty && self.log.has_room() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                () = yield_now(), if !empty => {}
                _ = tick.tick() => {
                    if self.logged_at.is_none_or(|at| at.elapsed() >= LOSS_PERIOD) {
                        self.log_losses();
                    }
                }
                () = &mut shutdown => break,
            }
            empty = self.drain(MAX_BATCH);
        }
        self.drain(usize::MAX);
        self.log_losses();
    }

    /// Reads at most `max` events. Returns true if the ring is empty or the queue is full.
    fn drain(&mut self, max: usize) -> bool {
        for _ in 0..max {
            if !self.log.has_room() {
                return true;
            }
            let Some(record) = self.ring.get_mut().next() else { return true };
            match bytemuck::try_pod_read_unaligned::<Event>(&record) {
                Ok(event) => self.log.push_event(event),
                Err(error) => notice(&format!("an event of {} bytes was skipped: {error}", record.len())),
            }
        }
        false
    }

    /// Logs losses since the last entry.
    fn log_losses(&mut self) {
        let now = self.loaded.in_force();
        let count = |which| now.breaker.reason(which);
        let (Ok(ring), Ok(left_out)) = (count(reason::EVENT_LOST), count(reason::EVENT_LEFT_OUT)) else {
            return;
        };
        let (logged, refused) = (self.logged, self.log.refused());
        let lost = ring.saturating_sub(logged.0.ring) + refused.saturating_sub(logged.1);
        let newly_left_out = left_out.saturating_sub(logged.0.left_out);
        if lost == 0 && newly_left_out == 0 {
            return;
        }
        (self.logged, self.logged_at) = ((Losses { ring, left_out }, refused), Some(Instant::now()));
        let counts = json!({
            "lost": lost, "left_out": newly_left_out,
            "ring_since_load": ring, "left_out_since_load": left_out,
            "loaded_at": now.breaker.meta().loaded_at,
        });
        notice(&format!(
            "events are missing: {lost} found no room, {newly_left_out} were left out as too many of one kind"
        ));
        self.log.record(self.loaded.entry("events_lost", counts));
    }
}
