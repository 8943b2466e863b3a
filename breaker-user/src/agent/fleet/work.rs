//! Work that may wait for a disk or a lock, in its order and apart from the follower: a trip never waits
//! for it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;

use super::host::Host;
use super::memory::Memory;
use super::switches::Author;
use super::{policy, report};
use crate::agent::notice::notice;
use crate::config::ScopeName;
use crate::fleet::engine::Engine;
use crate::fleet::record::{Ack, ActivePolicy, Command, Reset, Verb, encode};
use crate::fleet::sameness::{Report, differences};

/// Acknowledgements by the ids of their commands.
pub type Acks = Vec<(String, Ack)>;

/// A scope of this host whose trip was lifted, and the reset that lifted it.
pub type LiftedScope = (ScopeName, Reset);

/// A piece of work.
pub enum Work {
    /// Keeps what is known of the fleet.
    Save(Memory),
    /// Logs a trip that the kernel enforces, and disconnects its connections.
    Tripped {
        /// The scope of this host.
        scope: ScopeName,
        /// The rest of the key behind `trip/`.
        key: String,
        /// Id, person and reason, if the record could be read.
        author: Option<[String; 3]>,
    },
    /// Clears the fleet's cause where it is lifted.
    Lift {
        /// The reset that lifted a trip of a scope of this host.
        reset: Option<LiftedScope>,
    },
    /// Arms, disarms, or checks a policy.
    Command {
        /// Id of the command.
        id: String,
        /// The command.
        command: Command,
        /// The scope of this host that it concerns.
        scope: Option<ScopeName>,
        /// The active policy.
        active: Option<ActivePolicy>,
        /// The command was given before the agent started.
        is_missed: bool,
    },
    /// Puts the active policy in force.
    Activate(ActivePolicy),
}

/// Does the work as it comes, and acknowledges it.
pub async fn run(host: Arc<Host>, engine: Arc<Engine>, mut queue: UnboundedReceiver<Work>) {
    let mut waiting: Vec<LiftedScope> = Vec::new();
    while let Some(work) = queue.recv().await {
        let acks = match work {
            Work::Lift { reset } => {
                waiting.extend(reset);
                let (this, resets) = (Arc::clone(&host), std::mem::take(&mut waiting));
                let lifted = spawn_blocking(move || lift(&this, resets)).await;
                let Ok((acks, still)) = lifted else { continue };
                waiting = still;
                acks
            }
            Work::Command { id, command, .. } if command.verb == Verb::Publish => {
                vec![(id, finish(would_take(&host, &engine, &command.subject).await))]
            }
            Work::Activate(active) => {
                let id = active.id.clone();
                vec![(id, finish(activate(&host, &engine, active).await))]
            }
            work => {
                let this = Arc::clone(&host);
                match spawn_blocking(move || perform(&this, work)).await {
                    Ok(ack) => ack.into_iter().collect(),
                    Err(error) => {
                        notice(&format!("fleet: {error}"));
                        continue;
                    }
                }
            }
        };
        acknowledge(&host, &engine, acks).await;
    }
}

/// Writes acknowledgements.
pub async fn acknowledge(host: &Host, engine: &Engine, acks: Acks) {
    let own = host.switches.host();
    let entries: Vec<_> =
        acks.iter().filter_map(|(id, ack)| Some((host.prefix.ack(own, id), encode(ack).ok()?))).collect();
    if let Err(error) = engine.put(&entries, None).await {
        notice(&format!("fleet: not acknowledged: {error}"));
    }
}

/// The acknowledgement of what was just done or refused.
pub fn ack(found: Option<String>, done: bool) -> Ack {
    let now = Timestamp::now();
    Ack { seen_at: now, done_at: now, done, found }
}

fn finish(result: Result<()>) -> Ack {
    match result {
        Ok(()) => ack(None, true),
        Err(error) => ack(Some(format!("{error:#}")), false),
    }
}

