//! The agent: metrics, the audit log, and a watch over the attachments of a loaded breaker.
//!
//! Enforcement does not need the agent. Nothing here detaches or unpins anything, neither at the end nor
//! after an error or a crash. Each part is a task that ends at the shutdown. A failure affects only its task.

mod anchor;
mod chain_watch;
pub mod control;
mod denials;
mod disconnect;
mod entry;
mod event_queue;
mod events;
mod evict;
#[cfg(feature = "fleet")]
mod fleet;
mod heartbeat;
mod history;
mod http;
mod interface_watch;
mod last_check;
mod loaded;
mod log;
pub mod metrics;
mod monitor;
mod notice;
mod on_event;
mod page;
mod periodic;
mod policy_watch;
mod probe;
mod recorder;
mod release;
mod reload;
mod repair;
mod state;
mod switch_watch;
mod table_usage;
mod tampering;
mod trading_day;
mod unlogged_trips;
mod warnings;
mod watch;

#[cfg(test)]
mod tests;

use std::future::Future;
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
use crate::config::{self, OnEvent, Policy};
use crate::journal;
use crate::kernel::PinRoot;
use crate::kernel::netns;
use crate::kernel::text::trim_padding;
use control::Control;
use events::Events;
use history::{History, Losses};
use http::Server;
use last_check::LastCheck;
use loaded::Loaded;
use log::Log;
use metrics::Source;
use monitor::Monitor;
use notice::notice;
use on_event::Follower;
use page::Live;
use recorder::Recorder;
use tampering::Tampering;
use watch::Watch;

/// Longest time for the tasks to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// An agent with a load to serve.
pub struct Agent {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    source: Arc<Source>,
    last_check: Arc<LastCheck>,
    address: SocketAddr,
    control: PathBuf,
    config: PathBuf,
    differs: Option<String>,
    on_event: Option<OnEvent>,
    #[cfg(feature = "fleet")]
    fleet: Option<config::Fleet>,
}

/// The started agent, as its caller reports it.
pub struct Started {
    /// True if the load existed before; otherwise the agent loaded it.
    pub adopted: bool,
    /// Name of the policy.
    pub policy: String,
    /// Interfaces of the policy.
    pub interfaces: Vec<String>,
    /// Address of the metrics, or the reason why the metrics are not available yet.
    pub metrics: Result<SocketAddr>,
    /// The reason why the agent's file is not in force; `None` if it is in force.
    pub differs: Option<String>,
}

impl Agent {
    /// Adopts an existing load, or loads the policy of this file if nothing is loaded.
    /// An adopted load stays unchanged even if the file is invalid or different. With an invalid file, a host
    /// loads the policy that was in force before.
    pub fn start(root: &PinRoot, policy: Result<Policy>, config: &Path) -> Result<Self> {
        let (loaded, unlogged) = Loaded::adopt_or_load(root, policy.as_ref())?;
        let differs = differs(&loaded, &policy, config);
        let loaded = Arc::new(loaded);
        let now = loaded.in_force();
        let meta = now.breaker.meta();
        if now.breaker.is_in_other_netns()? {
            let text = format!(
                "starting the agent: it serves what was loaded in the network namespace {}, and is in \
                 another one: start \
                 it there, with `nsenter --net=/run/netns/NAME breaker agent`",
                netns::name(meta.netns)
            );
            return Err(CliError::new(Code::Interface, text).into());
        }
        let log = Arc::new(Log::new(Arc::clone(&loaded)));
        let mut history = History::new(journal::path(&now.breaker), now.breaker.names(), meta.loaded_at);
        if let Err(error) = history.read_new() {
            notice(&format!("trips are counted from now on: {error:#}"));
        }
        unlogged.into_iter().for_each(|entry| log.record(entry));
        let last_check = Arc::new(LastCheck::default());
        let tampering = Arc::new(Tampering::new(Arc::clone(&loaded), Arc::clone(&log)));
        let monitor = Monitor::new(Arc::clone(&loaded), Arc::clone(&log), Arc::clone(&tampering));
        let source = Arc::new(Source {
            loaded: Arc::clone(&loaded),
            log: Arc::clone(&log),
            history: Mutex::new(history),
            scrape_turn: Arc::new(Semaphore::new(1)),
            history_turn: Arc::new(Semaphore::new(1)),
            last_check: Arc::clone(&last_check),
            monitor: Arc::new(monitor),
            tampering: Arc::clone(&tampering),
            recorder: Arc::new(Recorder::new(Arc::clone(&loaded))),
        });
        if let Some(found) = &differs {
            let loaded = loaded.in_force();
            notice(&format!(
                "{found}: policy {} stays in force: `breaker reload` puts a file in force",
                loaded.policy
            ));
            let counts = json!({ "file": config.display().to_string(), "found": found });
            log.record(source.loaded.entry("policy_refused", counts));
        }
        #[cfg(feature = "fleet")]
        let fleet = policy.as_ref().ok().and_then(|policy| policy.fleet().cloned());
        let in_force = policy.as_ref().ok().filter(|_| differs.is_none());
        let on_event = in_force.and_then(|policy| policy.agent().on_event.clone());
        let (address, control) = policy.map_or_else(
            |_| (config::METRICS, config::DEFAULT_CONTROL.into()),
            |policy| (policy.agent().metrics, policy.agent().control.as_path().to_owned()),
        );
        let config = config.to_owned();
        Ok(Self {
            loaded,
            log,
            source,
            last_check,
            address,
            control,
            config,
            differs,
            on_event,
            #[cfg(feature = "fleet")]
            fleet,
        })
    }

