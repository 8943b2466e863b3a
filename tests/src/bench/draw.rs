//! Draws a curve as SVG: a line through the medians, each relative to the first one, and a dot for every
//! round. The horizontal axis is logarithmic, the vertical one begins at zero.

use std::error::Error;

use plotters::prelude::*;

use super::figures::Row;
use super::report::{Picture, Table};

const SIZE: (u32, u32) = (760, 380);
const FONT: &str = "sans-serif";
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const LINES: [RGBColor; 3] =
    [RGBColor(0x1f, 0x77, 0xd0), RGBColor(0xe0, 0x6c, 0x10), RGBColor(0x2c, 0xa0, 0x5a)];
/// Colours of paper, ink and grid for readers who prefer dark pages.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) { [fill=\"#FFFFFF\"] { fill: #0d1117 } \
                    [fill=\"#1F2328\"] { fill: #e6edf3 } [stroke=\"#1F2328\"] { stroke: #e6edf3 } \
                    [stroke=\"#D8DEE4\"] { stroke: #30363d } }</style>";

/// The curve of a table as SVG; `None` if it has none.
pub fn svg(table: &Table) -> Option<String> {
    let picture = table.picture.as_ref()?;
    let mut svg = String::new();
    draw(&mut svg, picture, &table.curves()).expect("drawing into memory");
    let (head, body) = svg.split_once('\n').expect("lines");
    Some(format!("{head}\n{DARK}\n{body}"))
}

fn draw(svg: &mut String, picture: &Picture, curves: &[Vec<&Row>]) -> Result<(), Box<dyn Error>> {
    let places: Vec<f64> = curves.iter().flatten().filter_map(|row| row.at).collect();
    let (first, last) = places.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    let base = curves.first().and_then(|rows| rows.first()).ok_or("no curve")?;
    let margin = (last / first).powf(0.04).max(1.05);
    let top = curves.iter().flatten().map(|row| row.quantile(1.0)).fold(0.0, f64::max) * 1.15;

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&PAPER)?;
    let across = (first / margin..last * margin).log_scale().with_key_points(places);
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .margin_right(24)
        .x_label_area_size(52)
        .y_label_area_size(64)
        .build_cartesian_2d(across, 0.0..top)?;
    let text = |size: u32| (FONT, size).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc(&picture.x)
        .y_desc(&picture.y)
        .x_label_formatter(&|x| grouped(*x))
        .y_label_formatter(&|y| grouped(*y))
        .y_labels(7)
        .max_light_lines(0)
        .bold_line_style(GRID)
        .axis_style(INK)
        .axis_desc_style(text(15))
        .label_style(text(13))
        .draw()?;
    for (rows, colour) in curves.iter().zip(LINES.iter().cycle()) {
        let placed = || rows.iter().filter_map(|row| Some((row.at?, *row)));
        let dots = placed().flat_map(|(x, row)| {
            row.rounds.iter().map(move |y| Circle::new((x, *y), 2, colour.mix(0.25).filled()))
        });
        chart.draw_series(dots)?;
        let medians = || placed().map(|(x, row)| (x, row.beside(base)));
        let line = chart.draw_series(LineSeries::new(medians(), colour.stroke_width(2)))?;
        if curves.len() > 1 {
            let key = move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3));
            line.label(&rows[0].what).legend(key);
        }
        chart.draw_series(medians().map(|place| Circle::new(place, 4, colour.filled())))?;
    }
    if curves.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .legend_area_size(30)
            .margin(10)
            .background_style(PAPER)
            .label_font(text(14))
            .draw()?;
    }
    drop(chart);
    area.present()?;
    Ok(())
}

/// A number with its thousands separated by commas.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0.0, 999.4, 1_000.0, 60_000.0].map(grouped), ["0", "999", "1,000", "60,000"]);
    }

    #[test]
    fn a_curve_has_a_dot_a_round_and_a_median_a_place() {
        let mut table = Table::new("title", &["x"]);
        let row = |at, rounds: &[f64]| Row { rounds: rounds.to_vec(), ..Row::at("a <series>", at, "ns") };
        table.keep(&[row(1, &[5.0, 6.0, 7.0]), row(1_000, &[8.0, 9.0, 40.0])]);
        assert!(svg(&table).is_none());
        let [name, x, y, why] = ["name", "things", "ns", "why"].map(str::to_owned);
        table.picture = Some(Picture { name, x, y, why });
        let drawn = svg(&table).expect("a picture");
        assert_eq!(drawn.matches("<circle").count(), 6 + 2);
        for text in ["1,000", "things", DARK] {
            assert!(drawn.contains(text), "{text}: {drawn}");
        }
    }
}
