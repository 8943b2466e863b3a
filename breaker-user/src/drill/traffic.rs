//! Orders at a rate, and the titles of the phases.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::testbed::fix::{Initiator, cl_ord_id};

/// Prints the title of a phase of the drill.
pub fn announce(title: &str, text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "\n{title}: {text}").and_then(|()| out.flush())?)
}

/// Waits until order number `n` (from 0) is due at `rate` orders a second.
pub fn pace(start: Instant, n: u64, rate: u64) {
    let due = start + Duration::from_nanos(n * 1_000_000_000 / rate);
    sleep(due.saturating_duration_since(Instant::now()));
}

/// Sends orders at `rate` a second until `stop` or the end of the connection. Returns how many TCP accepted.
fn send(engine: &Initiator, prefix: &str, rate: u64, stop: &AtomicBool) -> u64 {
    let (start, mut wrote) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        pace(start, wrote, rate);
        let sent = engine.send_order(&cl_ord_id(prefix, wrote + 1));
        wrote += sent.messages;
        if sent.ending.is_some() {
            break;
        }
    }
    wrote
}

/// Calls a function while an engine trades. Returns how many orders TCP accepted, and the function's result.
pub fn while_trading<R>(
    engine: &Initiator,
    (prefix, rate): (&str, u64),
    act: impl FnOnce() -> Result<R>,
) -> Result<(u64, R)> {
    let stop = AtomicBool::new(false);
    thread::scope(|threads| {
        let sender = threads.spawn(|| send(engine, prefix, rate, &stop));
        let done = act();
        stop.store(true, Ordering::Relaxed);
        let wrote = sender.join().map_err(|_| anyhow!("a sender of orders panicked"))?;
        Ok((wrote, done?))
    })
}

/// Sends `count` orders at `rate` a second. Returns how many TCP accepted.
pub fn trade(engine: &Initiator, prefix: &str, count: u64, rate: u64) -> u64 {
    let start = Instant::now();
    let mut wrote = 0;
    for n in 0..count {
        pace(start, n, rate);
        let sent = engine.send_order(&cl_ord_id(prefix, n + 1));
        wrote += sent.messages;
        if sent.ending.is_some() {
            break;
        }
    }
    wrote
}
