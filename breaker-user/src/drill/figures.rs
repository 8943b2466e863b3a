//! What a drill measured, and which promises it held to it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::view::columns::{Cell, Columns};

/// A figure that was measured in this run.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: &'static str,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// Something that must be so.
#[derive(Debug, Serialize)]
pub struct Promise {
    /// What must be so.
    pub what: String,
    /// What was found.
    pub found: String,
    /// It is so.
    pub kept: bool,
}

/// A drill's result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which drill.
    pub scenario: &'static str,
    /// When.
    pub at: Timestamp,
    /// Version of the program.
    pub version: &'static str,
    /// Release of the kernel.
    pub kernel: String,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What had to be so.
    pub promises: Vec<Promise>,
}

impl Report {
    /// An empty report.
    pub fn new(scenario: &'static str) -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let (figures, promises) = (Vec::new(), Vec::new());
        Self { scenario, at: Timestamp::now(), version: crate::VERSION, kernel, figures, promises }
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

    /// Adds the promise that two counts are equal.
    pub fn promise_count(&mut self, what: impl Into<String>, expected: u64, found: u64) {
        self.promise(what, found.to_string(), expected == found);
    }

    /// Every promise was kept.
    pub fn kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// Figures and promises for a person.
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
