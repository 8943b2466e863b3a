//! Looks again and again whether the program is still where it was attached. Who is root can always remove it; not unseen.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use serde_json::json;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use super::loaded::Loaded;
use super::log::Log;
use crate::enforced::{ProblemKind, attachment_problem};
use crate::kernel::attachment::Attachment;
use crate::kernel::clock;

/// How often it looks: asking costs microseconds.
const EVERY: Duration = Duration::from_millis(100);
/// An interface that is made again and again, by whatever, is attached to so often
const TRIES: usize = 3;
/// in such a time.
const MINUTE: Duration = Duration::from_secs(60);
/// Older than this, what it saw last says nothing of now.
const STALE_NS: u64 = 2_000_000_000;

/// The kind of event when an attachment comes to stand so.
fn kind(standing: Option<ProblemKind>) -> &'static str {
    match standing {
        None => "link_restored",
        Some(ProblemKind::Displaced) => "displaced",
        Some(_) => "link_lost",
    }
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The load is there, well attached or not.
    Loaded,
    /// Somebody has unloaded it, as is their right.
    Unloaded,
}

/// When the watch last looked, for `/healthz`, and how often it has attached to an interface again.
#[derive(Debug, Default)]
pub struct LastCheck {
    at_ns: AtomicU64,
    reattached: Mutex<BTreeMap<String, u64>>,
}

impl LastCheck {
    /// True where that was long ago, or never.
    pub fn is_stale(&self) -> bool {
        clock::now_ns().saturating_sub(self.at_ns.load(Ordering::Relaxed)) > STALE_NS
    }

    /// How often an interface was attached to again.
    pub fn reattachments(&self, interface: &str) -> u64 {
        let counts = self.reattached.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(interface).copied().unwrap_or_default()
    }

    fn reattached(&self, interface: &str) {
        let mut counts = self.reattached.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(interface.to_owned()).or_default() += 1;
    }
}

/// The watch over the attachments of a load.
pub struct Watch {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    last: Arc<LastCheck>,
    /// What is wrong with each attachment.
    standing: Vec<Option<ProblemKind>>,
    /// When each attachment was seen to be lost.
    lost: Vec<Option<Instant>>,
    /// When interfaces were attached to again, of late.
    tries: Vec<Instant>,
    /// What kept it from following the policy, where that was told already.
    stuck: Option<String>,
}

impl Watch {
    /// A watch that takes everything to be well, and so tells of what is not at its first look.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, last: Arc<LastCheck>) -> Self {
        let count = loaded.attachments().len();
        Self {
            standing: vec![None; count],
            lost: vec![None; count],
            tries: Vec::new(),
            loaded,
            log,
            last,
            stuck: None,
        }
    }

    /// Watches until the shutdown, or until the load is unloaded.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let watchdog = sd_notify::watchdog_enabled().is_some();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            select! {
                _ = tick.tick() => {}
                () = &mut shutdown => return,
            }
            if self.look() == Found::Unloaded {
                return;
            }
            if watchdog {
                // Whoever does not hear it restarts the agent, which is all that can be done.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        }
    }

    /// Looks once, and tells of what has changed.
    pub fn look(&mut self) -> Found {
        let found = self.loaded.attachments();
        if self.loaded.is_unloaded(&found) {
            return Found::Unloaded;
        }
        self.tell(&found);
        if self.reattach(&found) {
            let found = self.loaded.attachments();
            self.tell(&found);
        }
        self.follow();
        self.last.at_ns.store(clock::now_ns(), Ordering::Relaxed);
        Found::Loaded
    }

    /// Attaches the programs again where an interface was made again. True where that was done.
    fn reattach(&mut self, found: &[Attachment]) -> bool {
        let interfaces = self.loaded.now().breaker.interfaces().len();
        let Some(position) = found.iter().take(interfaces).position(|attachment| attachment.remade.is_some())
        else {
            return false;
        };
        self.tries.retain(|tried| tried.elapsed() < MINUTE);
        if self.tries.len() >= TRIES {
            return false;
        }
        self.tries.push(Instant::now());
        let name = &found[position].name;
        match self.loaded.reattach(position) {
            Ok(ifindex) => {
                super::say(&format!(
                    "{name}: it was made again, and is protected again as interface {ifindex}"
                ));
                self.last.reattached(name);
                let gap_ms = self.lost[position].map(|lost| lost.elapsed().as_millis() as u64);
                let counts = json!({ "interface": name, "ifindex": ifindex, "gap_ms": gap_ms });
                self.log.note(self.loaded.entry("reattached", counts));
                true
            }
            Err(error) => {
                super::say(&format!("{name}: it was made again, and could not be protected: {error:#}"));
                false
            }
        }
    }

    /// Serves the policy in force, whoever has changed it; the audit log has it from them.
    fn follow(&mut self) {
        match self.loaded.follow() {
            Ok(false) => {}
            Ok(true) => {
                super::say(&format!("policy {} is in force", self.loaded.now().policy));
                self.stuck = None;
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.stuck.as_ref() != Some(&error) {
                    super::say(&format!("figures and events go by the policy before: {error}"));
                    self.stuck = Some(error);
                }
            }
        }
    }

    /// Tells of each attachment that stands otherwise than at the last look.
    fn tell(&mut self, found: &[Attachment]) {
        for ((before, lost), attachment) in self.standing.iter_mut().zip(&mut self.lost).zip(found) {
            let (now, words) = match attachment_problem(attachment) {
                None => (None, "attached, first in its chain".to_owned()),
                Some((what, words)) => (Some(what), words),
            };
            if *before == now {
                continue;
            }
            *before = now;
            *lost = now.is_some().then(Instant::now);
            super::say(&format!("{}: {words}", attachment.name));
            let counts = json!({
                "interface": attachment.name, "ifindex": attachment.ifindex, "hook": attachment.hook, "found": words,
            });
            self.log.note(self.loaded.entry(kind(now), counts));
        }
    }
}
