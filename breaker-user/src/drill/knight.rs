//! Knight Capital, 1 August 2012: of eight servers one ran old code, and turned 212 orders into millions within 45 minutes.
//!
//! The figures are those of the SEC's order (Release 34-70694, 16 October 2013): 212 parent orders; over 4 million executions, 45
//! minutes. That is 1,481 orders a second on the one server; the burst is ten times as much, as fast as a session carries it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::figures::Report;
use super::stage::{PATIENCE, Stage};
use super::ticker::Ticker;
use crate::testbed::Moment;
use crate::testbed::fix::{Ending, cl_ord_id, cl_ord_ids};

const POLICY: &str = r#"
[host]
interfaces = ["eth1"]
[[session]]
name = "xnys-1"
remote = "10.9.0.2:9001"
limits = [{ class = "order", max = 500, per = "1s" }]
"#;
const SCOPE: &str = "session/xnys-1";
/// Orders that may cross in any second.
const LIMIT: u64 = 500;
/// Orders of the normal morning, and how many of them a second.
const MORNING: u64 = 212;
const MORNING_RATE: u64 = 100;
/// Orders a second of the runaway.
const RUNAWAY_RATE: u64 = 1_481;
/// Orders of the burst that the engine's reconnection brings, and how often it tries.
const BURST: u64 = 15_400;
const TRIES: u64 = 2;
/// Orders after the reset.
const AFTERNOON: u64 = 10;
/// Longer than the limit's window: while that is full, a reset asks whether the sender has stopped.
const STOPPED: Duration = Duration::from_millis(1_200);

/// Rehearses it.
pub fn run() -> Result<Report> {
    let mut stage = Stage::set(POLICY)?;
    let mut report = Report::new("knight");
    let written = Arc::new(AtomicU64::new(0));
    act(
        "the normal morning",
        &format!("{MORNING} orders at {MORNING_RATE} a second, limit {LIMIT} a second"),
    )?;
    morning(&stage, &written)?;
    act("the runaway", &format!("{RUNAWAY_RATE} orders a second and no end"))?;
    let runaway = runaway(&stage, &written)?;
    act("nobody home", "the agent is killed with -9; the engine reconnects and bursts")?;
    stage.kill_agent()?;
    let bursts = bursts(&stage, &written)?;
    act("the reset", "and not one stale order may come")?;
    reset(&stage, &written)?;
    measure(&stage, &runaway, bursts, written.load(Ordering::Relaxed), &mut report)?;
    Ok(report)
}

/// What the cut looked like.
struct Runaway {
    /// Orders that the engine wrote, those that TCP only queued included.
    wrote: u64,
    /// When the first order beyond the limit was handed to TCP.
    excess_at: Moment,
    /// How the connection ended for the engine,
    engine: Ending,
    /// and for the venue.
    venue: Ending,
    /// When the kernel tripped the scope.
    tripped_at: Moment,
}

fn act(title: &str, text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "\n{title}: {text}").and_then(|()| out.flush())?)
}

/// Waits for the moment at which order number `n` (from 0) is due at `rate` a second.
fn pace(start: Instant, n: u64, rate: u64) {
    let due = start + Duration::from_nanos(n * 1_000_000_000 / rate);
    sleep(due.saturating_duration_since(Instant::now()));
}

fn morning(stage: &Stage, written: &Arc<AtomicU64>) -> Result<()> {
    stage.log_on()?;
    let _ticker = Ticker::start(written.clone(), stage.venue.clone());
    let start = Instant::now();
    for n in 0..MORNING {
        pace(start, n, MORNING_RATE);
        let sent = stage.engine.send_order(&cl_ord_id("M", n + 1));
        ensure!(
            sent.ending.is_none(),
            "the normal morning: the connection ended at order {n}: {:?}",
            sent.ending
        );
        written.fetch_add(sent.messages, Ordering::Relaxed);
    }
    stage.venue.wait_for_orders(MORNING as usize, PATIENCE)?;
    // Until the morning has left the window, so that the limit is there whole.
    sleep(Duration::from_millis(1_100));
    Ok(())
}

fn runaway(stage: &Stage, written: &Arc<AtomicU64>) -> Result<Runaway> {
    let ticker = Ticker::start(written.clone(), stage.venue.clone());
    let start = Instant::now();
    let (mut wrote, mut excess_at) = (0, Moment::now());
    let engine = loop {
        pace(start, wrote, RUNAWAY_RATE);
        if wrote == LIMIT {
            excess_at = Moment::now();
        }
        let sent = stage.engine.send_order(&cl_ord_id("R", wrote + 1));
        wrote += sent.messages;
        written.fetch_add(sent.messages, Ordering::Relaxed);
        if let Some(ending) = sent.ending.or_else(|| stage.engine.ending()) {
            break ending;
        }
        ensure!(wrote < 100 * LIMIT, "the runaway: {wrote} orders were written and nothing stopped them");
    };
    let venue = stage.venue.wait_for_end(0, PATIENCE).context("the runaway: the venue was told nothing")?;
    drop(ticker);
    let trip = stage.with(|breaker| Ok(breaker.scope(breaker.find(SCOPE)?)?.trip))?;
    Ok(Runaway { wrote, excess_at, engine, venue, tripped_at: Moment::from_nanos(trip.at_ns) })
}

