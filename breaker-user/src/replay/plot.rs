//! A picture of the messages in each window against its limit.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::meter::Series;
use super::windows::{Window, Windows};
use crate::display;

/// Width of the picture, and of the margins beside a curve.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
/// Height of a curve with its title and its axis.
const PANEL: f64 = 190.0;
const PLOT_TOP: f64 = 34.0;
const PLOT_HEIGHT: f64 = 120.0;

/// Draws the windows of all limits that are no ratio as SVG. `name` returns the name of a scope number.
pub fn svg(windows: &Windows, span: (u64, u64), name: impl Fn(u32) -> String) -> String {
    let drawn: Vec<_> = windows.iter().filter(|window| window.limit.per_fill == 0).collect();
    let height = PANEL * drawn.len().max(1) as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>Messages in the window of each limit</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    if drawn.is_empty() {
        svg.push_str("<text x=\"20\" y=\"40\">The policy has no limit to draw.</text>\n");
    }
    for (number, window) in drawn.into_iter().enumerate() {
        let title = format!("{}: {}", name(window.scope), display::limit(&window.limit));
        draw(window, &mut svg, PANEL * number as f64, span, &title);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws one window with its limit. Writing to a String cannot fail.
fn draw(window: &Window, svg: &mut String, top: f64, (first_ns, last_ns): (u64, u64), title: &str) {
    let points: Vec<_> = window.series.iter().flat_map(Series::points).collect();
    let peak = window.peak;
    let highest = (peak.max(window.limit.max) as f64 * 1.08).max(1.0);
    let span = last_ns.saturating_sub(first_ns).max(1) as f64;
    let x =
        |at_ns: u64| LEFT + (WIDTH - LEFT - RIGHT) * (at_ns.saturating_sub(first_ns) as f64 / span).min(1.0);
    let bottom = top + PLOT_TOP + PLOT_HEIGHT;
    let y = |value: f64| bottom - PLOT_HEIGHT * value / highest;
    let (right, limit_y) = (WIDTH - RIGHT, y(window.limit.max as f64));
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}; peak {peak}</text>",
        top + 20.0
    );
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {:.1}V{bottom:.1}H{right}\" fill=\"none\" stroke=\"#888\"/>",
        top + PLOT_TOP
    );
    let line: String = points
        .iter()
        .map(|(at_ns, value)| {
            let (at, high) = (x(*at_ns), y(*value as f64));
            format!("L{at:.1} {bottom:.1}V{high:.1}")
        })
        .collect();
    let last = points.last().map_or(LEFT, |(at_ns, _)| x(*at_ns));
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {bottom:.1}{line}L{last:.1} {bottom:.1}\" fill=\"none\" stroke=\"#1f5f99\"/>"
    );
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {limit_y:.1}H{right}\" stroke=\"#b3261e\" stroke-dasharray=\"6 3\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#b3261e\">{}</text>\n\
         <text x=\"{:.1}\" y=\"{bottom:.1}\" text-anchor=\"end\">0</text>",
        LEFT - 6.0,
        limit_y + 4.0,
        window.limit.max,
        LEFT - 6.0
    );
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#444\">{}</text>\n<text x=\"{right}\" y=\"{:.1}\" \
         text-anchor=\"end\" fill=\"#444\">{}</text>",
        bottom + 16.0,
        time(first_ns),
        bottom + 16.0,
        time(last_ns)
    );
}
fn time(ns: u64) -> String {
    Timestamp::from_nanosecond(ns.into()).map_or_else(|_| ns.to_string(), |time| format!("{time:.3}"))
}
