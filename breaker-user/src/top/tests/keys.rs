//! The keys: orders, filter, details, history, and the trip.

use super::super::app::Screen;
use super::super::trip::Order;
use super::*;

/// The names of the scopes in their order on the screen.
fn names(app: &App) -> Vec<String> {
    let top = app.top.as_ref().expect("a document");
    app.rows().iter().map(|row| top.scopes[row.scope].scope.clone()).collect()
}

#[test]
fn each_order_sorts_by_what_its_name_says() {
    let mut app = view(false);
    let cases = [
        ('r', ["host", "group/us", "session/xnys-1"]),
        ('u', ["session/xnas-1", "session/xnys-1", "group/us"]),
        ('x', ["session/xnas-1", "session/lse-1", "host"]),
        ('n', ["group/eu", "group/us", "host"]),
        ('g', ["host", "group/us", "session/xnys-1"]),
    ];
    for (key, first) in cases {
        press(&mut app, KeyCode::Char(key));
        assert_eq!(names(&app)[..3], first, "{key}");
        assert_eq!(names(&app).len(), 8, "{key}");
    }
    for (_, first) in cases {
        press(&mut app, KeyCode::Char('s'));
        assert_eq!(names(&app)[..3], first);
    }
}

#[test]
fn a_filter_shows_the_scopes_with_a_text_until_escape() {
    let mut app = view(false);
    press(&mut app, KeyCode::Char('/'));
    write(&mut app, "xnq");
    assert_eq!(names(&app), [""; 0]);
    assert!(screen(&mut app, (80, 24))[23].starts_with("/xnq_"));
    press(&mut app, KeyCode::Backspace);
    assert_eq!(names(&app), ["session/xnys-1", "session/xnas-1"]);
    press(&mut app, KeyCode::Enter);
    let lines = screen(&mut app, (80, 24));
    assert!(lines[23].starts_with("filter: xn"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("bats-1")), "{lines:#?}");
    // A problem of a hidden scope stays in the header.
    assert_eq!(lines[2], "DISARMED: session/lse-1");
    press(&mut app, KeyCode::Esc);
    assert_eq!(names(&app).len(), 8);
}

#[test]
fn the_selected_scope_stays_selected_when_the_order_changes() {
    let mut app = view(false);
    (0..4).for_each(|_| drop(press(&mut app, KeyCode::Down)));
    assert_eq!(app.subject().as_deref(), Some("session/bats-1"));
    press(&mut app, KeyCode::Char('n'));
    assert_eq!(app.subject().as_deref(), Some("session/bats-1"));
    (0..50).for_each(|_| drop(press(&mut app, KeyCode::PageDown)));
    assert_eq!(app.subject().as_deref(), Some("session/xnys-1"));
}

