//! The picture of the live view in the documents, drawn from the cells of the test terminal.

use std::fmt::Write;
use std::path::Path;

use ratatui::style::{Color, Modifier};

use super::*;

/// Width and height of a cell in the picture.
const CELL: (u16, u16) = (8, 17);
const PICTURE: &str = "../docs/images/top.svg";

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Red => "#ff6b68",
        Color::Yellow => "#e5c07b",
        Color::Green => "#8cc570",
        Color::Cyan => "#6cb6d0",
        _ => "#d8dee9",
    }
}

/// The cells of a row as SVG text: runs of cells with the same colours.
fn row(svg: &mut String, buffer: &Buffer, y: u16) {
    let style = |x: u16| {
        let cell = &buffer[(x, y)];
        (cell.fg, cell.modifier)
    };
    let mut x = 0;
    while x < buffer.area.width {
        let end = (x..buffer.area.width).find(|at| style(*at) != style(x)).unwrap_or(buffer.area.width);
        let text: String = (x..end).map(|at| buffer[(at, y)].symbol()).collect();
        let (fg, modifier) = style(x);
        let (left, top, width) = (x * CELL.0, y * CELL.1, (end - x) * CELL.0);
        let is_reversed = modifier.contains(Modifier::REVERSED);
        let fill = if is_reversed { "#1b1f27" } else { colour(fg) };
        if is_reversed {
            let fill = colour(fg);
            writeln!(
                svg,
                r#"<rect x="{left}" y="{top}" width="{width}" height="{}" fill="{fill}"/>"#,
                CELL.1
            )
            .expect("writing to memory");
        }
        words(svg, &text, (left, top), (fill, modifier));
        x = end;
    }
}

/// The words of a run, each at its own position, so that no viewer collapses the spaces between them.
fn words(svg: &mut String, text: &str, (left, top): (u16, u16), (fill, modifier): (&str, Modifier)) {
    let weight = if modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let mut at = 0;
    for word in text.split(' ') {
        let length = word.chars().count() as u16;
        if length != 0 {
            let (x, y, width) = (left + at * CELL.0, top + 13, length * CELL.0);
            let word = word.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let place = format!(r#"x="{x}" y="{y}" textLength="{width}""#);
            writeln!(svg, r#"<text {place} fill="{fill}"{weight}>{word}</text>"#).expect("writing to memory");
        }
        at += length + 1;
    }
}

fn svg(buffer: &Buffer) -> String {
    let (width, height) = (buffer.area.width * CELL.0, buffer.area.height * CELL.1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"breaker top: the live view in a terminal\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#1b1f27\"/>\n\
         <g font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\">\n"
    );
    (0..buffer.area.height).for_each(|y| row(&mut svg, buffer, y));
    svg + "</g>\n</svg>\n"
}

/// A view with rates that rise and fall.
fn lively_view() -> App {
    let mut app = view(false);
    let mut counts = [0u64; 5];
    for second in 200..900 {
        let wave = |period: f64| (second as f64 / period).sin().abs();
        let rates = [0.0, 90.0 + 60.0 * wave(97.0), 40.0 * wave(61.0), 55.0 * wave(140.0), 9.0 * wave(33.0)];
        let is_tripped = second >= 860;
        for (at, (count, rate)) in counts.iter_mut().zip(rates).enumerate() {
            *count += if is_tripped && at == 2 { 0 } else { rate as u64 };
        }
        app.show(reading(second, document(second), &counts));
    }
    app
}

#[test]
fn the_picture_in_the_documents_is_the_view() {
    let mut app = lively_view();
    let picture = svg(&cells(&mut app, (100, 24)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE);
    if std::env::var_os("BREAKER_RENEW_PICTURE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("making the directory");
        std::fs::write(&path, &picture).expect("writing the picture");
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(recorded == picture, "run again with BREAKER_RENEW_PICTURE=1 and look at {}", path.display());
}
