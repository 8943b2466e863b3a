//! What each size of a terminal shows.

use super::*;

#[test]
fn eighty_by_twenty_four_shows_everything_that_matters() {
    let lines = screen(&mut view(false), (80, 24));
    assert!(lines[0].starts_with("breaker  2026-") && lines[0].contains("agent running"), "{lines:#?}");
    assert!(lines[0].contains("us-equities 2026-11-22.1"), "{lines:#?}");
    assert_eq!(lines[1], "TRIPPED: session/xnas-1 (rate)");
    assert_eq!(lines[2], "DISARMED: session/lse-1");
    // Sessions are below their groups, and the one without a group is last.
    let order =
        ["host ", "group/us", "  xnys-1", "  xnas-1", "  bats-1", "group/eu", "  lse-1", "undeclared"];
    let rows: Vec<_> = order.iter().map(|name| position(&lines[3..], name)).collect();
    assert_eq!(rows, (1..=8).collect::<Vec<_>>(), "{lines:#?}");
    let xnys = line_with(&lines, "xnys-1");
    for part in ["armed", "150", "order/3s", "460/500", " ███████░ ", "490"] {
        assert!(xnys.contains(part), "{part}: {xnys}");
    }
    assert!(line_with(&lines, "  xnas-1").contains("TRIPPED"));
    assert!(line_with(&lines, "  lse-1").contains("DISARMED"));
    assert!(line_with(&lines, "undeclared").contains("no limit"));
    // The sums of the sessions: 150 + 30 + 7 or 8 + 7.
    let host = line_with(&lines, "host ");
    assert!(host.contains("194") || host.contains("195"), "{host}");
    assert!(line_with(&lines, "bats-1").contains("40/250k"), "{lines:#?}");
    // The rate of bats-1 grows, and so does its sparkline.
    let spark: Vec<_> = line_with(&lines, "bats-1").chars().rev().take(9).collect();
    assert!(spark.is_sorted_by(|later, earlier| later >= earlier) && spark[8] < spark[0], "{spark:?}");
    let events = position(&lines, "EVENTS");
    assert!(
        lines[events + 1].ends_with("tripped session/xnas-1 (manual) by alice \"runaway\""),
        "{lines:#?}"
    );
    assert!(lines[events + 2].contains("warned"), "{lines:#?}");
    assert!(lines[23].contains("q end") && lines[23].contains("? help"), "{lines:#?}");
}

#[test]
fn a_larger_terminal_shows_withheld_orders_and_longer_history() {
    let lines = screen(&mut view(false), (120, 40));
    let heading = line_with(&lines, "SCOPE");
    assert!(heading.contains("WH/S") && heading.contains("PEAK"), "{heading}");
    let words: Vec<_> = line_with(&lines, "  xnas-1").split_whitespace().collect();
    assert_eq!(words[..6], ["xnas-1", "TRIPPED", "30", "1", "order/3s", "500/500"], "{lines:#?}");
    assert!(words[6].chars().all(|c| c == '█') && words[6].chars().count() > 8, "{words:?}");
    let spark =
        |lines: &[String]| line_with(lines, "group/us").chars().filter(|c| ('▁'..='█').contains(c)).count();
    assert!(spark(&lines) > spark(&screen(&mut view(false), (80, 24))));
}

#[test]
fn without_problems_the_header_says_in_force() {
    let mut app = view(false);
    let mut top = document(200);
    (top.scopes[5].tripped, top.scopes[5].causes) = (false, vec![]);
    top.scopes[7].armed = true;
    app.show(reading(200, top, &[0; 5]));
    let wide = screen(&mut app, (80, 24));
    assert_eq!(wide[1], "IN FORCE: every scope is armed and none is tripped");
    assert_eq!(screen(&mut app, (20, 5))[0], "IN FORCE");
}

#[test]
fn the_header_names_each_problem_the_worst_first_and_never_scrolls() {
    let mut app = broken_view();
    let expected = [
        "DETACHED: eth1: detached: nothing is enforced there",
        "TRIPPED: session/xnas-1 (rate)",
        "DISARMED: session/lse-1",
        "AGENT ABSENT: last seen 5.0 s ago; enforcement goes on",
    ];
    for key in [KeyCode::PageDown, KeyCode::End, KeyCode::Enter, KeyCode::PageDown, KeyCode::Char('?')] {
        press(&mut app, key);
        assert_eq!(screen(&mut app, (80, 24))[1..5], expected, "{key:?}");
    }
    press(&mut app, KeyCode::Char('p'));
    let page = screen(&mut app, (80, 24));
    assert!(line_with(&page, "to do: `breaker attach`").len() > 20);
}

#[test]
fn an_unreadable_state_is_the_first_problem_and_the_last_figures_stay() {
    let mut app = view(false);
    app.fail("nothing is loaded under /sys/fs/bpf/breaker".to_owned());
    let lines = screen(&mut app, (80, 24));
    assert_eq!(lines[1], "NO STATE: nothing is loaded under /sys/fs/bpf/breaker");
    assert!(line_with(&lines, "xnys-1").contains("460/500"));
}

#[test]
fn a_small_terminal_shows_one_section_at_a_time() {
    let mut app = broken_view();
    let lines = screen(&mut app, (40, 12));
    assert_eq!(lines[1], "DETACHED, TRIPPED, DISARMED, AGENT ABSE…");
    assert!(line_with(&lines, "  xnys-1").contains("92%"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("warned")), "{lines:#?}");
    press(&mut app, KeyCode::Tab);
    let lines = screen(&mut app, (40, 12));
    assert!(line_with(&lines, "tripped session/xnas-1").len() > 22, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("bats-1")), "{lines:#?}");
    assert!(lines[1].starts_with("DETACHED, TRIPPED"), "{lines:#?}");
}

#[test]
fn twenty_by_five_shows_the_problems_and_the_rows_around_the_selected_one() {
    let mut app = broken_view();
    let lines = screen(&mut app, (20, 5));
    assert_eq!(lines[0], "DETACHED, TRIPPED, …");
    assert_eq!(lines[1..4], ["host       armed", "group/us   armed", "  xnys-1   armed"]);
    assert_eq!(lines[4], "q ? Enter / Tab");
    (0..3).for_each(|_| drop(press(&mut app, KeyCode::Down)));
    assert_eq!(screen(&mut app, (20, 5))[3], "  xnas-1   TRIPPED");
    press(&mut app, KeyCode::Enter);
    let lines = screen(&mut app, (20, 5));
    assert!(lines[1].starts_with("session/xnas-1"), "{lines:#?}");
    assert_eq!(lines[4], "q Esc");
}

#[test]
fn no_size_is_refused() {
    let mut app = broken_view();
    for size in (1..=90).step_by(3).flat_map(|width| (1..=30).step_by(2).map(move |height| (width, height))) {
        for key in [KeyCode::Enter, KeyCode::Char('?'), KeyCode::Char('p'), KeyCode::Esc, KeyCode::Tab] {
            press(&mut app, key);
            assert_eq!(screen(&mut app, size).len(), usize::from(size.1));
        }
    }
}
