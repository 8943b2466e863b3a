//! `learn`: peaks, and the limits that they propose. The field names are a contract with scripts.

use breaker_common::message::LimitClass;
use breaker_replay::engine::Figures;
use jiff::Timestamp;
use serde::Serialize;

use super::replay::{Capture, capture, time};
use crate::config::{self, Policy, SessionIndex};
use crate::display;
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
    /// Its time, if it is known.
    pub peak_at: Option<Timestamp>,
    /// Number of days with messages.
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
        for (flow, learnt) in flows.iter().zip(&learner.flow_peaks) {
            // A flow without CompIDs cannot be told apart at an endpoint with others.
            let is_shared = flows.iter().filter(|other| other.remote == flow.remote).count() > 1;
            if !learnt.is_empty() && !(is_shared && (flow.sender.is_empty() || flow.target.is_empty())) {
                let name = unused_name(flow, &sessions);
                sessions.push(seen(name, flow, windows(learnt, factor)));
            }
        }
        Self {
            captures: read.iter().map(capture).collect(),
            factor,
            notes: notes(learner, figures),
            sessions,
        }
    }

    /// Makes the view of the peaks of what is loaded.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn from_load(policy: &Policy, breaker: &Breaker, factor: f64) -> anyhow::Result<Self> {
        let mut sessions = Vec::new();
        for index in policy.scopes().sessions() {
            let Some(mut session) = declared(policy, index) else { continue };
            if let Ok(scope) = breaker.find(&format!("session/{}", session.name)) {
                for found in breaker.limits(scope)?.iter().filter(|found| found.limit.per_fill == 0) {
                    let peak = DayPeak { day: 0, peak: found.peak, at_ns: 0 };
                    let class = display::class(found.limit.class);
                    if found.peak != 0 {
                        let mut window = window(class, display::interval(&found.limit), &[peak], factor);
                        window.peak_at = None;
                        session.windows.push(window);
                    }
                }
            }
            sessions.push(session);
        }
        let notes = vec![
            "the kernel keeps the peaks of the limits in force, since the load: captures show all windows"
                .to_owned(),
        ];
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

/// Returns a name from the CompIDs of a flow that no session has.
fn unused_name(flow: &Flow, sessions: &[Session]) -> String {
    let id = if flow.target.is_empty() { "session" } else { &flow.target };
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let base: String = id.chars().map(plain).collect();
    let base = base.trim_matches('-');
    let base = if base.is_empty() { "session" } else { base };
    let is_free =
        |name: &String| name != "undeclared" && sessions.iter().all(|session| session.name != *name);
    let mut names = (1..).map(|number| format!("{base}-{number}"));
    names.find(is_free).unwrap_or_default()
}

fn windows(learnt: &Learnt, factor: f64) -> Vec<Window> {
    let mut made = Vec::new();
    for class in LimitClass::ALL {
        let Some(days) = learnt.days(class) else { continue };
        let windows = WINDOWS.iter().zip(days);
        made.extend(windows.map(|(per, days)| window(class.name(), display::duration(*per), days, factor)));
    }
    made
}

fn window(class: &'static str, per: String, days: &[DayPeak], factor: f64) -> Window {
    /// Largest limit of a configuration.
    const LARGEST: f64 = 1e9;
    let mut peaks: Vec<_> = days.iter().map(|day| day.peak).collect();
    peaks.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (peaks.len() * percent).div_ceil(100).max(1);
        peaks.get(rank - 1).copied().unwrap_or_default()
    };
    let highest = days.iter().rev().max_by_key(|day| day.peak);
    let peak = highest.map_or(0, |day| day.peak);
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
