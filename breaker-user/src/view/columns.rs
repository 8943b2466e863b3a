//! Tables of text with columns as wide as their content.
//!
//! A thousand sessions have about 16,000 cells. A general table layout library takes longer for them than the
//! rest of `status` together.

use std::borrow::Cow;

/// A cell, with one line or more.
pub struct Cell {
    text: Cow<'static, str>,
    is_bad: bool,
    is_right: bool,
}

impl Cell {
    /// A cell with text.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), is_bad: false, is_right: false }
    }

    /// A cell with a number.
    pub fn number(figure: u64) -> Self {
        Self::new(figure.to_string())
    }

    /// A cell with a warning, in red if colour is on.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { is_bad: true, ..Self::new(text) }
    }

    /// Aligns the text to the right.
    pub fn right(self) -> Self {
        Self { is_right: true, ..self }
    }

    fn line(&self, number: usize) -> &str {
        self.text.split('\n').nth(number).unwrap_or_default()
    }
}

/// A table: a header and rows.
pub struct Columns {
    rows: Vec<Vec<Cell>>,
}

impl Columns {
    /// Makes a table with a header and without rows.
    pub fn new(header: &[&'static str]) -> Self {
        Self { rows: vec![header.iter().map(|name| Cell::new(*name)).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns true if there is no row under the header.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Formats the table. Lines have no trailing spaces, which would be selected, copied and wrapped.
    pub fn text(&self, is_coloured: bool) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let height = row.iter().map(|cell| cell.text.split('\n').count()).max().unwrap_or_default();
            for number in 0..height {
                for (cell, width) in row.iter().zip(&widths) {
                    let line = cell.line(number);
                    let room = " ".repeat(width - line.chars().count());
                    let (before, behind) = if cell.is_right { (&room[..], "") } else { ("", &room[..]) };
                    let (red, plain) =
                        if cell.is_bad && is_coloured { ("\x1b[31m", "\x1b[0m") } else { Default::default() };
                    text.extend([" ", before, red, line, plain, behind, " "]);
                }
                text.truncate(text.trim_end().len());
                text.push('\n');
            }
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                let widest = cell.text.split('\n').map(|line| line.chars().count()).max();
                *width = (*width).max(widest.unwrap_or_default());
            }
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut columns = Columns::new(&["A", "NUMBER", "C"]);
        assert!(columns.is_empty());
        columns.row([Cell::new("größer\nb"), Cell::number(7).right(), Cell::bad("bad")]);
        columns.row([Cell::new("c"), Cell::number(1_234_567)]);
        assert!(!columns.is_empty());
        let lines = [" A       NUMBER   C", " größer        7  bad", " b", " c       1234567", ""];
        assert_eq!(columns.text(false), lines.join("\n"));
    }

    #[test]
    fn only_bad_cells_are_red_and_colour_does_not_widen_a_column() {
        let mut columns = Columns::new(&["A", "B"]);
        columns.row([Cell::bad("a"), Cell::new("b")]);
        assert_eq!(columns.text(true), " A  B\n \u{1b}[31ma\u{1b}[0m  b\n");
    }
}
