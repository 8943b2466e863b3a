//! Figures of several rounds, and what is said of them: medians, and ratios within a round.

use serde_json::{Value, json};

/// What was measured, and its figure in each round.
pub struct Row {
    /// What.
    pub what: String,
    /// Of the figures.
    pub unit: &'static str,
    /// One figure a round.
    pub rounds: Vec<f64>,
}

impl Row {
    /// A row without figures.
    pub fn new(what: impl Into<String>, unit: &'static str) -> Self {
        Self { what: what.into(), unit, rounds: Vec::new() }
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The median over the rounds of the ratio within each: the machine's speed may change between rounds.
    pub fn ratio(&self, zero: &Self) -> f64 {
        median(self.rounds.iter().zip(&zero.rounds).map(|(one, zero)| one / zero).collect())
    }

    /// All of it.
    pub fn json(&self) -> Value {
        json!({ "what": self.what, "unit": self.unit, "rounds": self.rounds, "median": self.median() })
    }
}

/// The middle one; of none, nothing that compares.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that this share of the values does not exceed. Of none, nothing that compares.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((values.len() as f64 * share) as usize).min(last)).copied().unwrap_or(f64::NAN)
}
