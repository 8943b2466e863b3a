//! Shows the fleet that this host's agent runs, and what its kernel enforces.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::host::Host;
use super::report;
use super::status::Status;
use crate::agent::notice::notice;
use crate::fleet::engine::{self, Engine};
use crate::fleet::record::{HostState, Live, encode};

/// Time between two comparisons of the kernel's state with the reported one.
const REPORT: Duration = Duration::from_secs(1);
/// Life of the lease, in seconds.
const LEASE_S: i64 = 5;
/// Time between two renewals.
const RENEW: Duration = Duration::from_millis(1_600);

/// Reports until it is dropped.
pub async fn run(host: Arc<Host>, engine: Arc<Engine>, status: Arc<Status>) {
    let mut lease = None;
    let mut reported: Option<HostState> = None;
    let (mut report, mut renew) = (interval(REPORT), interval(RENEW));
    report.set_missed_tick_behavior(MissedTickBehavior::Skip);
    renew.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        select! {
            _ = renew.tick() => lease = keep(&host, &engine, lease).await.ok(),
            _ = report.tick() => {
                let (this, revision) = (Arc::clone(&host), status.contact().revision);
                let state = spawn_blocking(move || report::read(&this.loaded, &this.monitor, revision)).await;
                match state {
                    Ok(Ok(state)) if reported.as_ref() != Some(&state) => {
                        reported = write(&host, &engine, &state).await.is_ok().then_some(state);
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => notice(&format!("fleet: the state is not reported: {error:#}")),
                    Err(error) => notice(&format!("fleet: the state is not reported: {error}")),
                }
            }
        }
    }
}

async fn write(host: &Host, engine: &Engine, state: &HostState) -> Result<(), String> {
    let entries = [(host.prefix.state(host.switches.host()), encode(state)?)];
    engine.put(&entries, None).await.map(drop).map_err(|error| error.to_string())
}

/// Renews the lease, or makes one with the key that shows it. Returns the lease.
async fn keep(host: &Host, engine: &Engine, lease: Option<i64>) -> engine::Result<i64> {
    if let Some(lease) = lease
        && engine.keep_alive(lease).await.is_ok()
    {
        return Ok(lease);
    }
    let lease = engine.lease(LEASE_S).await?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let live = Live { version: crate::VERSION.to_owned(), boot_id: boot_id.trim().to_owned() };
    let entries = [(host.prefix.live(host.switches.host()), encode(&live).unwrap_or_default())];
    engine.put(&entries, Some(lease)).await?;
    Ok(lease)
}
