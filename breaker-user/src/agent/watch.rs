//! Watches the attachments: root can always detach the program, but not unnoticed.

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
use super::repair::{Lost, Repairs};
use super::switch_watch::SwitchWatch;
use super::tampering::Tampering;
use crate::enforced::{ProblemKind, attachment_problem};
use crate::kernel::attachment::{Attachment, Chain};
use crate::kernel::link_events::{LinkEvent, LinkEvents};

/// Period of the look at the chains of tcx programs, which takes microseconds. The kernel does not notify
/// of a detached link.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A check follows every so many looks.
const LOOKS_PER_CHECK: u32 = 5;
/// Time that an `unload` takes at most. One that dies leaves its mark in META.
const UNLOAD_TIME: Duration = Duration::from_secs(5);

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
    /// When each attachment was last found attached.
    attached_until: Vec<Instant>,
    chains: ChainWatch,
    /// The chains at the last check.
    seen_chains: Vec<Option<Chain>>,
    interfaces: InterfaceWatch,
    switches: SwitchWatch,
    repairs: Repairs,
    /// When an `unload` was first seen at work.
    unloading: Option<Instant>,
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
            unloading: None,
            loaded,
            log,
            last,
            tampering,
            reported_error: None,
        }
    }

    /// Checks until the shutdown, or until the load is unloaded: at each notification of the kernel about an
    /// interface, and in between.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let watchdog = sd_notify::watchdog_enabled().is_some();
        let events = subscribe();
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut looks = 0;
        loop {
            let found = select! {
                _ = tick.tick() => {
                    looks = (looks + 1) % LOOKS_PER_CHECK;
                    if looks != 0 && self.loaded.chains() == self.seen_chains {
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
            if self.unloading.get_or_insert_with(Instant::now).elapsed() < UNLOAD_TIME {
                return CheckResult::Loaded;
            }
        } else {
            self.unloading = None;
        }
        self.follow_policy();
        self.report(&found);
        // A program that is attached again has the switches of before.
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
        self.last.checked();
        CheckResult::Loaded
    }

    /// Attaches the programs again that are not attached, each interface once. Returns true if it did.
    fn reattach(&mut self, found: &[Attachment]) -> bool {
        let interfaces = self.loaded.in_force().breaker.interfaces().len().max(1);
        let mut repaired = vec![false; interfaces];
        for (index, attachment) in found.iter().enumerate().filter(|(_, found)| !found.attached) {
            let position = index % interfaces;
            if repaired[position] {
                continue;
            }
            let (attached_until, appeared) =
                (self.attached_until[index], self.interfaces.appeared(&attachment.name));
            repaired[position] =
                self.repairs.reattach(&Lost { position, attachment, attached_until, appeared });
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
            let (now, words) = match attachment_problem(attachment) {
                None => (None, "attached, first in its chain".to_owned()),
                Some((what, words)) => (Some(what), words),
            };
            if *before == now {
                continue;
            }
            *before = now;
            notice(&format!("{}: {words}", attachment.name));
            let counts = json!({
                "interface": attachment.name, "ifindex": attachment.ifindex, "hook": attachment.hook,
                "found": words,
            });
            self.log.record(self.loaded.entry(kind(now), counts));
        }
    }
}

/// Subscribes to notifications. Without them, the check in each period remains.
fn subscribe() -> Option<AsyncFd<LinkEvents>> {
    let events = LinkEvents::subscribe().and_then(|events| {
        // SAFETY: the subscription owns its file descriptor for its whole lifetime.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        events.map_err(std::io::Error::from)
    });
    let failed = |error| notice(&format!("the kernel does not notify of changed interfaces: {error}"));
    events.map_err(failed).ok()
}

/// Waits for notifications; for ever without a subscription.
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
