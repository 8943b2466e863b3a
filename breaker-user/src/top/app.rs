//! The state of the live view: what was read last, and what the person has chosen.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::input::Input;
use super::sort::Sort;
use super::source::Reading;
use super::style::Style;
use super::trip::Dialog;
use crate::audit::Line;
use crate::rates::{Ring, SECONDS};
use crate::view::rates::{Rates, SessionRates};
use crate::view::top::{Connection, Top};

/// Events that are kept for the list of the newest ones.
const MAX_EVENTS: usize = 200;
/// Seconds that one cell of a sparkline stands for.
pub const CELL_S: usize = 15;

/// The choices of the command line.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Allow `t` to trip a scope.
    pub act: bool,
    /// Colours and characters.
    pub style: Style,
}

/// The main part of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// All scopes.
    Scopes,
    /// One scope, by its name.
    Details(String),
    /// All problems with their remedies.
    Problems,
    /// The keys.
    Help,
}

/// The section that a small terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The scopes.
    Scopes,
    /// The newest events.
    Events,
}

/// The state of the live view.
pub struct App {
    /// The choices of the command line.
    pub options: Options,
    /// The last document; `None` before the first one.
    pub top: Option<Top>,
    /// The reason why the state cannot be read now.
    pub failure: Option<String>,
    /// Time of the last document.
    pub read_at: Instant,
    /// Rates of the last 15 minutes.
    pub ring: Ring,
    /// Newest events, the newest last.
    pub events: VecDeque<Line>,
    /// Connections of the scope in detail.
    pub connections: Vec<Connection>,
    /// Positions in `top.sessions` of the sessions of each scope of `top.scopes`.
    pub members: Vec<Vec<usize>>,
    /// The main part of the screen.
    pub screen: Screen,
    /// The section that a small terminal shows.
    pub section: Section,
    /// Order of the scopes.
    pub sort: Sort,
    /// Text that the name of a shown scope contains.
    pub filter: String,
    /// The filter while it is being typed.
    pub typing: Option<Input>,
    /// Name of the selected scope.
    pub selected: Option<String>,
    /// First shown row or line of the screen.
    pub scroll: usize,
    /// Seconds before the last sample of which the rates are shown.
    pub back: usize,
    /// The dialog of a trip.
    pub dialog: Option<Dialog>,
    /// The result of the last key, until the next key.
    pub message: Option<String>,
}

impl App {
    /// An empty view.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            top: None,
            failure: None,
            read_at: Instant::now(),
            ring: Ring::default(),
            events: VecDeque::new(),
            connections: Vec::new(),
            members: Vec::new(),
            screen: Screen::Scopes,
            section: Section::Scopes,
            sort: Sort::Group,
            filter: String::new(),
            typing: None,
            selected: None,
            scroll: 0,
            back: 0,
            dialog: None,
            message: None,
        }
    }

    /// Continues the rates that the agent has recorded up to this second.
    pub fn continue_rates(&mut self, second: u64, rates: &Rates<Vec<SessionRates>>) {
        self.ring.fill(second, rates);
    }

    /// Shows a new reading.
    pub fn show(&mut self, reading: Reading) {
        if let Some(second) = reading.second {
            self.ring.record(second, &reading.samples);
            // The shown moment stays the same while it is in the past.
            if self.back != 0 {
                self.back = (self.back + 1).min(self.ring.length().saturating_sub(1));
            }
        }
        let mut top = reading.top;
        for (row, rates) in top.sessions.iter_mut().zip(self.ring.last()) {
            [row.order_per_s, row.withheld_per_s] = rates.rates;
            row.limit_permille = rates.limit_permille;
        }
        self.events.extend(top.events.iter().cloned());
        let surplus = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..surplus);
        self.members = members(&top);
        self.connections = reading.connections;
        self.failure = None;
        self.read_at = Instant::now();
        self.top = Some(top);
    }

    /// Shows that the state cannot be read.
    pub fn fail(&mut self, failure: String) {
        self.failure = Some(failure);
    }

    /// Name of the session whose connections are shown.
    pub fn details(&self) -> Option<&str> {
        match &self.screen {
            Screen::Details(name) if name.starts_with("session/") => Some(name),
            _ => None,
        }
    }

    /// Moves the shown moment, in seconds; positive is later.
    pub fn travel(&mut self, seconds: isize) {
        let oldest = self.ring.length().min(SECONDS).saturating_sub(1);
        self.back = self.back.saturating_add_signed(-seconds).min(oldest);
    }
}

/// Positions of the sessions of each scope.
fn members(top: &Top) -> Vec<Vec<usize>> {
    let position: HashMap<_, _> =
        top.scopes.iter().enumerate().map(|(at, scope)| (scope.scope.as_str(), at)).collect();
    let mut members = vec![Vec::new(); top.scopes.len()];
    for (at, row) in top.sessions.iter().enumerate() {
        let own = format!("session/{}", row.session.name);
        let groups = row.session.groups.iter().map(|name| format!("group/{name}"));
        for scope in groups.chain(["host".to_owned(), own]).filter_map(|name| position.get(&*name)) {
            members[*scope].push(at);
        }
    }
    members
}
