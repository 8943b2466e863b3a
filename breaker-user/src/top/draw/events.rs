//! The newest events.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::app::App;
use super::text::draw_lines;
use crate::audit::Entry;
use crate::view::event::escape_controls;

/// Draws a heading and the newest events, the newest first.
pub fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let style = app.options.style;
    let width = usize::from(area.width);
    let mut text = Vec::new();
    if area.height > 4 {
        text.push(Line::styled(style.fit("EVENTS, the newest first", width), style.quiet()));
    }
    if app.events.is_empty() {
        text.push(Line::from(style.fit("none in the audit log yet", width)));
    }
    text.extend(app.events.iter().rev().take(area.height.into()).map(|line| {
        let entry = &line.entry;
        let all = if width < 60 {
            let scope = entry.scope.as_deref().unwrap_or("-");
            format!("{} {scope} {:.0}", entry.kind, entry.time)
        } else {
            event_line(entry)
        };
        let cells = match entry.kind.as_str() {
            "tripped" | "link_lost" | "displaced" | "tampered" => style.alarm(),
            "warned" | "would_trip" | "disarmed" => style.caution(),
            _ => ratatui::style::Style::new(),
        };
        Line::styled(style.fit(&all, width), cells)
    }));
    draw_lines(text, area, buffer);
}

/// An event in a line, with the time of the day in UTC.
fn event_line(entry: &Entry) -> String {
    let time = format!("{:.0}", entry.time);
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time).trim_end_matches('Z');
    let mut words =
        vec![format!("{time} {}", entry.kind), entry.scope.clone().unwrap_or_else(|| "-".to_owned())];
    words.extend(entry.cause.as_ref().map(|cause| format!("({cause})")));
    words.push(format!("by {}", entry.actor.user.escape_debug()));
    words.extend(entry.reason.as_ref().map(|reason| format!("{reason:?}")));
    if entry.counts.as_object().is_some_and(|counts| !counts.is_empty()) {
        words.push(escape_controls(&entry.counts.to_string()));
    }
    words.join(" ")
}
