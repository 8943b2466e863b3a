//! Tests of the live view on ratatui's test terminal, with documents as the kernel's state makes them.

mod keys;
mod load;
mod picture;
mod sizes;
mod styles;

use std::collections::BTreeMap;

use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::app::{App, Options};
use super::draw::draw;
use super::keys::Effect;
use super::source::Reading;
use super::style::Style;
use crate::audit::{Actor, Entry, Line};
use crate::enforced::{Enforced, Problem, ProblemKind};
use crate::rates::{Sample, Samples};
use crate::view::scope::{Limit, Scope};
use crate::view::session::{Session, Verdicts};
use crate::view::status::{Agent, Policy};
use crate::view::top::{SessionRow, Top};

const PLAIN: Style = Style { is_coloured: true, is_utf8: true };

fn options(act: bool) -> Options {
    Options { act, style: PLAIN }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second as i64).expect("a time")
}

fn limit(class: &'static str, max: u64, (used, peak): (u64, u64)) -> Limit {
    Limit { class, max, per: "3s".to_owned(), per_fill: None, used, peak }
}

fn scope(name: &str, limits: Vec<Limit>) -> Scope {
    Scope {
        scope: name.to_owned(),
        armed: true,
        tripped: false,
        causes: vec![],
        epoch: 0,
        last_trip: None,
        limits,
    }
}

fn session(name: &str, groups: &[&str]) -> SessionRow {
    let verdicts = Verdicts { passed: 120, withheld: 0 };
    let session = Session {
        name: name.to_owned(),
        groups: groups.iter().map(|name| (*name).to_owned()).collect(),
        connections: 1,
        fenced: 0,
        messages: BTreeMap::from([("order", verdicts), ("cancel", verdicts)]),
        packets: verdicts,
        retransmitted: 0,
        desyncs: 0,
        blind: 0,
        unread: 0,
        inbound: None,
    };
    SessionRow { session, order_per_s: None, withheld_per_s: None, limit_permille: None }
}

fn event(seq: u64, kind: &str, scope: &str, reason: Option<&str>) -> Line {
    let actor = Actor { uid: 0, user: "alice".to_owned(), pid: 7, via: "cli".to_owned() };
    let entry = Entry {
        time: at(seq),
        kind: kind.to_owned(),
        scope: Some(scope.to_owned()),
        cause: (kind == "tripped").then(|| "manual".to_owned()),
        actor,
        reason: reason.map(str::to_owned),
        counts: json!({}),
        policy: "p".to_owned(),
    };
    Line { seq, entry, prev: String::new() }
}

/// A document: two groups, five sessions, of which `xnas-1` is tripped and `lse-1` is disarmed.
fn document(second: u64) -> Top {
    let mut scopes = vec![
        scope("host", vec![limit("order", 5000, (1234, 2000))]),
        scope("group/us", vec![limit("order", 2000, (1000, 1500))]),
        scope("group/eu", vec![limit("order", 1000, (234, 300))]),
        scope("session/undeclared", vec![]),
        scope("session/xnys-1", vec![limit("order", 500, (460, 490)), limit("cancel", 900, (3, 9))]),
        scope("session/xnas-1", vec![limit("order", 500, (500, 500))]),
        scope("session/bats-1", vec![limit("order", 250_000, (40, 70))]),
        scope("session/lse-1", vec![limit("order", 300, (30, 200))]),
    ];
    (scopes[5].tripped, scopes[5].causes) = (true, vec!["rate"]);
    scopes[7].armed = false;
    Top {
        time: at(second),
        policy: Policy { name: "us-equities 2026-11-22.1".to_owned(), sha256: "00".repeat(32) },
        agent: Agent::new(Some(40_000_000)),
        enforced: Enforced { ok: true, ..Enforced::default() },
        warnings: vec![],
        scopes,
        sessions: vec![
            session("undeclared", &[]),
            session("xnys-1", &["us"]),
            session("xnas-1", &["us"]),
            session("bats-1", &["us"]),
            session("lse-1", &["eu"]),
        ],
        events: vec![],
    }
}

/// A reading of a second. `orders` are the passed orders since the load of the sessions, in their order.
fn reading(second: u64, top: Top, orders: &[u64]) -> Reading {
    let mut samples = Samples::new(at(second));
    for (row, order) in top.sessions.iter().zip(orders) {
        let withheld = if row.session.name == "xnas-1" { second } else { 0 };
        let name = &row.session.name;
        samples.push(Sample { name, order: *order, withheld, limit_permille: Some((second % 1000) as u16) });
    }
    Reading { second: Some(second), samples, top, connections: vec![] }
}

/// A view after 200 seconds, with events.
fn view(act: bool) -> App {
    let mut app = App::new(options(act));
    for second in 0..200 {
        let n = second;
        let mut top = document(n);
        if n == 199 {
            top.events = vec![
                event(1, "loaded", "host", None),
                event(2, "warned", "session/xnys-1", None),
                event(3, "tripped", "session/xnas-1", Some("runaway")),
            ];
        }
        app.show(reading(n, top, &[0, 150 * n, 30 * n, n * n / 50, 7 * n]));
    }
    app
}

/// A view with the problems of a detached program and without an agent.
fn broken_view() -> App {
    let mut app = view(false);
    let mut top = document(200);
    top.agent = Agent::new(Some(5_000_000_000));
    top.enforced = Enforced {
        ok: false,
        problems: vec![Problem {
            kind: ProblemKind::Detached,
            location: "eth1".to_owned(),
            found: "detached: nothing is enforced there".to_owned(),
            cure: "`breaker attach` puts the program back; a trip stays".to_owned(),
            open: true,
        }],
        notes: vec![],
    };
    app.show(reading(200, top, &[0; 5]));
    app
}

fn cells(app: &mut App, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(app, frame.area(), frame.buffer_mut())).expect("drawing");
    terminal.backend().buffer().clone()
}

/// The lines of the screen.
fn screen(app: &mut App, size: (u16, u16)) -> Vec<String> {
    let buffer = cells(app, size);
    let row = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..size.1).map(row).collect()
}

/// The first line that contains a text.
#[track_caller]
fn line_with<'a>(lines: &'a [String], text: &str) -> &'a str {
    lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
}

#[track_caller]
fn position(lines: &[String], text: &str) -> usize {
    lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
}

fn press(app: &mut App, code: KeyCode) -> Effect {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn write(app: &mut App, text: &str) {
    for c in text.chars() {
        assert_eq!(press(app, KeyCode::Char(c)), Effect::None, "{text:?}");
    }
}
