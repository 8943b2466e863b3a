//! Pages of text that scroll: all problems, and the help.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::app::App;
use super::super::keys::KEYS;
use super::super::problems::problems as all_problems;
use super::text::{draw_lines, wrap};

/// Draws lines from the scroll position on.
pub fn draw(app: &mut App, text: Vec<Line<'static>>, area: Rect, buffer: &mut Buffer) {
    app.scroll = app.scroll.min(text.len().saturating_sub(area.height.into()));
    draw_lines(text.into_iter().skip(app.scroll).collect(), area, buffer);
}

/// All problems with their remedies, wrapped.
pub fn problems(app: &App, width: u16) -> Vec<Line<'static>> {
    let style = app.options.style;
    let mut lines = Vec::new();
    for found in all_problems(app) {
        let cells = if found.is_alarm { style.alarm() } else { style.caution() };
        let text = format!("{}: {}", found.word, found.text);
        lines.extend(wrap(&text, width.into()).into_iter().map(|line| Line::styled(line, cells)));
        let cure = format!("  to do: {}", found.cure);
        lines.extend(wrap(&cure, width.into()).into_iter().map(Line::from));
    }
    if lines.is_empty() {
        lines.push(Line::styled("no problem", style.good()));
    }
    let notes = app.top.iter().flat_map(|top| &top.enforced.notes);
    lines.extend(notes.flat_map(|note| wrap(&format!("note: {note}"), width.into())).map(Line::from));
    lines
}

/// The keys.
pub fn help(app: &App) -> Vec<Line<'static>> {
    let line = |(key, meaning): &(&str, &str)| Line::from(format!("{key:<10} {meaning}"));
    let mode = if app.options.act {
        "started with --act: t trips a scope; nothing resets"
    } else {
        "read-only: start with --act to trip"
    };
    KEYS.iter().map(line).chain([Line::styled(mode, app.options.style.quiet())]).collect()
}
