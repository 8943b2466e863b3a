//! `breaker agent`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::check;
use super::output::print;
use crate::agent::{Agent, Started};
use crate::cli::ConfigArgs;
use crate::kernel::PinRoot;
use crate::resident;

/// Longest wait for a disk write at the end, in a blocking thread.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, and reloads its file at SIGHUP. The kernel keeps enforcing after any end.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    resident::limit_allocator_caches();
    // A load is adopted even if the file is invalid: a typing error must not stop the heartbeat.
    let policy = check::policy(args);
    // One thread, and a few blocking threads for disk writes and large maps.
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(4).build().context("starting")?;
    let served = runtime.block_on(async {
        // Before the load, so that no signal has its default effect once the agent enforces.
        let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = signal(SignalKind::hangup())?;
        let agent = Agent::start(root, policy, &args.config)?;
        let ready = |started: Started| {
            // The result is ignored: standard output may be closed.
            let _ = print(&started_line(&started, args.json));
        };
        agent.run(stopping(signals), hangup, ready).await
    });
    runtime.shutdown_timeout(LAST_WRITE);
    served.map(|()| ExitCode::SUCCESS)
}

/// Waits for the first signal that ends the agent, and returns its name.
async fn stopping((mut terminate, mut interrupt): (Signal, Signal)) -> &'static str {
    select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// What the agent serves, in one line.
fn started_line(started: &Started, json: bool) -> String {
    let metrics = started.metrics.as_ref().map(|address| format!("http://{address}/metrics"));
    if json {
        let view = json!({
            "adopted": started.adopted,
            "policy": started.policy,
            "file": started.differs.as_ref().map_or("in force", |_| "not in force"),
            "interfaces": started.interfaces,
            "metrics": metrics.as_ref().ok(),
        });
        return view.to_string();
    }
    let done = if started.adopted { "adopted" } else { "loaded" };
    let metrics = metrics.unwrap_or_else(|error| format!("NOT AVAILABLE ({error:#}), retrying"));
    format!(
        "breaker agent: {done} policy {} on {}; metrics at {metrics}{}",
        started.policy,
        started.interfaces.join(", "),
        if started.differs.is_some() { "; THE FILE IS NOT IN FORCE" } else { "" }
    )
}
