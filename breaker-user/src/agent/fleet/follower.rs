//! Follows the records of the fleet: a change becomes a switch, or work that may wait.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use jiff::Timestamp;
use serde_json::json;
use tokio::select;
use tokio::sync::mpsc::{self, Receiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::host::Host;
use super::live;
use super::memory::Memory;
use super::reading::{self, Reading};
use super::records::{News, Records, in_order};
use super::status::Status;
use super::work::{self, Work, ack, acknowledge};
use crate::agent::notice::notice;
use crate::config::{self, EngineLossAction, FleetTls};
use crate::display::hex;
use crate::fleet::FleetScope;
use crate::fleet::engine::{self, Endpoints, Engine, Entry, Kind, Tls, Update, Watch};
use crate::fleet::record::{self, Trip, Verb};

/// Time between two looks at the age of the contact.
const LOSS: Duration = Duration::from_millis(250);
/// Longest time of a call.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed reading.
const PAUSE: Duration = Duration::from_millis(200);

/// The follower of a fleet.
pub struct Follower {
    config: config::Fleet,
    host: Arc<Host>,
    status: Arc<Status>,
    memory: Memory,
    records: Records,
    /// The records were read at least once since the start.
    has_read: bool,
    /// The lost contact was reported.
    is_lost: bool,
}

/// The connection to etcd, and the queue of work.
struct Link {
    engine: Arc<Engine>,
    work: UnboundedSender<Work>,
}

impl Follower {
    /// Makes a follower that knows what the agent knew before.
    pub fn new(config: config::Fleet, host: Arc<Host>, status: Arc<Status>, memory: Memory) -> Self {
        Self { config, host, status, memory, records: Records::default(), has_read: false, is_lost: false }
    }

    /// Follows the fleet until the shutdown. Sends on `applied` when the standing trips are in the kernel.
    pub async fn run(mut self, applied: oneshot::Sender<()>, shutdown: impl Future<Output = ()>) {
        // What was known before needs no etcd.
        self.host.switches.trip(|_| {});
        // What was known before the start shows whether the cluster is older.
        self.status.update(|contact| contact.revision = self.memory.revision);
        let mut applied = Some(applied);
        tokio::pin!(shutdown);
        select! {
            () = &mut shutdown => {}
            () = self.follow(&mut applied) => {}
        }
        self.memory.standing = self.host.switches.standing();
        if let Err(error) = self.memory.write(&self.host.loaded.in_force().breaker) {
            notice(&format!("what is known of the fleet is not written: {error:#}"));
        }
    }

    async fn follow(&mut self, applied: &mut Option<oneshot::Sender<()>>) {
        let engine = self.connect().await;
        let mut tasks = JoinSet::new();
        let (work, queue) = mpsc::unbounded_channel();
        tasks.spawn(work::run(Arc::clone(&self.host), Arc::clone(&engine), queue));
        tasks.spawn(live::run(Arc::clone(&self.host), Arc::clone(&engine), Arc::clone(&self.status)));
        let (sender, mut relisted) = mpsc::channel(1);
        let parts = (Arc::clone(&self.host), Arc::clone(&engine), Arc::clone(&self.status));
        tasks.spawn(reading::relist(parts, sender));
        tasks.spawn(warn_of_old_members(Arc::clone(&engine)));
        let link = Link { engine, work };
        loop {
            let reading = match reading::read(&self.host, &link.engine, &self.status).await {
                Ok(reading) => reading,
                Err(error) => {
                    self.failed(&error);
                    self.check_loss(&link);
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let revision = reading.revision();
            self.take(&link, reading).await;
            if let Some(applied) = applied.take() {
                let _ = applied.send(());
            }
            self.watch(&link, revision + 1, &mut relisted).await;
        }
    }

    /// Makes the clients of the members, as soon as the certificates can be read.
    async fn connect(&mut self) -> Arc<Engine> {
        let tls = self.config.tls.as_ref().map(|FleetTls { ca, cert, key }| Tls {
            ca: ca.as_path().to_owned(),
            cert: cert.as_path().to_owned(),
            key: key.as_path().to_owned(),
        });
        let urls = self.config.endpoints.iter().map(|url| url.as_str().to_owned()).collect();
        let endpoints = Endpoints { urls, tls };
        loop {
            match Engine::new(&endpoints) {
                Ok(engine) => return Arc::new(engine.with_timeout(TIMEOUT)),
                Err(error) => self.failed(&error),
            }
            sleep(TIMEOUT).await;
        }
    }

    /// Watches from a revision on. Returns when the records must be read again.
    async fn watch(&mut self, link: &Link, from: i64, relisted: &mut Receiver<engine::Result<Reading>>) {
        let [first, end] = self.host.prefix.switches();
        // One watch for trips and resets, so that no reset comes before its trip.
        let mut watches: [Watch; 2] = [
            link.engine.watch_range(&first, &end, from),
            link.engine.watch(&self.host.prefix.commands(), from),
        ];
        let mut loss = interval(LOSS);
        loss.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let next = select_all(watches.iter_mut().map(|watch| Box::pin(watch.next())));
            select! {
                (update, ..) = next => match update {
                    Update::Changed { key, entry, revision } => {
                        self.status.answered();
                        self.change(link, &key, entry, revision);
                    }
                    Update::Progress { .. } => {
                        self.contact();
                        self.publish_loss(link).await;
                    }
                    Update::Lost { member, error } => {
                        self.status.update(|contact| contact.error = Some(format!("{member}: {error}")));
                    }
                    Update::Compacted => return,
                },
                Some(result) = relisted.recv() => match result {
                    // A watch on a restored cluster waits for a revision that is far away.
                    Ok(reading) => if self.take(link, reading).await { return },
                    Err(error) => self.failed(&error),
                },
                _ = loss.tick() => self.check_loss(link),
            }
        }
    }

    /// Takes over a change that a watch has reported.
    fn change(&mut self, link: &Link, key: &str, entry: Option<Entry>, revision: i64) {
        let Some(key) = self.host.prefix.strip(key).map(str::to_owned) else { return };
        let news = self.records.change(&key, entry.map(|entry| entry.value), revision);
        self.apply(link, news.into_iter().map(|news| (news, false)).collect());
        self.learn_revision(revision);
    }

    /// Takes over all records as they were read. Returns true if they are the first of another cluster.
    async fn take(&mut self, link: &Link, reading: Reading) -> bool {
        self.contact();
        let revision = reading.revision();
        let cluster = reading.snapshots.first().map_or(0, |snapshot| snapshot.cluster_id);
        let before = self.memory.distrusted.clone();
        self.memory.meet(cluster, revision, reading.known);
        let is_other = self.memory.distrusted != before;
        if is_other {
            // The revisions of the other cluster are not those that are known.
            (self.records, self.has_read) = (Records::default(), false);
            self.distrust();
            self.save(link);
        }
        let known = self.memory.revision;
        let mut news = Vec::new();
        for (key, entry) in in_order(&self.host.prefix, reading.snapshots) {
            if !self.records.is_newer(&key, entry.mod_revision) {
                continue;
            }
            let is_new = entry.mod_revision > known;
            // The watch has reported what is newer, and not this.
            if self.has_read && !is_new {
                self.record("fleet_diverged", json!({ "key": key, "revision": entry.mod_revision }));
            }
            let found = self.records.change(&key, Some(entry.value), entry.mod_revision);
            news.extend(found.filter(|_| is_new).map(|news| (news, !self.has_read)));
        }
        self.apply(link, news);
        if !std::mem::replace(&mut self.has_read, true) {
            self.activate_at_start(link);
        }
        self.learn_revision(revision);
        // Resets that were refused, such as of a sender that had not stopped, are tried again. A cluster that
        // is not trusted may lack the trip that tripped a scope, so it lifts nothing.
        if self.memory.distrusted.is_none() {
            let _ = link.work.send(Work::Lift { reset: None });
        }
        self.publish_loss(link).await;
        is_other
    }

    /// Puts trips into the kernel, acknowledges them, and queues everything else.
    fn apply(&mut self, link: &Link, news: Vec<(News, bool)>) {
        let trusted = self.memory.distrusted.is_none();
        let seen_at = Timestamp::now();
        let tripped = self.host.switches.trip(|standing| standing.update(&self.records.switches, trusted));
        let mut acks = Vec::new();
        let is_new = !news.is_empty();
        for (news, is_missed) in news {
            match news {
                News::Trip { key, trip: Some(trip) } => {
                    let scope = key.parse::<FleetScope>().ok();
                    if let Some(scope) = scope.and_then(|scope| self.host.switches.own_scope(&scope)) {
                        let done = self.host.switches.is_tripped(&scope);
                        let found = done.as_ref().err().map(|error| format!("{error:#}"));
                        let ack = ack(found, done.unwrap_or(false));
                        acks.push((trip.id, record::Ack { seen_at, ..ack }));
                    }
                }
                News::Trip { trip: None, .. } => {}
                other => self.queue(link, other, is_missed, trusted),
            }
        }
        if !acks.is_empty() {
            let (host, engine) = (Arc::clone(&self.host), Arc::clone(&link.engine));
            tokio::spawn(async move { acknowledge(&host, &engine, acks).await });
        }
        for trip in tripped {
            let author = self.records.author_of_trip(&trip.key);
            let _ = link.work.send(Work::Tripped { scope: trip.scope, key: trip.key, author });
        }
        if is_new {
            self.save(link);
        }
    }

    /// Queues what a record asks for, apart from a trip.
    fn queue(&mut self, link: &Link, news: News, is_missed: bool, trusted: bool) {
        let work = match news {
            News::Reset { trip, reset } if trusted => {
                let scope = self.records.scope_of_trip(&trip);
                let scope = scope.and_then(|scope| self.host.switches.own_scope(&scope));
                Work::Lift { reset: scope.map(|scope| (scope, reset)) }
            }
            News::Active(active) if trusted => Work::Activate(active),
            News::Command { id, command } if trusted => {
                let is_own = matches!(command.verb, Verb::Arm | Verb::Disarm | Verb::Publish);
                if !is_own {
                    return;
                }
                let scope = command.subject.parse::<FleetScope>().ok();
                let scope = scope.and_then(|scope| self.host.switches.own_scope(&scope));
                Work::Command { id, command, scope, active: self.records.active(), is_missed }
            }
            News::Trip { .. } | News::Reset { .. } | News::Active(_) | News::Command { .. } => return,
        };
        let _ = link.work.send(work);
    }

    /// Puts the active policy in force if another one is, for example after a reboot that loaded the file.
    fn activate_at_start(&self, link: &Link) {
        let in_force = hex(&self.host.loaded.in_force().breaker.policy().sha256);
        let active = self.records.active().filter(|active| active.sha256 != in_force);
        if let Some(active) = active.filter(|_| self.memory.distrusted.is_none()) {
            let _ = link.work.send(Work::Activate(active));
        }
    }

    fn save(&mut self, link: &Link) {
        self.memory.standing = self.host.switches.standing();
        let _ = link.work.send(Work::Save(self.memory.clone()));
    }

    fn learn_revision(&mut self, revision: i64) {
        self.memory.revision = self.memory.revision.max(revision);
        self.status.update(|contact| contact.revision = self.memory.revision);
    }

    /// Records that etcd has answered.
    fn contact(&mut self) {
        self.status.answered();
        if std::mem::take(&mut self.is_lost) {
            self.record("fleet_contact", json!({}));
        }
    }

    fn failed(&self, error: &engine::Error) {
        let text = error.to_string();
        self.status.update(|contact| {
            if contact.error.as_ref() != Some(&text) && error.kind() != Kind::Unreachable {
                notice(&format!("fleet: {text}"));
            }
            contact.error = Some(text);
        });
    }

    /// Does what the policy says if the contact is older than it allows, once.
    fn check_loss(&mut self, link: &Link) {
        let config::EngineLoss { after, action } = self.config.on_engine_loss;
        let age = self.status.age();
        if self.is_lost || age < after {
            return;
        }
        self.is_lost = true;
        let error = self.status.contact().error;
        let counts =
            json!({ "age_ms": age.as_millis() as u64, "action": action.to_string(), "found": error });
        self.record("fleet_lost", counts);
        if action == EngineLossAction::Trip {
            self.trip_for_loss(link);
        }
    }

    /// Trips this host. etcd gets the trip with the next contact.
    fn trip_for_loss(&mut self, link: &Link) {
        let name = self.host.switches.host().clone();
        let why = format!("no contact with etcd for {:?}", self.config.on_engine_loss.after);
        let trip = Trip { id: record::new_id(), by: name.to_string(), why, at: Timestamp::now() };
        let scope = FleetScope::Host(name);
        let id = trip.id.clone();
        let tripped = self.host.switches.trip(|standing| standing.add(&scope, id));
        self.memory.unpublished = Some(trip.clone());
        for found in tripped {
            let author = Some([trip.id.clone(), trip.by.clone(), trip.why.clone()]);
            let _ = link.work.send(Work::Tripped { scope: found.scope, key: found.key, author });
        }
        self.save(link);
    }

    /// Writes a trip for lost contact to etcd, so that the fleet can reset it.
    async fn publish_loss(&mut self, link: &Link) {
        let Some(trip) = self.memory.unpublished.clone() else { return };
        let scope = FleetScope::Host(self.host.switches.host().clone());
        let Ok(value) = record::encode(&trip) else { return };
        let entries = [(self.host.prefix.trip(&scope), value)];
        match link.engine.put(&entries, None).await {
            Ok(_) => {
                self.memory.unpublished = None;
                self.save(link);
            }
            Err(error) => notice(&format!("fleet: the trip for lost contact is not written: {error}")),
        }
    }

    /// Reports that the cluster is not trusted.
    fn distrust(&self) {
        let found = self.memory.distrusted.clone().unwrap_or_default();
        notice(&format!("fleet: {found}: its trips are obeyed, its resets and policies are not"));
        self.record("fleet_distrusted", json!({ "found": found }));
    }

    fn record(&self, kind: &str, counts: serde_json::Value) {
        self.host.log.record(self.host.loaded.entry(kind, counts));
    }
}

/// Reports the members whose version has known faults of authorisation.
async fn warn_of_old_members(engine: Arc<Engine>) {
    for (url, version) in engine.versions().await {
        if let Ok(version) = version
            && engine::is_old(&version)
        {
            notice(&format!(
                "fleet: etcd {version} at {url} has known faults of authorisation: use 3.4.44, 3.5.33, \
                 3.6.14, 3.7.1 or newer"
            ));
        }
    }
}
