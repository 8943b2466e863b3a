//! Colours and characters. Colour never carries a meaning alone.

use ratatui::style::{Color, Modifier, Style as Cells};

/// Colours and characters that the terminal may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Use colours.
    pub is_coloured: bool,
    /// Use characters outside ASCII.
    pub is_utf8: bool,
}

impl Style {
    /// The style for an environment: NO_COLOR (no-color.org), and the locale (locale(7)).
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_lowercase();
        Self {
            is_coloured: set("NO_COLOR").is_none(),
            is_utf8: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    fn colour(self, colour: Color, modifier: Modifier) -> Cells {
        let cells = Cells::new().add_modifier(modifier);
        if self.is_coloured { cells.fg(colour) } else { cells }
    }

    /// A tripped scope, or a breaker that is not in force.
    pub fn alarm(self) -> Cells {
        self.colour(Color::Red, Modifier::BOLD)
    }

    /// A disarmed scope or another lesser problem.
    pub fn caution(self) -> Cells {
        self.colour(Color::Yellow, Modifier::BOLD)
    }

    /// A scope or a breaker in order.
    pub fn good(self) -> Cells {
        self.colour(Color::Green, Modifier::empty())
    }

    /// Headings and keys.
    pub fn quiet(self) -> Cells {
        self.colour(Color::Cyan, Modifier::empty())
    }

    /// The selected row.
    pub fn selected(self) -> Cells {
        Cells::new().add_modifier(Modifier::REVERSED)
    }

    /// A bar of this width, filled to this permille. A bar that is not empty shows at least one cell.
    pub fn bar(self, width: usize, permille: u64) -> String {
        let (full, empty) = if self.is_utf8 { ("█", "░") } else { ("#", ".") };
        let filled = (permille.min(1000) as usize * width).div_ceil(1000);
        // Only a limit that is used up fills the bar.
        let filled = if permille < 1000 { filled.min(width.saturating_sub(1)) } else { filled };
        full.repeat(filled) + &empty.repeat(width - filled)
    }

    /// A sparkline: a character for each value, relative to the highest one. A gap is a space.
    pub fn sparkline(self, values: &[Option<u32>]) -> String {
        let levels: &[char] = if self.is_utf8 {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &['_', '.', ':', '-', '=', '+', '*', '#']
        };
        let highest = values.iter().flatten().max().copied().unwrap_or(0).max(1);
        let level = |value: u32| {
            // Only 0 has the lowest level.
            let above = u64::from(value) * (levels.len() as u64 - 1);
            levels[above.div_ceil(u64::from(highest)) as usize]
        };
        values.iter().map(|value| value.map_or(' ', level)).collect()
    }

    /// Text that fits into a width. A cut text ends with a mark.
    pub fn fit(self, text: &str, width: usize) -> String {
        let text = if self.is_utf8 { text.to_owned() } else { to_ascii(text) };
        if text.chars().count() <= width {
            return text;
        }
        let mark = if self.is_utf8 { '…' } else { '~' };
        text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some(mark)).collect()
    }
}

fn to_ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// A number in at most five characters: `99999`, `123k`, `12M`, `3G`. Larger ones are rounded down.
pub fn short(number: u64) -> String {
    match number {
        0..=99_999 => number.to_string(),
        100_000..=9_999_999 => format!("{}k", number / 1000),
        10_000_000..=9_999_999_999 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}