/// The engine comes back by itself and sends what it has. Returns how many orders it wrote.
fn bursts(stage: &Stage, written: &Arc<AtomicU64>) -> Result<u64> {
    let _ticker = Ticker::start(written.clone(), stage.venue.clone());
    let mut wrote = 0;
    for attempt in 1..=TRIES {
        stage.log_on().context("while tripped a session may log on, to cancel")?;
        let sent = stage.engine.send_orders(&format!("B{attempt}"), 1..=BURST);
        wrote += sent.messages;
        written.fetch_add(sent.messages, Ordering::Relaxed);
        stage.engine.wait_for_end(PATIENCE).context("nobody home: the burst was not cut off")?;
        sleep(Duration::from_millis(300));
    }
    Ok(wrote)
}

fn reset(stage: &Stage, written: &Arc<AtomicU64>) -> Result<()> {
    sleep(STOPPED);
    let output = stage.verb(&["reset", SCOPE, "--reason", "drill: the old code is gone"])?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the reset was refused: {said}");
    print!("    {said}");
    let _ticker = Ticker::start(written.clone(), stage.venue.clone());
    // Long enough for every retransmission and probe of what was queued.
    sleep(Duration::from_secs(1));
    stage.log_on()?;
    for n in 1..=AFTERNOON {
        let sent = stage.engine.send_order(&cl_ord_id("A", n));
        written.fetch_add(sent.messages, Ordering::Relaxed);
    }
    stage.venue.wait_for_orders((MORNING + LIMIT + AFTERNOON) as usize, PATIENCE)?;
    sleep(Duration::from_millis(300));
    Ok(())
}

/// Holds what was seen against what was promised.
fn measure(stage: &Stage, runaway: &Runaway, bursts: u64, written: u64, report: &mut Report) -> Result<()> {
    let counters = stage.with(|breaker| Ok(breaker.counters()?[1]))?;
    let came: Vec<_> = stage.venue.orders().into_iter().map(|order| order.cl_ord_id).collect();
    let set: BTreeSet<_> = came.iter().cloned().collect();
    let due: BTreeSet<_> = [("M", MORNING), ("R", LIMIT), ("A", AFTERNOON)]
        .into_iter()
        .flat_map(|(prefix, n)| cl_ord_ids(prefix, 1..=n))
        .collect();
    let stale = set.difference(&due).count() as u64;
    let crossed = set.iter().filter(|id| id.starts_with('R')).count() as u64;
    let at_engine = runaway.engine.at.since(runaway.excess_at);
    let at_venue = runaway.venue.at.since(runaway.excess_at);
    report.count("orders written by the engine", written);
    report.count("orders that crossed", came.len() as u64);
    report.count("orders withheld", written - came.len() as u64);
    report.count("stale orders after the reset", stale);
    report.time(
        "order N+1 handed to TCP, to the trip in the kernel",
        runaway.tripped_at.since(runaway.excess_at),
    );
    report.time("order N+1 handed to TCP, to the reset at the engine", at_engine);
    report.time("order N+1 handed to TCP, to the reset at the venue", at_venue);
    report.promise_count(
        "the normal morning crosses whole",
        MORNING,
        set.iter().filter(|id| id.starts_with('M')).count() as u64,
    );
    report.promise_count(
        format!("of the runaway's {} orders exactly N = {LIMIT} cross", runaway.wrote),
        LIMIT,
        crossed,
    );
    report.promise_count("the venue and the kernel count the same", came.len() as u64, counters.passed[0]);
    report.promise(
        "the engine is told by a reset",
        format!("{:?}", runaway.engine.how),
        is_reset(&runaway.engine),
    );
    report.promise(
        "the venue is told by a reset",
        format!("{:?}", runaway.venue.how),
        is_reset(&runaway.venue),
    );
    let late = at_engine.max(at_venue);
    report.promise(
        "both within 5 ms of order N+1",
        format!("{:.3} ms", late.as_secs_f64() * 1e3),
        late < Duration::from_millis(5),
    );
    let burst = set.iter().filter(|id| id.starts_with('B')).count() as u64;
    report.promise_count(format!("of {bursts} orders with the agent dead none cross"), 0, burst);
    report.promise_count("no stale order comes after the reset", 0, stale);
    report.promise(
        "after the reset the session trades",
        format!("{} orders", came.len()),
        set == due && came.len() == set.len(),
    );
    Ok(())
}

fn is_reset(ending: &Ending) -> bool {
    ending.how == crate::testbed::fix::End::Reset
}
