//! Draws the live view into a buffer of cells.

mod details;
mod events;
mod frame;
mod history;
mod list;
mod page;
mod text;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::{App, Screen, Section};
use text::draw_lines;

/// Height from which scopes and events are shown together.
const TALL: u16 = 20;

/// Draws the whole screen. Scrolls so that the selected row is shown.
pub fn draw(app: &mut App, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let header = frame::header(app, area);
    let footer = frame::footer(app, area.width);
    let (top, rest) = split(area, header.len() as u16);
    let (body, bottom) = split(rest, rest.height.saturating_sub(1));
    draw_lines(header, top, buffer);
    draw_lines(vec![footer], bottom, buffer);
    match &app.screen {
        Screen::Scopes if area.height >= TALL => {
            let (scopes, newest) = split(body, body.height - events_height(body.height));
            list::draw(app, scopes, buffer);
            events::draw(app, newest, buffer);
        }
        Screen::Scopes if app.section == Section::Events => events::draw(app, body, buffer),
        Screen::Scopes => list::draw(app, body, buffer),
        Screen::Details(name) => {
            let text = details::lines(app, &name.clone(), body);
            page::draw(app, text, body, buffer);
        }
        Screen::Problems => page::draw(app, page::problems(app, body.width), body, buffer),
        Screen::Help => page::draw(app, page::help(app), body, buffer),
    }
}

/// One screen of this many columns and rows as text.
pub fn text(app: &mut App, (columns, rows): (u16, u16)) -> String {
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    draw(app, area, &mut buffer);
    let row = |y| {
        let cells = (0..columns).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..rows).map(row).collect::<Vec<_>>().join("\n")
}

/// Height of the newest events with their heading: a quarter of the rest, at least 5.
fn events_height(height: u16) -> u16 {
    (height / 4).max(5).min(height)
}

/// Splits an area after this many lines.
fn split(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let upper = Rect { height, ..area };
    (upper, Rect { y: area.y + height, height: area.height - height, ..area })
}
