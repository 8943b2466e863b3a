//! The scenario Knight Capital, 1 August 2012: one of eight servers ran old code, which turned 212 orders
//! into millions of orders within 45 minutes.
//!
//! The figures are from the SEC's order (Release 34-70694, 16 October 2013): 212 parent orders, over 4
//! million executions, 45 minutes. That is 1,481 orders a second on the one server. The burst has ten times
//! as many orders, as fast as a session can send them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::environment::{Environment, SCOPE, TIMEOUT, order_limit};
use super::figures::Report;
use super::ticker::Ticker;
use super::traffic::{announce, pace};
use crate::testbed::Moment;
use crate::testbed::fix::{Ending, cl_ord_id, cl_ord_ids};

/// Limit on orders in any second.
const LIMIT: u64 = 500;
/// Orders of normal trading.
const NORMAL: u64 = 212;
/// Orders a second of normal trading.
const NORMAL_RATE: u64 = 100;
/// Orders a second of the runaway.
const RUNAWAY_RATE: u64 = 1_481;
/// Orders of each burst that the engine sends after it reconnects.
const BURST: u64 = 15_400;
/// Number of bursts.
const BURSTS: u64 = 2;
/// Orders after the reset.
const AFTER_RESET: u64 = 10;
/// Longer than the window of the limit: a reset is refused while the window is full and the sender has not
/// stopped.
const PAUSE_BEFORE_RESET: Duration = Duration::from_millis(1_200);

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let mut environment = Environment::new("", &order_limit(LIMIT, "1s"))?;
    let mut report = Report::new(
        "knight",
        "Knight Capital, 1 August 2012: a runaway is cut off after exactly N orders; the agent is killed",
    );
    let written = Arc::new(AtomicU64::new(0));
    announce(
        "normal trading",
        &format!("{NORMAL} orders at {NORMAL_RATE} a second, limit {LIMIT} a second"),
    )?;
    trade_normally(&environment, &written)?;
    announce("runaway", &format!("{RUNAWAY_RATE} orders a second without an end"))?;
    let runaway = run_away(&environment, &written)?;
    announce("no agent", "the agent is killed with -9; the engine reconnects and sends bursts")?;
    environment.kill_agent()?;
    let bursts = send_bursts(&environment, &written)?;
    announce("reset", "no stale order may reach the venue")?;
    reset(&environment, &written)?;
    measure(&environment, &runaway, bursts, written.load(Ordering::Relaxed), &mut report)?;
    Ok(report)
}

/// Observations of the runaway.
struct Runaway {
    /// Orders that the engine wrote, including those that TCP only queued.
    wrote: u64,
    /// When the first order beyond the limit was handed to TCP.
    excess_at: Moment,
    /// How the connection ended for the engine.
    engine: Ending,
    /// How the connection ended for the venue.
    venue: Ending,
    /// When the kernel tripped the scope.
    tripped_at: Moment,
}

fn trade_normally(environment: &Environment, written: &Arc<AtomicU64>) -> Result<()> {
    environment.log_on()?;
    let _ticker = Ticker::start(written.clone(), environment.venue.clone());
    let start = Instant::now();
    for n in 0..NORMAL {
        pace(start, n, NORMAL_RATE);
        let sent = environment.engine.send_order(&cl_ord_id("M", n + 1));
        ensure!(
            sent.ending.is_none(),
            "normal trading: the connection ended at order {n}: {:?}",
            sent.ending
        );
        written.fetch_add(sent.messages, Ordering::Relaxed);
    }
    environment.venue.wait_for_orders(NORMAL as usize, TIMEOUT)?;
    // Until these orders have left the window, so that the whole limit is available.
    sleep(Duration::from_millis(1_100));
    Ok(())
}

fn run_away(environment: &Environment, written: &Arc<AtomicU64>) -> Result<Runaway> {
    let ticker = Ticker::start(written.clone(), environment.venue.clone());
    let start = Instant::now();
    let (mut wrote, mut excess_at) = (0, Moment::now());
    let engine = loop {
        pace(start, wrote, RUNAWAY_RATE);
        if wrote == LIMIT {
            excess_at = Moment::now();
        }
        let sent = environment.engine.send_order(&cl_ord_id("R", wrote + 1));
        wrote += sent.messages;
        written.fetch_add(sent.messages, Ordering::Relaxed);
        if let Some(ending) = sent.ending.or_else(|| environment.engine.ending()) {
            break ending;
        }
        ensure!(wrote < 100 * LIMIT, "the runaway: {wrote} orders were written and nothing stopped them");
    };
    let venue = environment
        .venue
        .wait_for_end(0, TIMEOUT)
        .context("the runaway: the connection did not end at the venue")?;
    drop(ticker);
    let trip = environment.with_breaker(|breaker| Ok(breaker.scope(breaker.find(SCOPE)?)?.trip))?;
    Ok(Runaway { wrote, excess_at, engine, venue, tripped_at: Moment::from_nanos(trip.at_ns) })
}

