//! Colours and characters.

use ratatui::style::Color;

use super::super::style::short;
use super::*;

#[test]
fn no_color_and_the_locale_choose_the_style() {
    let style = |variables: &[(&str, &str)]| {
        Style::of(|name| {
            variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned())
        })
    };
    for (variables, is_coloured, is_utf8) in [
        (&[][..], true, false),
        (&[("LANG", "en_US.UTF-8")], true, true),
        (&[("LANG", "C.utf8"), ("NO_COLOR", "1")], false, true),
        (&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C"), ("NO_COLOR", "")], true, false),
        (&[("LC_CTYPE", "de_DE.ISO-8859-1"), ("LANG", "en_US.UTF-8")], true, false),
        (&[("LC_ALL", ""), ("LC_CTYPE", "de_DE.UTF-8")], true, true),
    ] {
        assert_eq!(style(variables), Style { is_coloured, is_utf8 }, "{variables:?}");
    }
}

#[test]
fn colours_are_used_only_if_they_are_wanted() {
    let colours = |is_coloured| {
        let mut app = broken_view();
        app.options.style.is_coloured = is_coloured;
        let cells = cells(&mut app, (80, 24));
        cells.content().iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(true) > 100);
    assert_eq!(colours(false), 0);
}

#[test]
fn a_locale_without_utf8_gets_ascii_only() {
    let mut app = view(false);
    let mut top = document(200);
    top.events = vec![event(9, "tripped", "host", Some("größer — 漢 \u{202e}"))];
    app.show(reading(200, top, &[0, 30_000, 6_000, 800, 1_400]));
    app.options.style.is_utf8 = false;
    for code in [KeyCode::Home, KeyCode::End, KeyCode::Enter, KeyCode::Char('?'), KeyCode::Char('p')] {
        press(&mut app, code);
        for size in [(80, 24), (40, 12), (20, 5)] {
            let lines = screen(&mut app, size);
            assert!(lines.iter().all(|line| line.is_ascii()), "{code:?} {lines:#?}");
        }
    }
    press(&mut app, KeyCode::Esc);
    let lines = screen(&mut app, (80, 24));
    assert!(line_with(&lines, "xnys-1").contains("#######."), "{lines:#?}");
    assert!(line_with(&lines, "tripped").contains("gr??er"), "{lines:#?}");
}

#[test]
fn a_bar_is_full_only_at_the_limit_and_empty_only_at_zero() {
    for (permille, expected) in [
        (0, "░░░░"),
        (1, "█░░░"),
        (500, "██░░"),
        (501, "███░"),
        (999, "███░"),
        (1000, "████"),
        (7000, "████"),
    ] {
        assert_eq!(PLAIN.bar(4, permille), expected, "{permille}");
    }
}

#[test]
fn a_sparkline_distinguishes_gaps_from_zero() {
    assert_eq!(PLAIN.sparkline(&[None, Some(0), Some(1), Some(50), Some(100)]), " ▁▂▅█");
    assert_eq!(PLAIN.sparkline(&[Some(0), Some(0)]), "▁▁");
    assert_eq!(PLAIN.sparkline(&[Some(u32::MAX - 1)]), "█");
}

#[test]
fn large_numbers_take_five_characters() {
    for (number, text) in
        [(0, "0"), (99_999, "99999"), (100_000, "100k"), (12_345_678, "12M"), (1 << 40, "1099G")]
    {
        assert_eq!(short(number), text);
    }
}
