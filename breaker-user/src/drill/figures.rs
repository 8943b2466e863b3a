//! Results of a drill: figures and promises.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::display;
use crate::testbed::fix::{End, Ending};
use crate::view::columns::{Cell, Columns};

/// A figure measured in this run.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Description.
    pub what: &'static str,
    /// Value.
    pub value: f64,
    /// Unit; empty for a count.
    pub unit: &'static str,
}

/// A property that the drill checks.
#[derive(Debug, Serialize)]
pub struct Promise {
    /// Description.
    pub what: String,
    /// Result.
    pub found: String,
    /// True if the property holds.
    pub kept: bool,
}

/// The result of a drill.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// What the scenario rehearses.
    pub title: &'static str,
    /// Time of the run.
    pub at: Timestamp,
    /// Version of this program.
    pub version: &'static str,
    /// Release of the kernel.
    pub kernel: String,
    /// Measured figures.
    pub figures: Vec<Figure>,
    /// Checked properties.
    pub promises: Vec<Promise>,
    /// Orders that the engine wrote, if the scenario counts them.
    #[serde(skip)]
    pub written: Option<u64>,
    /// Orders that crossed.
    #[serde(skip)]
    pub crossed: Option<u64>,
}

impl Report {
    /// Makes an empty report.
    pub fn new(scenario: &'static str, title: &'static str) -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let (figures, promises) = (Vec::new(), Vec::new());
        let (version, at) = (crate::VERSION, Timestamp::now());
        Self { scenario, title, at, version, kernel, figures, promises, written: None, crossed: None }
    }

    /// Makes the report of a scenario that did not run to its end.
    pub fn failed(scenario: &'static str, error: &anyhow::Error) -> Self {
        let mut report = Self::new(scenario, "The scenario did not run to its end");
        report.promise("the scenario runs to its end", format!("{error:#}"), false);
        report
    }

    /// Adds the numbers of orders that the engine wrote, that crossed and that were withheld.
    pub fn orders(&mut self, written: u64, crossed: u64) {
        (self.written, self.crossed) = (Some(written), Some(crossed));
        self.count("orders written by the engine", written);
        self.count("orders that crossed", crossed);
        self.count("orders withheld", written.saturating_sub(crossed));
    }

    /// Adds a count.
    pub fn count(&mut self, what: &'static str, value: u64) {
        self.figures.push(Figure { what, value: value as f64, unit: "" });
    }

    /// Adds a time, in milliseconds.
    pub fn time(&mut self, what: &'static str, value: Duration) {
        self.figures.push(Figure { what, value: value.as_secs_f64() * 1e3, unit: "ms" });
    }

    /// Adds a promise.
    pub fn promise(&mut self, what: impl Into<String>, found: impl Into<String>, kept: bool) {
        self.promises.push(Promise { what: what.into(), found: found.into(), kept });
    }

    /// Adds the promise that an end of a connection received a reset. `trip` may destroy the socket of the
    /// engine before the reset arrives there; the engine then finds its connection aborted.
    pub fn promise_reset(&mut self, what: &str, ending: Option<&Ending>) {
        let found = ending.map_or_else(|| "open".to_owned(), |ending| format!("{:?}", ending.how));
        self.promise(
            what,
            found,
            ending.is_some_and(|ending| matches!(ending.how, End::Reset | End::Aborted)),
        );
    }

    /// Adds the promise that a scope is tripped for exactly these causes.
    pub fn promise_causes(&mut self, what: &str, expected: u64, found: u64) {
        let names = display::causes(found).join(", ");
        let text = if names.is_empty() { "not tripped".to_owned() } else { names };
        self.promise(what, text, expected == found);
    }

    /// Adds the promise that something took less than `most`.
    pub fn promise_time(&mut self, what: &str, found: Duration, most: Duration) {
        self.promise(what, format!("{:.3} ms", found.as_secs_f64() * 1e3), found < most);
    }

    /// Adds the promise that a count has the expected value.
    pub fn promise_count(&mut self, what: impl Into<String>, expected: u64, found: u64) {
        self.promise(what, found.to_string(), expected == found);
    }

    /// Returns true if every promise was kept.
    pub fn kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// Formats figures and promises as tables.
    pub fn table(&self) -> String {
        let mut figures = Columns::new(&["MEASURED IN THIS RUN", ""]);
        for figure in &self.figures {
            let text = match figure.unit {
                "" => figure.value.to_string(),
                unit => format!("{:.3} {unit}", figure.value),
            };
            figures.row([Cell::new(figure.what), Cell::new(text).right()]);
        }
        let mut promises = Columns::new(&["PROMISE", "FOUND", ""]);
        for promise in &self.promises {
            let verdict = if promise.kept { "kept" } else { "BROKEN" };
            promises.row([
                Cell::new(promise.what.clone()),
                Cell::new(promise.found.clone()),
                Cell::new(verdict),
            ]);
        }
        format!("{}\n{}", figures.text(false), promises.text(false).trim_end())
    }
}