/// Lets the engine reconnect and send its bursts. Returns how many orders it wrote.
fn send_bursts(environment: &Environment, written: &Arc<AtomicU64>) -> Result<u64> {
    let _ticker = Ticker::start(written.clone(), environment.venue.clone());
    let mut wrote = 0;
    for attempt in 1..=BURSTS {
        environment.log_on().context("logging on while tripped, which is allowed in order to cancel")?;
        let sent = environment.engine.send_orders(&format!("B{attempt}"), 1..=BURST);
        wrote += sent.messages;
        written.fetch_add(sent.messages, Ordering::Relaxed);
        environment.engine.wait_for_end(TIMEOUT).context("no agent: the burst was not cut off")?;
        sleep(Duration::from_millis(300));
    }
    Ok(wrote)
}

fn reset(environment: &Environment, written: &Arc<AtomicU64>) -> Result<()> {
    sleep(PAUSE_BEFORE_RESET);
    let output = environment.run_verb(&["reset", SCOPE, "--reason", "drill: the old code is removed"])?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the reset was refused: {text}");
    print!("    {text}");
    let _ticker = Ticker::start(written.clone(), environment.venue.clone());
    // Long enough for every retransmission and window probe of queued data.
    sleep(Duration::from_secs(1));
    environment.log_on()?;
    for n in 1..=AFTER_RESET {
        let sent = environment.engine.send_order(&cl_ord_id("A", n));
        written.fetch_add(sent.messages, Ordering::Relaxed);
    }
    environment.venue.wait_for_orders((NORMAL + LIMIT + AFTER_RESET) as usize, TIMEOUT)?;
    sleep(Duration::from_millis(300));
    Ok(())
}

/// Compares the observations with the promises.
fn measure(
    environment: &Environment,
    runaway: &Runaway,
    bursts: u64,
    written: u64,
    report: &mut Report,
) -> Result<()> {
    let counters = environment.with_breaker(|breaker| Ok(breaker.counters()?[1]))?;
    let received: Vec<_> = environment.venue.orders().into_iter().map(|order| order.cl_ord_id).collect();
    let ids: BTreeSet<_> = received.iter().cloned().collect();
    let expected: BTreeSet<_> = [("M", NORMAL), ("R", LIMIT), ("A", AFTER_RESET)]
        .into_iter()
        .flat_map(|(prefix, n)| cl_ord_ids(prefix, 1..=n))
        .collect();
    let with_prefix = |prefix: char| ids.iter().filter(|id| id.starts_with(prefix)).count() as u64;
    let stale = ids.difference(&expected).count() as u64;
    let at_engine = runaway.engine.at.since(runaway.excess_at);
    let at_venue = runaway.venue.at.since(runaway.excess_at);
    report.orders(written, received.len() as u64);
    report.count("stale orders after the reset", stale);
    report.time(
        "order N+1 handed to TCP, to the trip in the kernel",
        runaway.tripped_at.since(runaway.excess_at),
    );
    report.time("order N+1 handed to TCP, to the reset at the engine", at_engine);
    report.time("order N+1 handed to TCP, to the reset at the venue", at_venue);
    report.promise_count("all orders of normal trading pass", NORMAL, with_prefix('M'));
    report.promise_count(
        format!("of the runaway's {} orders exactly N = {LIMIT} pass", runaway.wrote),
        LIMIT,
        with_prefix('R'),
    );
    report.promise_count(
        "the venue and the kernel count the same",
        received.len() as u64,
        counters.passed[0],
    );
    report.promise_reset("the engine receives a reset", Some(&runaway.engine));
    report.promise_reset("the venue receives a reset", Some(&runaway.venue));
    let late = at_engine.max(at_venue);
    report.promise_time("both within 5 ms of order N+1", late, Duration::from_millis(5));
    report.promise_count(format!("of {bursts} orders without an agent none pass"), 0, with_prefix('B'));
    report.promise_count("no stale order passes after the reset", 0, stale);
    report.promise(
        "the session trades after the reset",
        format!("{} orders", received.len()),
        ids == expected && received.len() == ids.len(),
    );
    Ok(())
}
