//! `learn`: peaks, and the limits that they propose. The field names are a contract with scripts.

use std::collections::{HashMap, HashSet};

use breaker_common::message::LimitClass;
use breaker_replay::engine::Figures;
use jiff::Timestamp;
use serde::Serialize;

use super::learn_log::LoggedPeaks;
use super::replay::{Capture, capture, time};
use crate::config::{self, Policy, SessionIndex};
use crate::display;
use crate::journal;
use crate::kernel::Breaker;
use crate::replay::captures::CaptureRead;
use crate::replay::flow::Flow;
use crate::replay::learn::{DayPeak, Learner, Learnt, WINDOWS};

/// The result of `learn`.
#[derive(Debug, Serialize)]
pub struct Learn {
    /// The captures; none if the peaks are those of what is loaded.
    pub captures: Vec<Capture>,
    /// A proposal is the highest peak, times this factor.
    pub factor: f64,
    /// Why the peaks are not exact.
    pub notes: Vec<String>,
    /// Sessions with their peaks.
    pub sessions: Vec<Session>,
}

/// A session, declared or seen.
#[derive(Debug, Serialize)]
pub struct Session {
    /// Name of the session; made up for a flow that the configuration does not declare.
    pub name: String,
    /// True if the configuration declares it.
    pub declared: bool,
    /// Remote endpoints.
    pub remote: Vec<String>,
    /// SenderCompID(49), if it was seen or is declared.
    pub sender: Option<String>,
    /// TargetCompID(56), if it was seen or is declared.
    pub target: Option<String>,
    /// Peaks and proposals, by class and window.
    pub windows: Vec<Window>,
    /// The session in the configuration.
    #[serde(skip)]
    pub index: Option<SessionIndex>,
}

/// A window of a class.
#[derive(Debug, Serialize)]
pub struct Window {
    /// Class of the messages.
    pub class: &'static str,
    /// Length of the window, or `total`.
    pub per: String,
    /// The highest peak.
    pub peak: u64,
    /// Its time; null for a peak since the load.
    pub peak_at: Option<Timestamp>,
    /// Number of days with messages; of what is loaded, days with warnings in the audit log.
    pub days: usize,
    /// Median of the daily peaks.
    pub p50: u64,
    /// 90th percentile of the daily peaks.
    pub p90: u64,
    /// The proposed limit.
    pub max: u64,
    /// Days on which the proposal would have warned at half of the limit.
    pub days_warned: usize,
    /// Days on which the proposal would have tripped.
    pub days_tripped: usize,
}

impl Learn {
    /// Makes the view of what captures show. The policy has the declared sessions.
    pub fn from_captures(
        policy: &Policy,
        learner: &Learner,
        figures: &Figures,
        (read, factor): (&[CaptureRead], f64),
    ) -> Self {
        let declared = policy.scopes().sessions().filter_map(|index| {
            let learnt = learner.sessions.get(index.get() as usize)?;
            let mut session = declared(policy, index)?;
            session.windows = windows(learnt, factor);
            Some(session)
        });
        let mut sessions: Vec<_> = declared.collect();
        let flows = learner.flows.all();
        let mut names = Names::of(&sessions);
        for (flow, learnt) in flows.iter().zip(&learner.flow_peaks) {
            // A flow without CompIDs cannot be told apart at an endpoint with others.
            let is_shared = flows.iter().filter(|other| other.remote == flow.remote).count() > 1;
            if !learnt.is_empty() && !(is_shared && (flow.sender.is_empty() || flow.target.is_empty())) {
                sessions.push(seen(names.unused(flow), flow, windows(learnt, factor)));
            }
        }
        Self {
            captures: read.iter().map(capture).collect(),
            factor,
            notes: notes(learner, figures),
            sessions,
        }
    }

