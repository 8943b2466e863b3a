//! Watches the attachments: root can always detach the program, but not unnoticed.

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
use super::notice::notice;
use crate::enforced::{ProblemKind, attachment_problem};
use crate::kernel::attachment::Attachment;
use crate::kernel::clock;

/// Period of the check, which takes microseconds.
const EVERY: Duration = Duration::from_millis(100);
/// Most reattachments in [`REATTACH_WINDOW`], for an interface that is recreated again and again.
const MAX_REATTACHMENTS: usize = 3;
const REATTACH_WINDOW: Duration = Duration::from_secs(60);
/// Age in ns after which a check says nothing about the present.
const STALE_NS: u64 = 2_000_000_000;

/// Kind of the event when an attachment gets this problem, or loses it.
fn kind(problem: Option<ProblemKind>) -> &'static str {
    match problem {
        None => "link_restored",
        Some(ProblemKind::Displaced) => "displaced",
        Some(_) => "link_lost",
    }
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The load exists, attached or not.
    Loaded,
    /// Neither a pin nor a link is left.
    Removed,
}

/// Time of the last check, for `/healthz`, and the number of reattachments.
#[derive(Debug, Default)]
pub struct LastCheck {
    at_ns: AtomicU64,
    reattached: Mutex<BTreeMap<String, u64>>,
}

impl LastCheck {
    /// Returns true if the last check is too long ago, or there was none.
    pub fn is_stale(&self) -> bool {
        clock::now_ns().saturating_sub(self.at_ns.load(Ordering::Relaxed)) > STALE_NS
    }

    /// Number of reattachments of an interface.
    pub fn reattachments(&self, interface: &str) -> u64 {
        let counts = self.reattached.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(interface).copied().unwrap_or_default()
    }

    fn count_reattachment(&self, interface: &str) {
        let mut counts = self.reattached.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(interface.to_owned()).or_default() += 1;
    }
}

/// The watch over the attachments of a load.
pub struct Watch {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    last: Arc<LastCheck>,
    /// Problem of each attachment at the last check.
    problems: Vec<Option<ProblemKind>>,
    /// When each attachment was found lost.
    lost: Vec<Option<Instant>>,
    /// Times of recent reattachments.
    reattachments: Vec<Instant>,
    /// The last reported error of following the policy.
    reported_error: Option<String>,
}

impl Watch {
    /// Makes a watch that assumes no problem, so that the first check reports every problem.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, last: Arc<LastCheck>) -> Self {
        let count = loaded.attachments().len();
        Self {
            problems: vec![None; count],
            lost: vec![None; count],
            reattachments: Vec::new(),
            loaded,
            log,
            last,
            reported_error: None,
        }
    }

    /// Checks until the shutdown, or until the load is unloaded.
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
            if self.check() == CheckResult::Removed {
                return;
            }
            if watchdog {
                // The result is ignored: a service manager that misses the notification restarts the agent.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        }
    }

    /// Checks once, and reports changes.
    pub fn check(&mut self) -> CheckResult {
        let found = self.loaded.attachments();
        if self.loaded.is_removed(&found) {
            return CheckResult::Removed;
        }
        self.report(&found);
        if self.reattach(&found) {
            let found = self.loaded.attachments();
            self.report(&found);
        }
        self.follow_policy();
        self.last.at_ns.store(clock::now_ns(), Ordering::Relaxed);
        CheckResult::Loaded
    }

    /// Attaches the programs to an interface that was recreated. Returns true if it did.
    fn reattach(&mut self, found: &[Attachment]) -> bool {
        let interfaces = self.loaded.in_force().breaker.interfaces().len();
        let Some(position) = found.iter().take(interfaces).position(|attachment| attachment.remade.is_some())
        else {
            return false;
        };
        self.reattachments.retain(|at| at.elapsed() < REATTACH_WINDOW);
        if self.reattachments.len() >= MAX_REATTACHMENTS {
            return false;
        }
        self.reattachments.push(Instant::now());
        let name = &found[position].name;
        match self.loaded.reattach(position) {
            Ok(ifindex) => {
                notice(&format!("{name}: recreated, and attached again as interface {ifindex}"));
                self.last.count_reattachment(name);
                let gap_ms = self.lost[position].map(|lost| lost.elapsed().as_millis() as u64);
                let counts = json!({ "interface": name, "ifindex": ifindex, "gap_ms": gap_ms });
                self.log.record(self.loaded.entry("reattached", counts));
                true
            }
            Err(error) => {
                notice(&format!("{name}: recreated, and could not be attached again: {error:#}"));
                false
            }
        }
    }

    /// Follows a change of the policy in force. The process that made the change has logged it.
    fn follow_policy(&mut self) {
        match self.loaded.follow_policy() {
            Ok(false) => {}
            Ok(true) => {
                notice(&format!("policy {} is in force", self.loaded.in_force().policy));
                self.reported_error = None;
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.reported_error.as_ref() != Some(&error) {
                    notice(&format!("figures and events are of the previous policy: {error}"));
                    self.reported_error = Some(error);
                }
            }
        }
    }

    /// Reports each attachment that has changed since the last check.
    fn report(&mut self, found: &[Attachment]) {
        for ((before, lost), attachment) in self.problems.iter_mut().zip(&mut self.lost).zip(found) {
            let (now, words) = match attachment_problem(attachment) {
                None => (None, "attached, first in its chain".to_owned()),
                Some((what, words)) => (Some(what), words),
            };
            if *before == now {
                continue;
            }
            *before = now;
            *lost = now.is_some().then(Instant::now);
            notice(&format!("{}: {words}", attachment.name));
            let counts = json!({
                "interface": attachment.name, "ifindex": attachment.ifindex, "hook": attachment.hook,
                "found": words,
            });
            self.log.record(self.loaded.entry(kind(now), counts));
        }
    }
}
