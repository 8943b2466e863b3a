//! The list of scopes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::super::app::{App, CELL_S};
use super::super::rows::{Row, nearest, permille, rate, withheld};
use super::super::style::short;
use super::history::cells;
use super::text::draw_lines;
use crate::rates::SECONDS;
use crate::view::scope::Scope;
use crate::view::top::Top;

/// Widths of the columns; 0 for a column that is not shown.
struct Widths {
    name: usize,
    state: usize,
    rate: usize,
    withheld: usize,
    limit: usize,
    used: usize,
    bar: usize,
    peak: usize,
    spark: usize,
}

impl Widths {
    /// The columns that fit. Each shown column has a space behind it.
    fn of(width: usize) -> Self {
        let mut widths =
            Self { name: 8, state: 8, rate: 0, withheld: 0, limit: 0, used: 0, bar: 0, peak: 0, spark: 0 };
        match width {
            0..=27 => {}
            28..=39 => widths.rate = 6,
            40..=59 => (widths.rate, widths.used) = (6, 5),
            60..=79 => (widths.rate, widths.limit, widths.used, widths.bar) = (6, 10, 11, 8),
            _ => {
                let bar = 8 + (width - 80) / 8;
                (widths.rate, widths.limit, widths.used, widths.bar, widths.peak) = (6, 10, 11, bar, 5);
                widths.withheld = if width >= 100 { 6 } else { 0 };
                widths.spark = (width - 71) / 2 + 5;
                widths.spark = widths.spark.min(SECONDS / CELL_S);
            }
        }
        let columns = widths.columns();
        let taken: usize = columns[1..].iter().filter(|width| **width != 0).map(|width| width + 1).sum();
        widths.name = width.saturating_sub(taken + 1).max(1);
        widths
    }

    fn columns(&self) -> [usize; 9] {
        let Self { name, state, rate, withheld, limit, used, bar, peak, spark } = *self;
        [name, state, rate, withheld, limit, used, bar, peak, spark]
    }
}

/// Draws the heading and the rows around the selected one.
pub fn draw(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let widths = Widths::of(area.width.into());
    let rows = app.rows();
    let has_heading = area.height > 4;
    let room = usize::from(area.height) - usize::from(has_heading).min(area.height.into());
    let position = app.position(&rows);
    app.scroll = app.scroll.min(position).max((position + 1).saturating_sub(room));
    app.scroll = app.scroll.min(rows.len().saturating_sub(room));
    let mut lines = Vec::new();
    if has_heading {
        lines.push(heading(app, &widths));
    }
    let Some(top) = &app.top else { return };
    if rows.is_empty() {
        let text = format!("no scope has {:?} in its name: Esc removes the filter", app.filter);
        lines.push(Line::from(app.options.style.fit(&text, area.width.into())));
    }
    let shown = rows.iter().enumerate().skip(app.scroll).take(room);
    lines.extend(shown.map(|(at, row)| line(app, top, row, (&widths, at == position))));
    draw_lines(lines, area, buffer);
}

fn heading(app: &App, widths: &Widths) -> Line<'static> {
    let style = app.options.style;
    let minutes = format!("{} MIN", widths.spark * CELL_S / 60);
    let names = ["SCOPE", "STATE", "ORD/S", "WH/S", "LIMIT", "USED", "", "PEAK", &minutes];
    let mut text = String::new();
    for (at, (name, width)) in names.into_iter().zip(widths.columns()).enumerate() {
        if width != 0 {
            let name = style.fit(name, width);
            let is_number = matches!(at, 2 | 3 | 5 | 7);
            text += &if is_number { format!("{name:>width$} ") } else { format!("{name:<width$} ") };
        }
    }
    Line::styled(text, style.quiet())
}

