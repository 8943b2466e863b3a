//! A curve: its table and its picture.

use crate::bench::figures::Row;
use crate::bench::report::{Picture, Table};

/// The method of a curve, for the title of its table.
pub(super) fn note(rounds: usize, shape: &str, method: &str) -> String {
    format!(
        "ns above an empty program, {shape}; the first figure is the median of {rounds} rounds, the others \
         follow from their median ratio to it within a round; the range is in brackets ({method})"
    )
}

/// A curve: one row for each series and position.
pub(super) struct Curve {
    rows: Vec<Row>,
    places: usize,
}

impl Curve {
    /// A curve without figures.
    pub(super) fn new(series: &[&str], places: &[usize]) -> Self {
        let rows = series.iter().flat_map(|series| places.iter().map(|at| Row::at(series, *at, "ns")));
        Self { rows: rows.collect(), places: places.len() }
    }

    /// Adds the figure of a round.
    pub(super) fn push(&mut self, series: usize, place: usize, figure: f64) {
        self.rows[series * self.places + place].rounds.push(figure);
    }

    /// The table of the curve, with its picture.
    pub(super) fn table(self, title: String, picture: Picture) -> Table {
        let series: Vec<&[Row]> = self.rows.chunks(self.places).collect();
        let names = series.iter().map(|rows| rows[0].what.as_str());
        let mut table =
            Table::new(title, &std::iter::once(picture.x.as_str()).chain(names).collect::<Vec<_>>());
        for place in 0..self.places {
            let at = series[0][place].at.expect("a place on the curve");
            let cell = |rows: &&[Row]| {
                let [least, most] = [0.0, 1.0].map(|share| rows[place].quantile(share));
                format!("{:.0} ({least:.0} to {most:.0})", rows[place].beside(&self.rows[0]))
            };
            table.line(std::iter::once(at.to_string()).chain(series.iter().map(cell)));
        }
        table.keep(&self.rows);
        table.picture = Some(picture);
        table
    }
}

/// A picture with the labels of its axes, and the reason for its shape.
pub(super) fn picture(name: &str, x: &str, y: &str, why: &str) -> Picture {
    let [name, x, y, why] = [name, x, y, why].map(str::to_owned);
    Picture { name, x, y, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_a_line_a_place_and_a_column_a_series() {
        let mut curve = Curve::new(&["one", "other"], &[1, 100]);
        // The machine is half as fast in the second round.
        for (series, place, figures) in
            [(0, 0, [5.0, 5.0]), (0, 1, [6.0, 6.0]), (1, 0, [8.0, 16.0]), (1, 1, [12.0, 24.0])]
        {
            figures.into_iter().for_each(|figure| curve.push(series, place, figure));
        }
        let table = curve.table("title".to_owned(), picture("name", "things", "ns", "why"));
        assert_eq!(
            table.lines,
            [["1", "5 (5 to 5)", "16 (8 to 16)"], ["100", "6 (6 to 6)", "24 (12 to 24)"]]
        );
        assert_eq!(table.cell("100", "other"), Some("24 (12 to 24)"));
        assert_eq!(table.rows[3].at, Some(100.0));
    }
}
