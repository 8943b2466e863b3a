//! The time of a redraw with many sessions.

use std::time::{Duration, Instant};

use super::*;

/// Largest time of a redraw. A build without optimisation is many times slower, and runs beside other tests.
const LARGEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 20 });

/// A document with a thousand sessions in twenty groups.
fn large_document(second: u64) -> Top {
    let name = |n: usize| format!("session-{n:04}");
    let group = |n: usize| format!("group/g{n}");
    let mut top = document(second);
    let limits = |n: u64| vec![limit("order", 500, (n % 500, n % 500)), limit("cancel", 900, (1, 2))];
    top.scopes = vec![scope("host", limits(3))];
    top.scopes.extend((0..20).map(|n| scope(&group(n), limits(n as u64))));
    top.scopes.extend((0..1000).map(|n| scope(&format!("session/{}", name(n)), limits(n as u64))));
    top.sessions = (0..1000).map(|n| session(&name(n), &[&format!("g{}", n % 20)])).collect();
    top
}

#[test]
fn a_redraw_with_a_thousand_sessions_is_fast() {
    let mut app = App::new(options(false));
    for second in 0..900 {
        let orders: Vec<_> = (0..1000).map(|n| second * n).collect();
        let mut small = large_document(second);
        small.scopes.truncate(1);
        app.show(reading(second, small, &orders));
    }
    let orders: Vec<_> = (0..1000).map(|n| 900 * n).collect();
    let mut fastest = Duration::MAX;
    let mut drawn = Duration::MAX;
    for n in 0..10 {
        let reading = reading(900 + n, large_document(900), &orders);
        let start = Instant::now();
        app.show(reading);
        let shown = start.elapsed();
        let lines = screen(&mut app, (200, 60));
        fastest = fastest.min(start.elapsed());
        drawn = drawn.min(start.elapsed() - shown);
        assert!(line_with(&lines, "session-0040").contains("armed"), "{lines:#?}");
    }
    println!(
        "a reading and a redraw of 200 x 60 cells with 1000 sessions: {fastest:?}, the redraw {drawn:?}"
    );
    assert!(fastest < LARGEST, "{fastest:?}");
}
