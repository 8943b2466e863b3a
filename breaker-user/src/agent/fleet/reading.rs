//! Readings of all records that every agent follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::host::Host;
use super::status::Status;
use crate::fleet::engine::{self, Engine, Snapshot};

/// Time between two readings, which find what a watch has missed.
const RELIST: Duration = Duration::from_secs(10);

/// The prefixes that every agent follows. What other hosts report is not among them.
fn prefixes(host: &Host) -> [String; 4] {
    let prefix = &host.prefix;
    [prefix.trips(), prefix.resets(), prefix.active_policy(), prefix.commands()]
}

/// All records that every agent follows, as they were read.
pub struct Reading {
    /// The revision that was known when the reading began.
    pub known: i64,
    /// A snapshot of each prefix.
    pub snapshots: Vec<Snapshot>,
}

impl Reading {
    /// The oldest revision of the snapshots. A watch from there on reports whatever is newer than any of
    /// them.
    pub fn revision(&self) -> i64 {
        self.snapshots.iter().map(|snapshot| snapshot.revision).min().unwrap_or_default()
    }
}

/// Reads all records that every agent follows.
pub async fn read(host: &Host, engine: &Engine, status: &Status) -> engine::Result<Reading> {
    let mut reading = Reading { known: status.contact().revision, snapshots: Vec::new() };
    for prefix in prefixes(host) {
        reading.snapshots.push(engine.snapshot(&prefix).await?);
    }
    Ok(reading)
}

/// Reads the records again and again.
pub async fn relist(
    link: (Arc<Host>, Arc<Engine>, Arc<Status>),
    sender: mpsc::Sender<engine::Result<Reading>>,
) {
    let (host, engine, status) = link;
    loop {
        // Hosts that started together do not read together.
        sleep(RELIST.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        if sender.send(read(&host, &engine, &status).await).await.is_err() {
            return;
        }
    }
}