    /// Serves until the load is unloaded, or until the shutdown, which returns its reason. Reloads its file
    /// at each `hangup`. Calls `ready` before the tasks start.
    pub async fn run(
        self,
        shutdown: impl Future<Output = &'static str>,
        hangup: Signal,
        ready: impl FnOnce(Started),
    ) -> Result<()> {
        let (stop, stopped) = signal::channel(());
        let (loaded, queue) = (Arc::clone(&self.loaded), Arc::clone(self.log.on_event()));
        let follower = Follower::new(loaded, queue, self.on_event.clone());
        let losses = self.source.history.lock().map_or(Losses::default(), |history| history.losses());
        let events = Events::open(Arc::clone(&self.loaded), Arc::clone(&self.log), losses)?;
        let tampering = &self.source.tampering;
        let mut watch = Watch::new(
            Arc::clone(&self.loaded),
            Arc::clone(&self.log),
            Arc::clone(&self.last_check),
            Arc::clone(tampering),
        );
        heartbeat::beat(&self.loaded)?;
        watch.check();
        #[cfg(feature = "fleet")]
        self.follow_fleet(&stopped).await;
        let live = Arc::new(Live::new(Arc::clone(&self.source)));
        let (server, metrics) = Server::bind(self.address, Arc::clone(&self.source), Arc::clone(&live)).await;
        let control = self.listen();
        let started = self.started(metrics);
        self.log.record(
            self.loaded
                .entry("agent_started", json!({ "adopted": started.adopted, "version": crate::VERSION })),
        );
        ready(started);

        let writer = state::Writer::new(Arc::clone(&self.loaded), Arc::clone(&self.log));
        let (loaded, log) = (Arc::clone(&self.loaded), Arc::clone(&self.log));
        let reload = reload::Reload::new(loaded, log, self.config.clone(), self.address);
        let mut tasks = JoinSet::new();
        self.spawn_tasks(&mut tasks, &stopped);
        tasks.spawn(events.run(ended(&stopped)));
        tasks.spawn(follower.run(ended(&stopped)));
        tasks.spawn(server.run(ended(&stopped)));
        tasks.spawn(live.run(ended(&stopped)));
        control.map(|control| tasks.spawn(control.run(ended(&stopped))));
        tasks.spawn(Arc::clone(&writer).run(ended(&stopped)));
        tasks.spawn(reload.run(hangup, ended(&stopped)));
        notify(&[NotifyState::Ready]);

        let signal = select! {
            () = watch.run(ended(&stopped)) => None,
            signal = shutdown => Some(signal),
        };
        notify(&[NotifyState::Stopping]);
        drop(stop);
        // The agent does not wait longer for a task, for example one that writes to a slow disk.
        let _ = timeout(END_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await;
        self.finish(signal, writer).await
    }

    /// Follows the fleet, if the policy has one. Returns when its standing trips are in the kernel.
    #[cfg(feature = "fleet")]
    async fn follow_fleet(&self, stopped: &signal::Receiver<()>) {
        let parts = (Arc::clone(&self.loaded), Arc::clone(&self.log), Arc::clone(&self.source.monitor));
        fleet::start(self.fleet.as_ref(), parts, ended(stopped)).await;
    }

    /// Spawns the tasks that need only the parts of the agent.
    fn spawn_tasks(&self, tasks: &mut JoinSet<()>, stopped: &signal::Receiver<()>) {
        let loaded = || Arc::clone(&self.loaded);
        let log = || Arc::clone(&self.log);
        let tampering = Arc::clone(&self.source.tampering);
        tasks.spawn(heartbeat::run(loaded(), ended(stopped)));
        tasks.spawn(trading_day::run(loaded(), ended(stopped)));
        tasks.spawn(evict::run(loaded(), ended(stopped)));
        tasks.spawn(disconnect::run(loaded(), log(), ended(stopped)));
        tasks.spawn(table_usage::run(loaded(), log(), ended(stopped)));
        tasks.spawn(warnings::run(Arc::clone(&self.source), ended(stopped)));
        tasks.spawn(unlogged_trips::run(Arc::clone(&self.source), ended(stopped)));
        tasks.spawn(policy_watch::run(loaded(), tampering, ended(stopped)));
        tasks.spawn(probe::run(loaded(), log(), ended(stopped)));
        tasks.spawn(Arc::clone(&self.source.monitor).run(ended(stopped)));
        tasks.spawn(Arc::clone(&self.source.recorder).run(ended(stopped)));
        tasks.spawn(log().run(ended(stopped)));
        tasks.spawn(on_event::run(loaded(), log(), ended(stopped)));
        tasks.spawn(anchor::run(log(), ended(stopped)));
        tasks.spawn(release::run(ended(stopped)));
    }

    /// Writes the last entries and the last state. Fails if no signal ended the agent, because the load was
    /// unloaded.
    async fn finish(&self, signal: Option<&'static str>, writer: Arc<state::Writer>) -> Result<()> {
        let reason = signal.unwrap_or("unloaded");
        self.log.record(self.loaded.entry("agent_stopped", json!({ "for": reason })));
        Arc::clone(&self.log).finish().await;
        writer.finish(signal.is_none()).await;
        signal.map(drop).ok_or_else(|| {
            let now = self.loaded.in_force();
            let root = now.breaker.root().path().display();
            CliError::new(Code::NotLoaded, format!("serving {root}: it was unloaded meanwhile: load again"))
                .into()
        })
    }

    /// Listens on the control socket, unless systemd listens. A failure does not stop the agent.
    fn listen(&self) -> Option<Control> {
        let root = self.loaded.in_force().breaker.root().clone();
        Control::listen(&self.control, &root, &self.config).unwrap_or_else(|error| {
            notice(&format!("{error:#}: users other than root have no verbs"));
            None
        })
    }

    fn started(&self, metrics: Result<SocketAddr>) -> Started {
        Started {
            adopted: self.loaded.adopted,
            policy: self.loaded.in_force().policy.clone(),
            interfaces: self
                .loaded
                .in_force()
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

/// Describes why a file is not in force; `None` if it is in force.
fn differs(loaded: &Loaded, policy: &Result<Policy>, config: &Path) -> Option<String> {
    match policy {
        Err(error) => Some(cli_error::text_of(error)),
        Ok(policy) if *policy.sha256() == loaded.in_force().breaker.policy().sha256 => None,
        Ok(policy) => Some(format!(
            "{} was changed: it is policy {} with sha256 {}",
            config.display(),
            policy.name(),
            policy.sha256_hex()
        )),
    }
}

/// Completes when the sender is dropped.
fn ended(stopped: &signal::Receiver<()>) -> impl Future<Output = ()> + use<> {
    let mut stopped = stopped.clone();
    async move { while stopped.changed().await.is_ok() {} }
}

/// Notifies the service manager. The result is ignored: the agent may run without a service manager.
fn notify(state: &[NotifyState]) {
    let _ = sd_notify::notify(state);
}
