//! The terminal: it is restored at each end, also after a panic and on a signal.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::app::{App, Options};
use super::draw::draw;
use super::keys::Effect;
use super::source::{Reading, Source};
use crate::cli_error::{self, Code};
use crate::kernel::PinRoot;
use crate::view::rates::{Rates, SessionRates};

/// Time between two looks at the switches: a trip is shown at once.
const SWITCH_CHECK: Duration = Duration::from_millis(200);
/// Size of a screen without a terminal.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// A terminal in raw mode and with its alternate screen. It is restored when the value is dropped.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over. From then on a panic in any thread restores it and ends the process.
    pub fn open() -> Result<Self> {
        let terminal = ratatui::try_init().context("taking the terminal over: use --once or --json")?;
        // ratatui's own hook, which this one calls, restores the terminal.
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            report(info);
            std::process::exit(Code::Unexpected as i32);
        }));
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The result is ignored: the terminal may be closed.
        let _ = ratatui::try_restore();
    }
}

/// What the loop waits for.
enum Message {
    Rates(u64, Box<Rates<Vec<SessionRates>>>),
    State(Box<Result<Reading>>),
    Key(KeyEvent),
    Resized,
    Tripped(String),
    Ended,
}

/// Runs the view until `q` or a signal.
pub fn run(root: &PinRoot, source: Source, options: Options) -> Result<()> {
    let mut screen = Screen::open()?;
    let (sender, messages) = mpsc::channel();
    let (wanted, details) = mpsc::channel();
    watch_signals(sender.clone())?;
    let reader = sender.clone();
    thread::spawn(move || read(source, &reader, &details));
    let keys = sender.clone();
    thread::spawn(move || read_keys(&keys));
    let mut app = App::new(options);
    loop {
        screen.terminal.draw(|frame| draw(&mut app, frame.area(), frame.buffer_mut()))?;
        // The old figures are marked if no message arrives.
        let message = match messages.recv_timeout(Duration::from_secs(1)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        match message {
            Message::Rates(second, rates) => app.continue_rates(second, &rates),
            Message::State(reading) => match *reading {
                Ok(reading) => app.show(reading),
                Err(error) => app.fail(cli_error::text_of(&error)),
            },
            Message::Key(key) => match app.key(key) {
                Effect::None => {
                    // The result is ignored: the reader ends with the process.
                    let _ = wanted.send(app.details().map(str::to_owned));
                }
                Effect::Quit => return Ok(()),
                Effect::Trip(order) => {
                    let (root, sender) = (root.clone(), sender.clone());
                    thread::spawn(move || sender.send(Message::Tripped(order.run(&root))));
                }
            },
            Message::Resized => {}
            Message::Tripped(text) => app.message = Some(text),
            Message::Ended => return Ok(()),
        }
    }
}

/// Sends a message at each signal that ends the process.
fn watch_signals(sender: Sender<Message>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("watching signals")?;
    thread::spawn(move || {
        signals.forever().next();
        let _ = sender.send(Message::Ended);
    });
    Ok(())
}

/// Sends the state each second and at each change of a switch, until the receiver ends.
fn read(mut source: Source, sender: &Sender<Message>, wanted: &mpsc::Receiver<Option<String>>) {
    if let Some((second, rates)) = source.recorded() {
        let _ = sender.send(Message::Rates(second, Box::new(rates)));
    }
    let mut details: Option<String> = None;
    loop {
        let reading = source.read(details.as_deref(), true);
        if sender.send(Message::State(Box::new(reading))).is_err() {
            return;
        }
        let next = Instant::now() + source.until_next_second();
        while let Some(pause) = next.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero()) {
            let changed = match wanted.recv_timeout(pause.min(SWITCH_CHECK)) {
                Ok(name) => std::mem::replace(&mut details, name) != details,
                Err(RecvTimeoutError::Timeout) => source.has_changed(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if changed
                && sender.send(Message::State(Box::new(source.read(details.as_deref(), false)))).is_err()
            {
                return;
            }
        }
    }
}

/// Sends keys until the terminal is closed.
fn read_keys(sender: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Message::Key(key),
            Ok(Event::Resize(..)) => Message::Resized,
            Ok(_) => continue,
            Err(_) => Message::Ended,
        };
        let is_end = matches!(message, Message::Ended);
        if sender.send(message).is_err() || is_end {
            return;
        }
    }
}

/// Columns and rows of the terminal; without one those of COLUMNS and LINES, or 80 and 24.
pub fn size() -> (u16, u16) {
    let variable = |name, default| {
        let text = std::env::var(name).ok().and_then(|text| text.parse().ok());
        text.filter(|number| (1..=500).contains(number)).unwrap_or(default)
    };
    let (columns, lines) = DEFAULT_SIZE;
    // Unlike the standard query, this one does not ask another terminal of the process.
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col != 0 && size.ws_row != 0 => (size.ws_col, size.ws_row),
        _ => (variable("COLUMNS", columns), variable("LINES", lines)),
    }
}
