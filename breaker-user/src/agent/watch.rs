//! Watches the attachments, so that each detachment is reported and repaired.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use super::chain_watch::ChainWatch;
use super::interface_watch::InterfaceWatch;
use super::last_check::LastCheck;
use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use super::repair::{Detached, Repairs};
use super::switch_watch::SwitchWatch;
use super::tampering::Tampering;
use crate::enforced::{ProblemKind, attachment_problem};
use crate::kernel::attachment::{Attachment, Chain};
use crate::kernel::link_events::{LinkEvent, LinkEvents};

/// Period in which the chains of tcx programs are polled, because the kernel does not notify of a detached
/// link. A poll takes microseconds.
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// Number of polls until a full check, even without a changed chain.
const POLLS_PER_CHECK: u32 = 5;
/// Longest duration of an `unload`. After it, the `unload` counts as dead and its mark in META is ignored.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the kind of the event for this new problem of an attachment, or for its recovery.
fn event_kind(problem: Option<ProblemKind>) -> &'static str {
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
    /// An `unload` has removed every pin and every link.
    Removed,
}

/// The watch over the attachments of a load.
pub struct Watch {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    last: Arc<LastCheck>,
    tampering: Arc<Tampering>,
    /// Problem of each attachment at the last check.
    problems: Vec<Option<ProblemKind>>,
    /// Time of the last check that found each attachment attached.
    attached_until: Vec<Instant>,
    chains: ChainWatch,
    /// The chains at the last check.
    seen_chains: Vec<Option<Chain>>,
    interfaces: InterfaceWatch,
    switches: SwitchWatch,
    repairs: Repairs,
    /// Time at which an `unload` was first seen in progress.
    unloading_since: Option<Instant>,
    /// The last reported error of following the policy.
    reported_error: Option<String>,
}

impl Watch {
    /// Makes a watch that assumes no problem, so that the first check reports every problem.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, last: Arc<LastCheck>, tampering: Arc<Tampering>) -> Self {
        let count = loaded.attachments().len();
        let repairs =
            Repairs::new(Arc::clone(&loaded), Arc::clone(&log), Arc::clone(&last), Arc::clone(&tampering));
        Self {
            problems: vec![None; count],
            attached_until: vec![Instant::now(); count],
            chains: ChainWatch::default(),
            seen_chains: Vec::new(),
            interfaces: InterfaceWatch::default(),
            switches: SwitchWatch::default(),
            repairs,
            unloading_since: None,
            loaded,
            log,
            last,
            tampering,
            reported_error: None,
        }
    }

    /// Checks until the shutdown, or until the load is unloaded. Checks at each notification about an
    /// interface, at each changed chain, and every [`POLLS_PER_CHECK`] polls.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let watchdog = sd_notify::watchdog_enabled().is_some();
        let events = subscribe();
        let mut tick = interval(POLL_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut polls = 0;
        loop {
            let found = select! {
                _ = tick.tick() => {
                    polls = (polls + 1) % POLLS_PER_CHECK;
                    if polls != 0 && self.loaded.chains() == self.seen_chains {
                        continue;
                    }
                    Vec::new()
                }
                found = next_events(events.as_ref()) => found,
                () = &mut shutdown => return,
            };
            self.report_interfaces(&found);
            if self.check() == CheckResult::Removed {
                return;
            }
            if watchdog {
                // The result is ignored: a service manager that misses the notification restarts the agent.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        }
    }

    /// Checks once, and reports and repairs changes.
    pub fn check(&mut self) -> CheckResult {
        let found = self.loaded.attachments();
        if self.loaded.was_unloaded() {
            if self.loaded.is_removed(&found) {
                return CheckResult::Removed;
            }
            if self.unloading_since.get_or_insert_with(Instant::now).elapsed() < UNLOAD_TIMEOUT {
                return CheckResult::Loaded;
            }
        } else {
            self.unloading_since = None;
        }
        self.follow_policy();
        self.report(&found);
        // A re-attached program reads the same switches, so they are repaired first.
        self.switches.check(&self.loaded.in_force(), &self.tampering);
        self.repairs.restore_pins();
        if self.reattach(&found) {
            let found = self.loaded.attachments();
            self.report(&found);
        }
        let (found, generation) = (self.loaded.attachments(), self.loaded.generation());
        self.seen_chains = self.loaded.chains();
        self.chains.check(&found, self.seen_chains.clone(), generation, &self.tampering);
        self.tampering.log_suppressed();
        self.last.record_check();
        CheckResult::Loaded
    }

    /// Attaches detached programs again, once for each interface. Returns true if a program was attached.
    fn reattach(&mut self, found: &[Attachment]) -> bool {
        let interfaces = self.loaded.in_force().breaker.interfaces().len().max(1);
        let mut repaired = vec![false; interfaces];
        for (index, attachment) in found.iter().enumerate().filter(|(_, found)| !found.attached) {
            let position = index % interfaces;
            if repaired[position] {
                continue;
            }
            let attached_until = self.attached_until[index];
            let recreated_at = self.interfaces.recreated_at(&attachment.name);
            let detached = Detached { position, attachment, attached_until, recreated_at };
            repaired[position] = self.repairs.reattach(&detached);
        }
        repaired.contains(&true)
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

    /// Reports each change of a covered interface.
    fn report_interfaces(&mut self, events: &[LinkEvent]) {
        self.interfaces.follow(self.loaded.in_force().breaker.interfaces());
        for change in self.interfaces.changes(events, Instant::now()) {
            notice(&format!("{}: {}", change.interface, change.found));
            let counts =
                json!({ "interface": change.interface, "ifindex": change.index, "found": change.found });
            self.log.record(self.loaded.entry("interface_changed", counts));
        }
    }

    /// Reports each attachment that has changed since the last check.
    fn report(&mut self, found: &[Attachment]) {
        for ((before, attached_until), attachment) in
            self.problems.iter_mut().zip(&mut self.attached_until).zip(found)
        {
            if attachment.attached {
                *attached_until = Instant::now();
            }
            let (now, description) = match attachment_problem(attachment) {
                None => (None, "attached, first in its chain".to_owned()),
                Some((kind, description)) => (Some(kind), description),
            };
            if *before == now {
                continue;
            }
            *before = now;
            notice(&format!("{}: {description}", attachment.name));
            let counts = json!({
                "interface": attachment.name, "ifindex": attachment.ifindex, "hook": attachment.hook,
                "found": description,
            });
            self.log.record(self.loaded.entry(event_kind(now), counts));
        }
    }
}

/// Subscribes to notifications. If this fails, only the periodic checks remain.
fn subscribe() -> Option<AsyncFd<LinkEvents>> {
    let events = LinkEvents::subscribe().and_then(|events| {
        // SAFETY: the subscription owns its file descriptor for its whole lifetime.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        events.map_err(std::io::Error::from)
    });
    let failed = |error| notice(&format!("the kernel does not notify of changed interfaces: {error}"));
    events.map_err(failed).ok()
}

/// Waits for notifications. Without a subscription, never completes.
async fn next_events(events: Option<&AsyncFd<LinkEvents>>) -> Vec<LinkEvent> {
    let Some(events) = events else { return std::future::pending().await };
    let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
    match events.get_ref().read() {
        Ok(found) => {
            ready.clear_ready();
            found
        }
        Err(error) => {
            notice(&format!("a notification about interfaces was not read: {error}"));
            ready.clear_ready();
            vec![LinkEvent::Lost]
        }
    }
}
