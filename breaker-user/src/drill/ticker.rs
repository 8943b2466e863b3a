//! The progress line: orders written by the engine and received by the venue, four times a second.

use std::io::{IsTerminal, Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use crate::testbed::fix::Acceptor;

const PERIOD: Duration = Duration::from_millis(250);

/// Prints the progress until it is dropped.
pub struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts a thread that prints the orders counted in `written` and those that the venue received.
    pub fn start(written: Arc<AtomicU64>, venue: Arc<Acceptor>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = spawn(move || {
            let (mut out, mut reached) = (written.load(Ordering::Relaxed), venue.order_count() as u64);
            while !stopped.load(Ordering::Relaxed) {
                sleep(PERIOD);
                let (now_out, now_reached) = (written.load(Ordering::Relaxed), venue.order_count() as u64);
                line(now_out, now_out - out, now_reached, now_reached - reached);
                (out, reached) = (now_out, now_reached);
            }
            if stdout().is_terminal() {
                let _ = writeln!(stdout());
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

/// Prints one reading: on a terminal in place of the last, else on a line of its own. Ignores a closed
/// output.
fn line(out: u64, more_out: u64, reached: u64, more_reached: u64) {
    let per_second = |count: u64| count as f64 / PERIOD.as_secs_f64();
    let text = format!(
        "    engine wrote {out:>6} ({:>6.0}/s)   venue received {reached:>6} ({:>6.0}/s)",
        per_second(more_out),
        per_second(more_reached)
    );
    let mut to = stdout();
    let _ = if to.is_terminal() { write!(to, "\r{text}") } else { writeln!(to, "{text}") };
    let _ = to.flush();
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
