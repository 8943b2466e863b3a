//! Reads the kernel program's event ring into the audit log, and tells how many events found no room in it.

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

/// How often the count of lost events is looked at; and the ring, in case a wake-up got lost.
const EVERY: Duration = Duration::from_millis(100);
/// Least time between two lines about losses: a flood of events is no flood of lines.
const TELLING: Duration = Duration::from_secs(1);
/// Events taken before the other tasks have their turn.
const AT_ONCE: usize = 1024;

/// The reader of the ring.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    /// Losses that the log knows of: by the kernel's counts, and the entries that the agent itself had no room for.
    told: (Losses, u64),
    /// When it was last told of some.
    told_at: Option<Instant>,
}

impl Events {
    /// A reader that begins where the last one ended, also with what it told of losses.
    pub fn open(loaded: Arc<Loaded>, log: Arc<Log>, told: Losses) -> Result<Self> {
        let ring = loaded.now().breaker.maps().events()?;
        // SAFETY: the ring owns its descriptor, and keeps it for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(std::io::Error::from).context("waiting for the event ring")?;
        Ok(Self { ring, loaded, log, told: (told, 0), told_at: None })
    }

    /// Reads until the shutdown, and then what is left.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut empty = false;
        loop {
            select! {
                // Without room in memory the ring is left alone till the next tick.
                ready = self.ring.readable(), if empty && self.log.has_room() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                () = yield_now(), if !empty => {}
                _ = tick.tick() => {
                    if self.told_at.is_none_or(|at| at.elapsed() >= TELLING) {
                        self.tell_losses();
                    }
                }
                () = &mut shutdown => break,
            }
            empty = self.drain(AT_ONCE);
        }
        self.drain(usize::MAX);
        self.tell_losses();
    }

    /// Takes events from the ring, so many at most. True where none is left, or no room for them.
    fn drain(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if !self.log.has_room() {
                return true;
            }
            let Some(record) = self.ring.get_mut().next() else { return true };
            match bytemuck::try_pod_read_unaligned::<Event>(&record) {
                Ok(event) => self.log.take(event),
                Err(error) => {
                    super::say(&format!("an event of {} bytes was passed over: {error}", record.len()))
                }
            }
        }
        false
    }

    /// Tells of losses since the last time.
    fn tell_losses(&mut self) {
        let now = self.loaded.now();
        let count = |which| now.breaker.reason(which);
        let (Ok(ring), Ok(left_out)) = (count(reason::EVENT_LOST), count(reason::EVENT_LEFT_OUT)) else {
            return;
        };
        let (told, refused) = (self.told, self.log.refused());
        let lost = ring.saturating_sub(told.0.ring) + refused.saturating_sub(told.1);
        let spared = left_out.saturating_sub(told.0.left_out);
        if lost == 0 && spared == 0 {
            return;
        }
        (self.told, self.told_at) = ((Losses { ring, left_out }, refused), Some(Instant::now()));
        let counts = json!({
            "lost": lost, "left_out": spared,
            "ring_since_load": ring, "left_out_since_load": left_out, "loaded_at": now.breaker.meta().loaded_at,
        });
        super::say(&format!(
            "events are missing: {lost} came faster than they could be written, {spared} were left out as too many of a kind"
        ));
        self.log.note(self.loaded.entry("events_lost", counts));
    }
}
