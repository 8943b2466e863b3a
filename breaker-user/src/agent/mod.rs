//! The agent: what a living process adds to a loaded breaker. It tells of what happens: metrics, audit log, watch over the attachment.
//!
//! Enforcement needs none of it, and nothing here detaches or unpins anything: not at its end, not at an error, not at a crash.
//! Each part is a task of its own that ends with a shutdown; what fails in one stays there.

mod day;
mod entry;
mod events;
mod fenced;
mod forget;
mod heartbeat;
mod history;
mod judgement;
mod loaded;
mod log;
pub mod metrics;
mod reload;
mod table;
mod trips;
mod watch;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::select;
use tokio::signal::unix::Signal;
use tokio::sync::{Semaphore, watch as signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli_error::{self, CliError, Code};
use crate::config::{self, Policy};
use crate::journal;
use crate::kernel::PinRoot;
use crate::kernel::netns;
use crate::kernel::tables::trim_padding;
use events::Events;
use history::{History, Losses};
use judgement::Judgement;
use loaded::Loaded;
use log::Log;
use metrics::{Server, Source};
use watch::{LastCheck, Watch};

/// Time that the parts have to come to their end.
const ENDING: Duration = Duration::from_secs(5);

/// An agent that has something to serve.
pub struct Agent {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    source: Arc<Source>,
    last_look: Arc<LastCheck>,
    address: SocketAddr,
    config: PathBuf,
    differs: Option<String>,
}

/// What an agent has come to serve, for whoever started it.
pub struct Started {
    /// It was loaded before; otherwise the agent loaded it.
    pub adopted: bool,
    /// The policy's name.
    pub policy: String,
    /// Its interfaces.
    pub interfaces: Vec<String>,
    /// Where the metrics are, or why they are not there yet.
    pub metrics: Result<SocketAddr>,
    /// Why its file is not what is in force, where it is not.
    pub differs: Option<String>,
}

impl Agent {
    /// Adopts what is loaded, or loads the policy of this file where nothing is.
    /// A file that is broken, or says something else than what is loaded, changes nothing of that.
    pub fn start(root: &PinRoot, policy: Result<Policy>, config: &Path) -> Result<Self> {
        let (loaded, untold) = Loaded::adopt_or_load(root, policy.as_ref())?;
        let differs = differs(&loaded, &policy, config);
        let loaded = Arc::new(loaded);
        let now = loaded.now();
        let meta = now.breaker.meta();
        if now.breaker.is_in_other_netns()? {
            let text = format!(
                "starting the agent: it serves what was loaded in the network namespace {}, and is in another one: start it there, with `nsenter \
                 --net=/run/netns/NAME breaker agent`",
                netns::name(meta.netns)
            );
            return Err(CliError::new(Code::Interface, text).into());
        }
        let log = Arc::new(Log::new(Arc::clone(&loaded)));
        let mut history = History::new(journal::path(&now.breaker), now.breaker.names(), meta.loaded_at);
        if let Err(error) = history.read_on() {
            say(&format!("trips are counted from now on: {error:#}"));
        }
        untold.into_iter().for_each(|entry| log.note(entry));
        let last_look = Arc::new(LastCheck::default());
        let source = Arc::new(Source {
            loaded: Arc::clone(&loaded),
            log: Arc::clone(&log),
            history: Mutex::new(history),
            turn: Arc::new(Semaphore::new(1)),
            last_look: Arc::clone(&last_look),
            judgement: Arc::new(Judgement::new(Arc::clone(&loaded), Arc::clone(&log))),
        });
        if let Some(found) = &differs {
            let loaded = loaded.now();
            say(&format!(
                "{found}: policy {} stays in force: `breaker reload` puts a file in force",
                loaded.policy
            ));
            let counts = json!({ "file": config.display().to_string(), "found": found });
            log.note(source.loaded.entry("policy_refused", counts));
        }
        let address = policy.map_or(config::METRICS, |policy| policy.agent().metrics);
        Ok(Self { loaded, log, source, last_look, address, config: config.to_owned(), differs })
    }

    /// Serves until the shutdown, which says why, or until what it serves is unloaded; reads its file again at each `hangup`. Calls
    /// `ready` once all parts are there.
    pub async fn run(
        self,
        shutdown: impl Future<Output = &'static str>,
        hangup: Signal,
        ready: impl FnOnce(Started),
    ) -> Result<()> {
        let (stop, stopped) = signal::channel(());
        let told = self.source.history.lock().map_or(Losses::default(), |history| history.losses());
        let events = Events::open(Arc::clone(&self.loaded), Arc::clone(&self.log), told)?;
        let mut watch =
            Watch::new(Arc::clone(&self.loaded), Arc::clone(&self.log), Arc::clone(&self.last_look));
        heartbeat::beat(&self.loaded)?;
        watch.look();
        let (server, metrics) = Server::bind(self.address, Arc::clone(&self.source)).await;
        let started = self.started(metrics);
        self.log.note(
            self.loaded
                .entry("agent_started", json!({ "adopted": started.adopted, "version": crate::VERSION })),
        );
        ready(started);

        let mut parts = JoinSet::new();
        parts.spawn(heartbeat::run(Arc::clone(&self.loaded), ended(&stopped)));
        parts.spawn(day::run(Arc::clone(&self.loaded), ended(&stopped)));
        parts.spawn(forget::run(Arc::clone(&self.loaded), ended(&stopped)));
        parts.spawn(events.run(ended(&stopped)));
        parts.spawn(fenced::run(Arc::clone(&self.loaded), Arc::clone(&self.log), ended(&stopped)));
        parts.spawn(table::run(Arc::clone(&self.loaded), Arc::clone(&self.log), ended(&stopped)));
        parts.spawn(trips::run(Arc::clone(&self.source), ended(&stopped)));
        parts.spawn(Arc::clone(&self.source.judgement).run(ended(&stopped)));
        parts.spawn(Arc::clone(&self.log).run(ended(&stopped)));
        parts.spawn(server.run(ended(&stopped)));
        let (loaded, log) = (Arc::clone(&self.loaded), Arc::clone(&self.log));
        let reload = reload::Reload::new(loaded, log, self.config.clone(), self.address);
        parts.spawn(reload.run(hangup, ended(&stopped)));
        notify(&[NotifyState::Ready]);

        let signal = select! {
            () = watch.run(ended(&stopped)) => None,
            signal = shutdown => Some(signal),
        };
        notify(&[NotifyState::Stopping]);
        drop(stop);
        // A part that does not come to its end, for a disk that hangs, say, is left behind.
        let _ = timeout(ENDING, async { while parts.join_next().await.is_some() {} }).await;
        self.log.note(self.loaded.entry("agent_stopped", json!({ "for": signal.unwrap_or("unloaded") })));
        self.log.finish().await;
        signal.map(drop).ok_or_else(|| {
            let now = self.loaded.now();
            let what = now.breaker.root().path().display();
            CliError::new(Code::NotLoaded, format!("serving {what}: it was unloaded meanwhile: load again"))
                .into()
        })
    }

    fn started(&self, metrics: Result<SocketAddr>) -> Started {
        Started {
            adopted: self.loaded.adopted,
            policy: self.loaded.now().policy.clone(),
            interfaces: self
                .loaded
                .now()
                .breaker
                .interfaces()
                .iter()
                .map(|found| trim_padding(&found.name))
                .collect(),
            metrics,
            differs: self.differs.clone(),
        }
    }
}

/// Why a file is not what is in force, where it is not.
fn differs(loaded: &Loaded, policy: &Result<Policy>, config: &Path) -> Option<String> {
    match policy {
        Err(error) => Some(cli_error::text_of(error)),
        Ok(policy) if *policy.sha256() == loaded.now().breaker.policy().sha256 => None,
        Ok(policy) => Some(format!(
            "{} was changed: it is policy {} with sha256 {}",
            config.display(),
            policy.name(),
            policy.sha256_hex()
        )),
    }
}

/// Ends when the sender is dropped.
fn ended(stopped: &signal::Receiver<()>) -> impl Future<Output = ()> + use<> {
    let mut stopped = stopped.clone();
    async move { while stopped.changed().await.is_ok() {} }
}

/// Tells the service manager, where there is one. It minds its own failures.
fn notify(state: &[NotifyState]) {
    let _ = sd_notify::notify(state);
}

/// Says something on standard error, and does not mind where that is gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "breaker agent: {text}");
}
