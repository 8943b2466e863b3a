//! `breaker agent`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{check, say};
use crate::agent::{Agent, Started};
use crate::cli::ConfigArgs;
use crate::kernel::PinRoot;

/// Time that a write may still take after everything else has ended.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT; reads its file again at SIGHUP. Whatever its end, what is loaded stays loaded.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    keep_small();
    // What is loaded is served whatever has become of the file: a typing error must not keep the agent from beating.
    let policy = match check::policy(args) {
        Err(error) if root.exists() => Err(error),
        policy => Ok(policy?),
    };
    // One thread, and a few more for what may take its time: disk, large maps.
    let runtime =
        Builder::new_current_thread().enable_all().max_blocking_threads(4).build().context("starting")?;
    let served = runtime.block_on(async {
        // Before anything is loaded, so that no signal finds the agent without an ear for it.
        let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = signal(SignalKind::hangup())?;
        let agent = Agent::start(root, policy, &args.config)?;
        let ready = |started: Started| {
            // Nobody need listen.
            let _ = say(&line(&started, args.json));
        };
        agent.run(stopping(signals), hangup, ready).await
    });
    runtime.shutdown_timeout(LAST_WRITE);
    served.map(|()| ExitCode::SUCCESS)
}

/// Makes the allocator give back what a scrape of a large policy has taken, and not keep it for each thread that ever served one.
fn keep_small() {
    // SAFETY: sets two numbers, before there is a second thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Comes with the name of the first signal that asks for an end.
async fn stopping((mut terminate, mut interrupt): (Signal, Signal)) -> &'static str {
    select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// What the agent serves, in a line.
fn line(started: &Started, json: bool) -> String {
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
    let metrics = metrics.unwrap_or_else(|error| format!("NOT THERE YET ({error:#}), trying on"));
    format!(
        "breaker agent: {done} policy {} on {}; metrics at {metrics}{}",
        started.policy,
        started.interfaces.join(", "),
        if started.differs.is_some() { "; ITS FILE IS NOT IN FORCE" } else { "" }
    )
}
