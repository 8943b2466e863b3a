//! SIGHUP: the agent reads its file again and puts it in force, as `breaker reload` does. What it says stands in the log.

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
use crate::audit::Entry;
use crate::cli_error::{self, CliError, Code};
use crate::config::{self, Policy};
use crate::kernel::Breaker;
use crate::kernel::reload::{Reloaded, reload};

/// See the module.
pub struct Reload {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    config: PathBuf,
    metrics: SocketAddr,
}

impl Reload {
    /// What is loaded, where to tell, which file; and where the metrics are, which stay there.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, config: PathBuf, metrics: SocketAddr) -> Self {
        Self { loaded, log, config, metrics }
    }

    /// Reloads at each hang-up until the shutdown.
    pub async fn run(self, mut hangup: Signal, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let of = Arc::new(self);
        loop {
            select! {
                _ = hangup.recv() => {}
                () = &mut shutdown => return,
            }
            // A large policy takes its time: not on the thread of the heartbeat.
            let this = Arc::clone(&of);
            if let Err(error) = spawn_blocking(move || this.reload()).await {
                super::say(&format!("the policy was not reloaded: {error}"));
            }
        }
    }

    /// Reloads once, and tells what came of it.
    fn reload(&self) {
        let file = self.config.display();
        let root = self.loaded.now().breaker.root().clone();
        let policy = read(&self.config);
        let done = policy.and_then(|policy| {
            let noted = |_: &Breaker, done: &Reloaded| {
                let entry = Entry {
                    policy: policy.name().to_string(),
                    ..self.loaded.entry("policy_changed", done.counts(&policy))
                };
                self.log.note_now(entry);
                Ok(())
            };
            reload(&policy, &root, noted).map(|done| (policy, done))
        });
        match done {
            Ok((policy, done)) if !done.changed => {
                super::say(&format!("{file} is in force already, policy {}", policy.name()));
            }
            Ok((policy, done)) => {
                if let Err(error) = self.loaded.follow() {
                    super::say(&format!("figures and events go by the policy before: {error:#}"));
                }
                super::say(&told(&policy, &done));
                let wanted = policy.agent().metrics;
                if wanted != self.metrics {
                    super::say(&format!(
                        "metrics stay at {} until the agent is started again, then {wanted}",
                        self.metrics
                    ));
                }
            }
            Err(error) => {
                let found = cli_error::text_of(&error);
                super::say(&format!("{file} is not put in force, the policy before stays: {found}"));
                self.log.note(
                    self.loaded.entry("policy_refused", json!({ "file": file.to_string(), "found": found })),
                );
            }
        }
    }
}

/// The policy in a file.
fn read(path: &std::path::Path) -> Result<Policy> {
    let loaded = config::load(path).map_err(|errors| {
        CliError::new(
            Code::Usage,
            format!("the configuration is refused\n{}", errors.diagnostics().render(false)),
        )
    })?;
    if !loaded.policy.warnings().is_empty() {
        super::say(&loaded.policy.warnings().render(false));
    }
    Ok(loaded.policy)
}

/// What has changed, in a line.
fn told(policy: &Policy, done: &Reloaded) -> String {
    let mut text = format!("policy {} is in force, sha256 {}", policy.name(), policy.sha256_hex());
    for (what, list) in [("loosened", &done.loosened), ("added", &done.added), ("removed", &done.removed)] {
        if !list.is_empty() {
            text += &format!("; {what}: {}", list.join(", "));
        }
    }
    text
}
