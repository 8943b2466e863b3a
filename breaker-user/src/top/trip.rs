//! The dialog of a trip, and the trip itself: `breaker trip` as a process of its own, so that the command
//! line and the live view have the same code path.

use std::process::{Command, Stdio};

use ratatui::crossterm::event::KeyEvent;

use super::input::{Input, Typed};
use crate::kernel::PinRoot;

/// A dialog: first the name of the scope, then the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// Name of the scope.
    pub scope: String,
    /// The line that is being typed.
    pub input: Input,
    /// True once the name was typed.
    pub is_confirmed: bool,
}

/// The effect of a key on a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The dialog goes on.
    More(Dialog),
    /// The dialog ends without a trip, for this reason.
    Cancelled(String),
    /// The scope is to be tripped for this reason.
    Trip(Order),
}

/// A trip that a person has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Name of the scope.
    pub scope: String,
    /// The reason, which may be empty.
    pub reason: String,
}

impl Dialog {
    /// Starts the dialog for a scope.
    pub fn new(scope: String) -> Self {
        Self { scope, input: Input::default(), is_confirmed: false }
    }

    /// The question.
    pub fn question(&self) -> String {
        match self.is_confirmed {
            false => format!("Trip {}? Type its name, or Esc: ", self.scope),
            true => format!("Reason for tripping {}: ", self.scope),
        }
    }

    /// Handles a key.
    pub fn key(mut self, key: KeyEvent) -> Answer {
        match self.input.key(key) {
            Typed::More => Answer::More(self),
            Typed::Cancelled => Answer::Cancelled(format!("{} is not tripped: cancelled", self.scope)),
            Typed::Done if self.is_confirmed => {
                Answer::Trip(Order { scope: self.scope, reason: self.input.text })
            }
            Typed::Done if self.input.text == self.scope => {
                Answer::More(Self { input: Input::default(), is_confirmed: true, ..self })
            }
            Typed::Done => {
                let (scope, typed) = (&self.scope, &self.input.text);
                Answer::Cancelled(format!("{scope} is not tripped: {typed:?} was typed"))
            }
        }
    }
}

impl Order {
    /// Trips the scope. Returns what `breaker trip` printed, in one line.
    pub fn run(&self, root: &PinRoot) -> String {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--pin-root").arg(root.path());
        if root.is_private() {
            command.arg("--private-pins");
        }
        command.args(["trip", &self.scope, &format!("--reason={}", self.reason)]);
        match command.stdin(Stdio::null()).output() {
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&text).lines().collect::<Vec<_>>().join("; ")
            }
            Err(error) => {
                format!("tripping {}: {error}: run `breaker trip {}` elsewhere", self.scope, self.scope)
            }
        }
    }
}
