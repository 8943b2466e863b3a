//! SIGHUP: the agent reloads its file, as `breaker reload` does, and logs the result.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use tokio::select;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;

use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use crate::audit::Entry;
use crate::cli_error::{self, CliError, Code};
use crate::config::{self, Policy};
use crate::kernel::Breaker;
use crate::kernel::reload::PolicyDiff;
use crate::reload::reload;
use crate::state::{self, Act};
use crate::view::policy_diff;

/// The reload task.
pub struct Reload {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    config: PathBuf,
    metrics: SocketAddr,
}

impl Reload {
    /// Makes the task for a load and a file. The metrics keep their address.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, config: PathBuf, metrics: SocketAddr) -> Self {
        Self { loaded, log, config, metrics }
    }

    /// Reloads at each SIGHUP until the shutdown.
    pub async fn run(self, mut hangup: Signal, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let task = Arc::new(self);
        loop {
            select! {
                _ = hangup.recv() => {}
                () = &mut shutdown => return,
            }
            // On a blocking thread: a large policy takes its time.
            let this = Arc::clone(&task);
            if let Err(error) = spawn_blocking(move || this.reload()).await {
                notice(&format!("the policy was not reloaded: {error}"));
            }
        }
    }

    /// Reloads once, and reports the result.
    fn reload(&self) {
        let file = self.config.display();
        let root = self.loaded.in_force().breaker.root().clone();
        let policy = read(&self.config);
        let done = policy.and_then(|policy| {
            let log_change = |_: &Breaker, diff: &PolicyDiff| {
                let entry = Entry {
                    policy: policy.name().to_string(),
                    ..self.loaded.entry("policy_changed", policy_diff::counts(diff, &policy))
                };
                self.log.record_now(entry);
                Ok(())
            };
            reload(&policy, &root, log_change).map(|done| (policy, done))
        });
        match done {
            Ok((policy, None)) => {
                notice(&format!("{file} is already in force, policy {}", policy.name()));
            }
            Ok((policy, Some(diff))) => {
                let saved =
                    Breaker::open(&root).and_then(|breaker| state::save(&breaker, Act::Reloaded(&policy)));
                if let Err(error) = saved {
                    super::notice(&format!(
                        "the state file is not written: {error:#}: correct [agent].state"
                    ));
                }
                if let Err(error) = self.loaded.follow_policy() {
                    notice(&format!("figures and events are of the previous policy: {error:#}"));
                }
                notice(&summary(&policy, &diff));
                let wanted = policy.agent().metrics;
                if wanted != self.metrics {
                    notice(&format!(
                        "metrics stay at {} until the agent is restarted, then move to {wanted}",
                        self.metrics
                    ));
                }
            }
            Err(error) => {
                let found = cli_error::text_of(&error);
                notice(&format!("{file} is not put in force, the previous policy stays: {found}"));
                self.log.record(
                    self.loaded.entry("policy_refused", json!({ "file": file.to_string(), "found": found })),
                );
            }
        }
    }
}

/// Reads the policy in a file, and prints its warnings.
fn read(path: &std::path::Path) -> Result<Policy> {
    let loaded = config::load(path).map_err(|errors| {
        CliError::new(
            Code::Usage,
            format!("the configuration is refused\n{}", errors.diagnostics().render(false)),
        )
    })?;
    if !loaded.policy.warnings().is_empty() {
        notice(&loaded.policy.warnings().render(false));
    }
    Ok(loaded.policy)
}

/// The changes in one line.
fn summary(policy: &Policy, diff: &PolicyDiff) -> String {
    let mut text = format!("policy {} is in force, sha256 {}", policy.name(), policy.sha256_hex());
    let loosened = policy_diff::lines(&diff.loosened);
    for (what, list) in [("loosened", &loosened), ("added", &diff.added), ("removed", &diff.removed)] {
        if !list.is_empty() {
            text += &format!("; {what}: {}", list.join(", "));
        }
    }
    text
}