#[test]
fn enter_shows_limits_groups_causes_and_the_last_trip_of_a_session() {
    let mut app = view(false);
    (0..3).for_each(|_| drop(press(&mut app, KeyCode::Down)));
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.screen, Screen::Details("session/xnas-1".to_owned()));
    assert_eq!(app.details(), Some("session/xnas-1"));
    let lines = screen(&mut app, (120, 40));
    assert_eq!(line_with(&lines, "epoch"), "session/xnas-1: TRIPPED (rate), armed, epoch 0");
    assert!(line_with(&lines, "last trip in the log").contains("\"runaway\""));
    assert!(line_with(&lines, "orders/s").contains("30 at the shown second, 30 at most in 15 minutes"));
    for (scope, figures) in [
        ("session/xnas-1", "used 500 (100%), peak 500"),
        ("group/us", "used 1000 (50%)"),
        ("host", "used 1234"),
    ] {
        let limits = &lines[position(&lines, "LIMITS")..];
        assert!(line_with(limits, scope).contains(figures), "{lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("group/eu")), "{lines:#?}");
    assert!(line_with(&lines, "CONNECTIONS").contains("1 live, 0 blind, 0 fenced"));
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.screen, Screen::Scopes);
}

#[test]
fn left_and_right_show_earlier_rates() {
    let mut app = view(false);
    let rate = |app: &mut App| {
        let lines = screen(app, (80, 24));
        let words: Vec<_> = line_with(&lines, "  bats-1").split_whitespace().map(str::to_owned).collect();
        (words[2].clone(), lines[0].clone())
    };
    // The rate in second n is (2 n - 1) / 50, rounded.
    assert_eq!(rate(&mut app).0, "8");
    (0..8).for_each(|_| drop(press(&mut app, KeyCode::Left)));
    let (earlier, title) = rate(&mut app);
    assert!(["3", "4"].contains(&earlier.as_str()), "{earlier}");
    assert!(title.contains("RATES OF 120 s AGO"), "{title}");
    // The shown second stays while time goes on.
    app.show(reading(200, document(200), &[0, 30_000, 6_000, 800, 1_400]));
    assert!(rate(&mut app).1.contains("RATES OF 121 s AGO"));
    press(&mut app, KeyCode::Home);
    assert!(rate(&mut app).1.contains("RATES OF 200 s AGO"));
    press(&mut app, KeyCode::Char(']'));
    assert!(rate(&mut app).1.contains("RATES OF 199 s AGO"));
    press(&mut app, KeyCode::End);
    assert!(rate(&mut app).1.starts_with("breaker  2026-"));
}

#[test]
fn without_act_no_key_trips() {
    let mut app = view(false);
    assert_eq!(press(&mut app, KeyCode::Char('t')), Effect::None);
    assert!(app.dialog.is_none());
    let lines = screen(&mut app, (80, 24));
    assert!(lines[23].starts_with("read-only: start `breaker top --act`"), "{lines:#?}");
}

#[test]
fn a_trip_needs_the_exact_name_and_then_a_reason() {
    let mut app = view(true);
    press(&mut app, KeyCode::Down);
    for wrong in ["", "us", "group/u", "group/us "] {
        press(&mut app, KeyCode::Char('t'));
        assert!(screen(&mut app, (80, 24))[23].starts_with("Trip group/us? Type its name"));
        write(&mut app, wrong);
        assert_eq!(press(&mut app, KeyCode::Enter), Effect::None);
        assert_eq!(app.message.as_deref(), Some(&*format!("group/us is not tripped: {wrong:?} was typed")));
    }
    press(&mut app, KeyCode::Char('t'));
    // Keys of the view are text in the dialog.
    write(&mut app, "group/us");
    assert_eq!(press(&mut app, KeyCode::Enter), Effect::None);
    assert_eq!(screen(&mut app, (80, 24))[23], "Reason for tripping group/us: _");
    write(&mut app, "quote loop");
    let order = Order { scope: "group/us".to_owned(), reason: "quote loop".to_owned() };
    assert_eq!(press(&mut app, KeyCode::Enter), Effect::Trip(order));
    assert!(app.dialog.is_none());

    press(&mut app, KeyCode::Char('t'));
    write(&mut app, "group/us");
    press(&mut app, KeyCode::Enter);
    assert_eq!(press(&mut app, KeyCode::Esc), Effect::None);
    assert_eq!(app.message.as_deref(), Some("group/us is not tripped: cancelled"));
}

#[test]
fn q_and_control_c_end_the_view() {
    assert_eq!(press(&mut view(false), KeyCode::Char('q')), Effect::Quit);
    let mut app = view(true);
    press(&mut app, KeyCode::Char('t'));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(control_c), Effect::Quit);
}

#[test]
fn the_help_names_every_key() {
    let mut app = view(false);
    press(&mut app, KeyCode::Char('?'));
    let lines = screen(&mut app, (80, 30));
    for key in ["Enter", "Esc", "left right", "Home End", "Tab", "q  ", "t  ", "/  "] {
        line_with(&lines, key);
    }
    line_with(&lines, "read-only: start with --act");
}