    /// Makes the view of the peaks of what is loaded, and of the days with warnings in its audit log.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn from_load(policy: &Policy, breaker: &Breaker, factor: f64) -> anyhow::Result<Self> {
        let mut notes = vec![
            "the kernel keeps the peaks of the limits in force since the load, and the audit log those of \
             warnings and trips: captures show all windows"
                .to_owned(),
        ];
        let logged = LoggedPeaks::read(journal::path(breaker)).unwrap_or_else(|error| {
            notes.push(format!("{error:#}: peaks from before the load are unknown"));
            LoggedPeaks::default()
        });
        let mut sessions = Vec::new();
        for index in policy.scopes().sessions() {
            let Some(mut session) = declared(policy, index) else { continue };
            let name = format!("session/{}", session.name);
            if let Ok(scope) = breaker.find(&name) {
                for found in breaker.limits(scope)?.iter().filter(|found| found.limit.per_fill == 0) {
                    let days = logged.of(&name, &found.limit);
                    if found.peak != 0 || !days.is_empty() {
                        let class = display::class(found.limit.class);
                        let per = display::interval(&found.limit);
                        session.windows.push(window(class, per, (&days, found.peak), factor));
                    }
                }
            }
            sessions.push(session);
        }
        Ok(Self { captures: Vec::new(), factor, notes, sessions })
    }

    /// Returns true if a capture breaks off.
    pub fn is_broken(&self) -> bool {
        self.captures.iter().any(|capture| capture.broken.is_some())
    }
}

fn notes(learner: &Learner, figures: &Figures) -> Vec<String> {
    let inexact = [
        (figures.cut_unread, "segments are cut by the snaplen where a message may start"),
        (figures.cut_headers, "packets are cut by the snaplen before their TCP header ends"),
        (figures.gaps, "gaps in streams: the capture does not have their bytes"),
        (learner.blind_orders, "orders are counted by bytes that could not be read, 100 bytes each"),
    ];
    inexact.iter().filter(|(count, _)| *count != 0).map(|(count, what)| format!("{count} {what}")).collect()
}

fn declared(policy: &Policy, index: SessionIndex) -> Option<Session> {
    let found = policy.session(index)?;
    let text = |id: &Option<config::CompId>| id.as_ref().map(|id| id.as_str().to_owned());
    Some(Session {
        name: found.name.to_string(),
        declared: true,
        remote: found.remotes.iter().map(ToString::to_string).collect(),
        sender: text(&found.sender),
        target: text(&found.target),
        windows: Vec::new(),
        index: Some(index),
    })
}

fn seen(name: String, flow: &Flow, windows: Vec<Window>) -> Session {
    let text = |id: &String| (!id.is_empty()).then(|| id.clone());
    Session {
        name,
        declared: false,
        remote: vec![flow.remote.to_string()],
        sender: text(&flow.sender),
        target: text(&flow.target),
        windows,
        index: None,
    }
}

/// Names of sessions, and the highest number in a made-up name by its text.
struct Names {
    used: HashSet<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn of(sessions: &[Session]) -> Self {
        let used = sessions.iter().map(|session| session.name.clone()).collect();
        Self { used, numbers: HashMap::new() }
    }

    /// Returns a name from the CompIDs of a flow that no session has.
    fn unused(&mut self, flow: &Flow) -> String {
        let id = if flow.target.is_empty() { "session" } else { &flow.target };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let base: String = id.chars().map(plain).collect();
        let base = match base.trim_matches('-') {
            "" => "session",
            base => base,
        };
        let number = self.numbers.entry(base.to_owned()).or_default();
        loop {
            *number += 1;
            let name = format!("{base}-{number}");
            if self.used.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn windows(learnt: &Learnt, factor: f64) -> Vec<Window> {
    let mut made = Vec::new();
    for class in LimitClass::ALL {
        let Some(days) = learnt.days(class) else { continue };
        let windows = WINDOWS.iter().zip(days);
        made.extend(
            windows.map(|(per, days)| window(class.name(), display::duration(*per), (days, 0), factor)),
        );
    }
    made
}

/// `live` is the peak since the load, or 0 for captures.
fn window(class: &'static str, per: String, (days, live): (&[DayPeak], u64), factor: f64) -> Window {
    /// Largest limit of a configuration.
    const LARGEST: f64 = 1e9;
    let mut peaks: Vec<_> = days.iter().map(|day| day.peak).collect();
    peaks.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (peaks.len() * percent).div_ceil(100).max(1);
        peaks.get(rank - 1).copied().unwrap_or_default()
    };
    let highest = days.iter().rev().max_by_key(|day| day.peak).filter(|day| day.peak >= live);
    let peak = highest.map_or(live, |day| day.peak);
    let max = (peak as f64 * factor).ceil().clamp(1.0, LARGEST) as u64;
    Window {
        class,
        per,
        peak,
        peak_at: highest.map(|day| time(day.at_ns)),
        days: days.len(),
        p50: percentile(50),
        p90: percentile(90),
        max,
        days_warned: peaks.iter().filter(|peak| **peak >= max.div_ceil(2)).count(),
        days_tripped: peaks.iter().filter(|peak| **peak > max).count(),
    }
}
