//! Figures of several rounds, and what is said of them: medians, and ratios within a round.

use serde::Deserialize;
use serde_json::{Value, json};

/// What was measured, and its figure in each round.
#[derive(Clone, Deserialize)]
pub struct Row {
    /// What.
    pub what: String,
    /// Where on a curve: at so many sessions, say.
    pub at: Option<f64>,
    /// Of the figures.
    pub unit: String,
    /// One figure a round.
    pub rounds: Vec<f64>,
}

impl Row {
    /// A row without figures.
    pub fn new(what: impl Into<String>, unit: &str) -> Self {
        Self { what: what.into(), at: None, unit: unit.to_owned(), rounds: Vec::new() }
    }

    /// A row of a curve.
    pub fn at(what: &str, at: usize, unit: &str) -> Self {
        Self { at: Some(at as f64), ..Self::new(what, unit) }
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The median over the rounds of the ratio within each: the machine's speed may change between rounds.
    pub fn ratio(&self, zero: &Self) -> f64 {
        median(self.rounds.iter().zip(&zero.rounds).map(|(one, zero)| one / zero).collect())
    }

    /// What it is by the median ratio to another within a round, and that one's median: two rows that were measured side by side compare
    /// so whatever the machine's speed was in most rounds of each.
    pub fn beside(&self, first: &Self) -> f64 {
        self.ratio(first) * first.median()
    }

    /// The smallest of the rounds that this share of them does not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(self.rounds.clone(), share)
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let short = |figure: f64| (figure * 1e3).round() / 1e3;
        let rounds: Vec<f64> = self.rounds.iter().copied().map(short).collect();
        let mut all =
            json!({ "what": self.what, "unit": self.unit, "rounds": rounds, "median": short(self.median()) });
        if let Some(at) = self.at {
            all["at"] = json!(at);
        }
        all
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

/// What several runs found, in one cell: numbers as the least and the most, words as they are.
pub fn spread(found: &[String]) -> String {
    let numbers: Option<Vec<u64>> = found.iter().map(|found| found.parse().ok()).collect();
    if let Some(numbers) = numbers
        && let (Some(least), Some(most)) = (numbers.iter().min(), numbers.iter().max())
    {
        return if least == most { least.to_string() } else { format!("{least} to {most}") };
    }
    let mut words = found.to_vec();
    words.sort();
    words.dedup();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let values = || (1..=100).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!((quantile(values(), 0.0), median(values()), quantile(values(), 1.0)), (1.0, 51.0, 100.0));
        assert!(quantile(Vec::new(), 0.5).is_nan());
    }

    #[test]
    fn rows_side_by_side_compare_whatever_the_speed_of_each_round() {
        let row = |rounds: [f64; 3]| Row { rounds: rounds.to_vec(), ..Row::new("a", "ns") };
        let (first, other) = (row([10.0, 15.0, 10.0]), row([11.0, 16.5, 16.5]));
        assert!((other.beside(&first) - 11.0).abs() < 1e-9);
        assert!((first.beside(&first) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_spread_shows_what_differs() {
        let spread =
            |found: &[&str]| super::spread(&found.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(spread(&["7", "7"]), "7");
        assert_eq!(spread(&["7", "12", "9"]), "7 to 12");
        assert_eq!(spread(&["trades", "withheld", "trades"]), "trades or withheld");
        assert_eq!(spread(&[]), "");
    }
}
