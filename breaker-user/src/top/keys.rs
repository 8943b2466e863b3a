//! The keys of the live view.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, CELL_S, Screen, Section};
use super::input::{Input, Typed};
use super::sort::Sort;
use super::trip::{Answer, Dialog, Order};

/// The keys with their meaning, for the help.
pub const KEYS: [(&str, &str); 16] = [
    ("up down", "select a scope, or scroll (also k j, PageUp PageDown)"),
    ("Enter", "one scope: its limits, connections, causes and last trip"),
    ("Esc", "back; removes the filter"),
    ("/", "show the scopes whose name contains a text"),
    ("s", "next order: group, rate, use, state, name"),
    ("g r u x n", "order by group, rate, use, state, name"),
    ("left right", "15 s back or forward, for 15 minutes"),
    ("[ ]", "1 second back or forward"),
    ("Home End", "the oldest rates, the current rates"),
    ("p", "all problems with their remedies"),
    ("Tab", "scopes or events, on a small terminal"),
    ("t", "trip the selected scope (only with --act)"),
    ("?", "this help"),
    ("q", "end (also Ctrl-C); enforcement does not need this program"),
    ("ORD/S", "orders that passed in the last second"),
    ("USED PEAK", "messages in the window of the nearest limit: now, and the most"),
];

/// The effect of a key outside the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None.
    None,
    /// The view ends.
    Quit,
    /// A scope is to be tripped.
    Trip(Order),
}

impl App {
    /// Handles a key.
    pub fn key(&mut self, key: KeyEvent) -> Effect {
        self.message = None;
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Effect::Quit;
        }
        if let Some(dialog) = self.dialog.take() {
            match dialog.key(key) {
                Answer::More(dialog) => self.dialog = Some(dialog),
                Answer::Cancelled(text) => self.message = Some(text),
                Answer::Trip(order) => {
                    self.message = Some(format!("tripping {}", order.scope));
                    return Effect::Trip(order);
                }
            }
            return Effect::None;
        }
        if let Some(mut input) = self.typing.take() {
            match input.key(key) {
                Typed::Cancelled => self.filter.clear(),
                Typed::Done => self.filter = input.text,
                Typed::More => {
                    self.filter.clone_from(&input.text);
                    self.typing = Some(input);
                }
            }
            return Effect::None;
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('t') => self.ask_for_trip(),
            code => self.navigate(code),
        }
        Effect::None
    }

    fn ask_for_trip(&mut self) {
        if !self.options.act {
            self.message = Some("read-only: start `breaker top --act`, or run `breaker trip`".to_owned());
            return;
        }
        self.dialog = self.subject().map(Dialog::new);
    }

    fn navigate(&mut self, code: KeyCode) {
        let cell = CELL_S as isize;
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Left => self.travel(-cell),
            KeyCode::Right => self.travel(cell),
            KeyCode::Char('[') => self.travel(-1),
            KeyCode::Char(']') => self.travel(1),
            KeyCode::Home => self.travel(-isize::MAX),
            KeyCode::End => self.back = 0,
            KeyCode::Enter => self.open(),
            KeyCode::Esc if self.screen == Screen::Scopes => self.filter.clear(),
            KeyCode::Esc => self.go_to(Screen::Scopes),
            KeyCode::Char('?') => self.go_to(Screen::Help),
            KeyCode::Char('p') => self.go_to(Screen::Problems),
            KeyCode::Char('/') => {
                self.go_to(Screen::Scopes);
                self.section = Section::Scopes;
                self.typing = Some(Input::new(self.filter.clone()));
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Tab => {
                self.section = match self.section {
                    Section::Scopes => Section::Events,
                    Section::Events => Section::Scopes,
                };
            }
            KeyCode::Char(c) => {
                if let Some((sort, _)) = Sort::ALL.iter().find(|(_, key)| *key == c) {
                    self.sort = *sort;
                }
            }
            _ => {}
        }
    }

    /// Selects another scope, or scrolls the lines of another screen.
    fn step(&mut self, distance: isize) {
        match self.screen {
            Screen::Scopes => self.select(distance),
            _ => self.scroll = self.scroll.saturating_add_signed(distance),
        }
    }

    fn open(&mut self) {
        if self.screen == Screen::Scopes
            && let Some(name) = self.subject()
        {
            self.selected = Some(name.clone());
            self.go_to(Screen::Details(name));
        }
    }

    fn go_to(&mut self, screen: Screen) {
        self.screen = screen;
        self.scroll = 0;
    }
}
