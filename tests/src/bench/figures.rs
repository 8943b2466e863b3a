//! Figures of several rounds: medians, and ratios within a round.

use serde::Deserialize;
use serde_json::{Value, json};

/// A measured quantity with one figure a round.
#[derive(Clone, Deserialize)]
pub struct Row {
    /// Name of the quantity.
    pub what: String,
    /// Position on a curve, for example the number of sessions.
    pub at: Option<f64>,
    /// Unit of the figures.
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

    /// The median of the ratios within each round. The speed of a machine changes between rounds.
    pub fn ratio(&self, zero: &Self) -> f64 {
        median(self.rounds.iter().zip(&zero.rounds).map(|(one, zero)| one / zero).collect())
    }

    /// The median ratio to another row, times that row's median. Rows that are measured in turns compare so
    /// at any speed of the machine.
    pub fn beside(&self, first: &Self) -> f64 {
        self.ratio(first) * first.median()
    }

    /// The smallest figure that this share of the rounds does not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(self.rounds.clone(), share)
    }

    /// The row as JSON, rounded to three decimal places.
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

/// The median; NaN if there are no values.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that this share of the values does not exceed; NaN if there are no values.
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((values.len() as f64 * share) as usize).min(last)).copied().unwrap_or(f64::NAN)
}

/// The results of several runs in one cell: numbers as a range, words as alternatives.
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
