//! The record of a drill as one page of HTML, without a request to anywhere else. It prints on one or two
//! pages of A4.

use std::fmt::Write;

use super::figures::{Figure, Promise, Report};
use super::record::Record;

const STYLE: &str = include_str!("page.css");
/// Width of the chart, and height of one of its rows, in its own units.
const WIDTH: usize = 720;
const ROW: usize = 18;
/// Place of the bars in the chart.
const BAR_START: usize = 170;
const BAR_WIDTH: usize = 330;

/// Formats a record as a page.
pub fn html(record: &Record) -> String {
    let mut page = String::new();
    let title = format!("breaker drill, {}", record.host.name);
    let verdict = if record.kept { "Every promise was kept." } else { "A PROMISE WAS BROKEN." };
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n<h1>{}</h1>\n<p \
         class=\"verdict {}\">{verdict}</p>\n{}{}",
        escaped(&title),
        escaped(&title),
        if record.kept { "kept" } else { "broken" },
        facts(record),
        chart(&record.scenarios),
    );
    page.extend(record.scenarios.iter().map(section));
    page.push_str("</html>\n");
    page
}

/// The circumstances of the drill.
fn facts(record: &Record) -> String {
    let (binary, host) = (&record.binary, &record.host);
    let kept: usize = record.scenarios.iter().flat_map(|one| &one.promises).filter(|one| one.kept).count();
    let promises: usize = record.scenarios.iter().map(|one| one.promises.len()).sum();
    let rows = [
        ("Promises kept", format!("{kept} of {promises}, in {} scenarios", record.scenarios.len())),
        ("Time", format!("{:.0}, {:.0} s", record.at, record.seconds)),
        ("Host", format!("{}, Linux {}, {}, {} CPUs", host.name, host.kernel, host.machine, record.cpus)),
        ("breaker", format!("{} ({})", binary.version, binary.git)),
        ("Binary", format!("sha256 {}", binary.sha256)),
        ("Kernel object", format!("sha256 {}", binary.object_sha256)),
        ("To repeat", record.command.clone()),
    ];
    let row = |(name, value): &(&str, String)| format!("<tr><th>{name}<td>{}\n", escaped(value));
    format!("<table class=\"facts\">\n{}</table>\n", rows.iter().map(row).collect::<String>())
}

/// A bar for each scenario: the orders that crossed, and those that were withheld.
fn chart(scenarios: &[Report]) -> String {
    let counted: Vec<_> =
        scenarios.iter().filter_map(|one| Some((one.scenario, one.written?, one.crossed?))).collect();
    if counted.is_empty() {
        return String::new();
    }
    let height = ROW * counted.len() + 22;
    let mut svg = format!(
        "<figure>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Orders that crossed and \
         orders that were withheld, in each scenario\">\n<rect x=\"{BAR_START}\" y=\"3\" width=\"10\" \
         height=\"10\" class=\"crossed\"/><text x=\"{}\" y=\"12\">crossed</text>\n<rect x=\"{}\" y=\"3\" \
         width=\"10\" height=\"10\" class=\"withheld\"/><text x=\"{}\" y=\"12\">withheld</text>\n",
        BAR_START + 15,
        BAR_START + 90,
        BAR_START + 105
    );
    for (at, (name, written, crossed)) in counted.into_iter().enumerate() {
        let y = ROW * at + 20;
        let share = if written == 0 { 0.0 } else { crossed.min(written) as f64 / written as f64 };
        let width = BAR_WIDTH as f64 * share;
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{0}\">{1}</text><rect x=\"{BAR_START}\" y=\"{y}\" width=\"{BAR_WIDTH}\" \
             height=\"12\" class=\"withheld\"/><rect x=\"{BAR_START}\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"12\" class=\"crossed\"/><text x=\"{2}\" y=\"{0}\">{crossed} of {written} \
             crossed</text>",
            y + 10,
            escaped(name),
            BAR_START + BAR_WIDTH + 10
        );
    }
    svg + "</svg>\n<figcaption>Orders that the engine wrote: crossed or withheld.</figcaption>\n</figure>\n"
}

/// The promises and figures of a scenario.
fn section(report: &Report) -> String {
    let promises: String = report.promises.iter().map(promise).collect();
    let figures: Vec<_> =
        report.figures.iter().filter(|figure| !figure.unit.is_empty()).map(figure).collect();
    let figures = match &figures[..] {
        [] => String::new(),
        figures => format!("<p class=\"figures\">Measured: {}.</p>\n", figures.join("; ")),
    };
    format!(
        "<section>\n<h2>{}</h2>\n<p>{}.</p>\n<table>\n<thead><tr><th>Promise<th>Measured<th>Kept\n</thead>\
         \n<tbody>\n{promises}</tbody>\n</table>\n{figures}</section>\n",
        escaped(report.scenario),
        escaped(report.title)
    )
}

fn promise(promise: &Promise) -> String {
    let (class, kept) = if promise.kept { ("kept", "kept") } else { ("broken", "BROKEN") };
    format!("<tr><td>{}<td>{}<td class=\"{class}\">{kept}\n", escaped(&promise.what), escaped(&promise.found))
}

fn figure(figure: &Figure) -> String {
    format!("{} {:.3} {}", escaped(figure.what), figure.value, figure.unit)
}

/// Escapes text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