/// One row. `layout`: the widths, and whether the row is selected.
fn line(app: &App, top: &Top, row: &Row, (widths, is_selected): (&Widths, bool)) -> Line<'static> {
    let style = app.options.style;
    let scope = &top.scopes[row.scope];
    let (state, state_style) = match (scope.tripped, scope.armed) {
        (true, _) => ("TRIPPED", style.alarm()),
        (false, false) => ("DISARMED", style.caution()),
        (false, true) => ("armed", style.good()),
    };
    let name = match (row.is_indented, scope.scope.strip_prefix("session/")) {
        (true, Some(name)) => format!("  {name}"),
        (false, Some(name)) => name.to_owned(),
        _ => scope.scope.clone(),
    };
    let usage = Usage::of(app, row, scope);
    let is_near = usage.permille.is_some_and(|permille| permille >= 900);
    let usage_style = if is_near { style.caution() } else { ratatui::style::Style::new() };
    let figure = |value: Option<u32>| value.map_or("-".to_owned(), |value| short(value.into()));
    let left = |text: &str, width: usize| format!("{:<width$} ", style.fit(text, width));
    let right = |text: &str, width: usize| format!("{:>width$} ", style.fit(text, width));
    let mut spans =
        vec![Span::raw(left(&name, widths.name)), Span::styled(left(state, widths.state), state_style)];
    let mut add = |width: usize, span: &dyn Fn() -> Span<'static>| {
        if width != 0 {
            spans.push(span());
        }
    };
    add(widths.rate, &|| Span::raw(right(&figure(rate(app, top, row.scope, app.back)), widths.rate)));
    add(widths.withheld, &|| {
        let count = withheld(app, top, row.scope).filter(|_| app.back == 0);
        let is_bad = count.is_some_and(|count| count != 0);
        let style = if is_bad { style.alarm() } else { ratatui::style::Style::new() };
        Span::styled(right(&figure(count), widths.withheld), style)
    });
    add(widths.limit, &|| Span::raw(left(&usage.limit, widths.limit)));
    add(widths.used, &|| {
        let text = if widths.bar == 0 { &usage.percent } else { &usage.figures };
        Span::styled(right(text, widths.used), usage_style)
    });
    add(widths.bar, &|| {
        let bar = usage.permille.map_or(String::new(), |permille| style.bar(widths.bar, permille));
        Span::styled(left(&bar, widths.bar), usage_style)
    });
    add(widths.peak, &|| Span::raw(right(&usage.peak, widths.peak)));
    add(widths.spark, &|| Span::styled(spark(app, row.scope, widths.spark), style.quiet()));
    let line = Line::from(spans);
    if is_selected { line.patch_style(style.selected()) } else { line }
}

/// The use of the nearest limit.
#[derive(Default)]
struct Usage {
    permille: Option<u64>,
    limit: String,
    figures: String,
    percent: String,
    peak: String,
}

impl Usage {
    /// The use now; in the past only the recorded use of a session is known.
    fn of(app: &App, row: &Row, scope: &Scope) -> Self {
        let percent = |permille: u64| format!("{}%", permille / 10);
        if app.back != 0 {
            let sessions = app.members.get(row.scope).map(Vec::as_slice).unwrap_or_default();
            let (true, [session]) = (scope.scope.starts_with("session/"), sessions) else {
                return Self::default();
            };
            let Some(permille) = app.ring.limit_permille(*session, app.back) else { return Self::default() };
            let permille = permille.into();
            let (figures, limit) = (percent(permille), "nearest".to_owned());
            return Self {
                permille: Some(permille),
                figures,
                limit,
                percent: percent(permille),
                ..Self::default()
            };
        }
        let Some(limit) = nearest(scope) else {
            return Self { limit: "no limit".to_owned(), ..Self::default() };
        };
        let permille = permille(limit);
        Self {
            permille: Some(permille),
            limit: format!("{}/{}", limit.class, limit.per),
            figures: format!("{}/{}", short(limit.used), short(limit.max)),
            percent: percent(permille),
            peak: short(limit.peak),
        }
    }
}

/// A sparkline of the last minutes: for each cell the highest rate of its seconds.
fn spark(app: &App, scope: usize, width: usize) -> String {
    let Some(sessions) = app.members.get(scope) else { return String::new() };
    app.options.style.sparkline(&cells(app, sessions, width))
}
