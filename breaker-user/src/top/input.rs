//! A line of text that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Most characters of a line.
const MAX: usize = 200;

/// A line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The text so far.
    pub text: String,
}

/// The effect of a key on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The line goes on.
    More,
    /// The line is complete.
    Done,
    /// The line is abandoned.
    Cancelled,
}

impl Input {
    /// A line with this text.
    pub fn new(text: String) -> Self {
        Self { text }
    }

    /// Handles a key.
    pub fn key(&mut self, key: KeyEvent) -> Typed {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Typed::Done,
            KeyCode::Esc => return Typed::Cancelled,
            KeyCode::Backspace => {
                self.text.pop();
            }
            KeyCode::Char('u') if is_control => self.text.clear(),
            KeyCode::Char(c) if !is_control && !c.is_control() && self.text.chars().count() < MAX => {
                self.text.push(c);
            }
            _ => {}
        }
        Typed::More
    }
}
