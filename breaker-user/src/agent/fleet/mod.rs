//! The agent's part of the fleet: follows the records in etcd, applies them to the kernel, acknowledges.
//!
//! It has a thread and a runtime of its own, so that no other work of the agent delays a trip, and nothing
//! of the agent waits for etcd.

mod follower;
mod host;
mod live;
mod memory;
mod policy;
mod reading;
mod records;
mod report;
mod status;
mod switches;
mod work;

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::loaded::Loaded;
use super::log::Log;
use super::monitor::Monitor;
use super::notice::notice;
use crate::config;
use crate::fleet::Prefix;
use crate::fleet::record::host_name;

use follower::Follower;
use host::Host;
use memory::Memory;
use status::Status;
use switches::Switches;

/// Longest time that the agent's readiness waits for the standing trips of the fleet.
const READY: Duration = Duration::from_secs(1);

/// Starts the thread. Waits until the standing trips are applied, at most
/// one second. Without `[fleet]` nothing runs.
pub async fn start(
    fleet: Option<&config::Fleet>,
    (loaded, log, monitor): (Arc<Loaded>, Arc<Log>, Arc<Monitor>),
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let Some(fleet) = fleet.cloned() else { return };
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let Some(host) = fleet.host.clone().or_else(|| host_name(&node)) else {
        notice(&format!("the fleet is not followed: {node:?} is no name of a host: set [fleet].host"));
        return;
    };
    let status = Arc::new(Status::new());
    let (memory, problem) = Memory::read(&loaded.in_force().breaker);
    if let Some(found) = problem {
        notice(&format!("what was known of the fleet cannot be read: {found}: it is read from etcd again"));
    }
    let switches = Switches::new(Arc::clone(&loaded), Arc::clone(&log), host, memory.standing.clone());
    let host = Arc::new(Host { switches, loaded, log, monitor, prefix: Prefix::new(&fleet.name) });
    let follower = Follower::new(fleet, host, Arc::clone(&status), memory);
    let (applied, is_applied) = oneshot::channel();
    let spawned = thread::Builder::new().name("fleet".to_owned()).spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
        match runtime {
            Ok(runtime) => runtime.block_on(follower.run(applied, shutdown)),
            Err(error) => notice(&format!("the fleet is not followed: {error}")),
        }
    });
    if let Err(error) = spawned {
        notice(&format!("the fleet is not followed: starting its thread: {error}"));
        return;
    }
    // The result is ignored: without etcd the agent is ready too, with the trips that it knew.
    let _ = timeout(READY, is_applied).await;
}