/// Clears the fleet's cause of lifted scopes. Returns acknowledgements, and the resets that are refused yet.
fn lift(host: &Host, resets: Vec<LiftedScope>) -> (Acks, Vec<LiftedScope>) {
    let author = resets.last().map(|(_, reset)| author_of(reset));
    let refused = host.switches.lift(author);
    let (mut acks, mut waiting) = (Vec::new(), Vec::new());
    for (scope, reset) in resets {
        let found = refused.iter().find(|(name, _)| *name == scope).map(|(_, found)| found.clone());
        let is_refused = found.is_some();
        let found = found.or_else(|| {
            let stays = host.switches.is_tripped(&scope).unwrap_or(true);
            stays.then(|| "another trip of the fleet stands".to_owned())
        });
        acks.push((reset.id.clone(), ack(found, !is_refused)));
        if is_refused {
            waiting.push((scope, reset));
        }
    }
    (acks, waiting)
}

fn author_of(reset: &Reset) -> Author<'_> {
    Author { id: &reset.id, by: &reset.by, why: &reset.why }
}

/// Does work that needs no answer of etcd. Returns its acknowledgement.
fn perform(host: &Host, work: Work) -> Option<(String, Ack)> {
    match work {
        Work::Save(memory) => {
            if let Err(error) = memory.write(&host.loaded.in_force().breaker) {
                notice(&format!("what is known of the fleet is not written: {error:#}"));
            }
            None
        }
        Work::Tripped { scope, key, author } => {
            let author = author.as_ref().map(|[id, by, why]| Author { id, by, why });
            host.switches.log_trip(&scope, &key, author);
            host.switches.disconnect(&scope);
            None
        }
        Work::Command { id, command, scope, active, is_missed } => {
            let scope = scope?;
            let done = switch(host, (&id, &command), &scope, active.as_ref(), is_missed);
            Some((id, finish(done)))
        }
        Work::Lift { .. } | Work::Activate(_) => None,
    }
}

/// Arms or disarms a scope.
fn switch(
    host: &Host,
    (id, command): (&str, &Command),
    scope: &ScopeName,
    active: Option<&ActivePolicy>,
    is_missed: bool,
) -> Result<()> {
    let author = Author { id, by: &command.by, why: &command.why };
    match command.verb {
        Verb::Arm => {
            let state = report::read(&host.loaded, &host.monitor, 0)?;
            let differences = differences(active, &Report { is_live: true, state: Some(Ok(state)) });
            let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
            // A disarmed scope keeps the breaker from being in force, and is what arming changes.
            ensure!(texts.is_empty(), "this host differs: {}", texts.join("; "));
            host.switches.arm(scope, true, author)
        }
        Verb::Disarm => {
            ensure!(!is_missed, "the agent did not run when the command was given: disarm again");
            host.switches.arm(scope, false, author)
        }
        _ => Ok(()),
    }
}

/// Fails if this host would refuse a published policy.
async fn would_take(host: &Arc<Host>, engine: &Engine, sha256: &str) -> Result<()> {
    let text = published(host, engine, sha256).await?;
    let (this, sha256) = (Arc::clone(host), sha256.to_owned());
    spawn_blocking(move || policy::check(&policy::parse(&text, &sha256)?, &this.loaded)).await?
}

async fn activate(host: &Arc<Host>, engine: &Engine, active: ActivePolicy) -> Result<()> {
    let text = published(host, engine, &active.sha256).await?;
    let this = Arc::clone(host);
    spawn_blocking(move || {
        let policy = policy::parse(&text, &active.sha256)?;
        policy::activate(&policy, &active.id, &this.loaded, &this.log)
    })
    .await?
}

/// Reads the text of a published policy.
async fn published(host: &Host, engine: &Engine, sha256: &str) -> Result<Vec<u8>> {
    let key = host.prefix.policy(sha256);
    let snapshot = engine.snapshot(&key).await?;
    let entry = snapshot.entries.into_iter().find(|(found, _)| *found == key);
    ensure!(entry.is_some(), "no policy with the sha256 {sha256} is published");
    Ok(entry.map(|(_, entry)| entry.value).unwrap_or_default())
}
