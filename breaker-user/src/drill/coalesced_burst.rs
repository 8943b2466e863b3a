//! The scenario `coalesced-burst`: an engine writes thousands of orders at once. They leave in segments of up
//! to 64 KB.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::cause;

use super::environment::{Environment, SCOPE, TIMEOUT, order_limit};
use super::figures::Report;
use super::traffic::announce;

/// Limit on orders in the window.
const LIMIT: u64 = 1_500;
/// Orders of the burst.
const BURST: u64 = 20_000;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "An engine writes 20,000 orders at once; many orders share a segment";
    let mut report = Report::new("coalesced-burst", title);
    let environment = Environment::new("", &order_limit(LIMIT, "10s"))?;
    environment.log_on()?;
    announce("coalesced burst", &format!("{BURST} orders as fast as TCP takes them, limit {LIMIT}"))?;
    let sent = environment.engine.send_orders("C", 1..=BURST);
    let at_engine = environment.engine.wait_for_end(TIMEOUT).context("the burst was not cut off")?;
    let at_venue =
        environment.venue.wait_for_end(0, TIMEOUT).context("the venue's connection did not end")?;
    sleep(Duration::from_millis(300));
    let (crossed, received) = (environment.crossed(1)?, environment.venue.order_count() as u64);
    let packets = environment.with_breaker(|breaker| Ok(breaker.counters()?[1].packets_passed))?;
    report.orders(sent.messages, crossed);
    report.count("segments that crossed", packets);
    report.promise(
        format!("at most N = {LIMIT} orders cross, because a segment passes whole or not at all"),
        crossed.to_string(),
        crossed <= LIMIT,
    );
    report.promise("orders cross before the limit", crossed.to_string(), crossed > 0);
    // The kernel program counts an order when its header has crossed. A limit may cut its rest off.
    report.promise(
        "the venue receives each order that crossed whole, but for one that may be cut off",
        format!("{received} of {crossed}"),
        received <= crossed && received + 1 >= crossed,
    );
    let causes = environment.causes(SCOPE)?;
    report.promise_causes("the session is tripped by its rate", cause::RATE, causes);
    report.promise_reset("the engine receives a reset", Some(&at_engine));
    report.promise_reset("the venue receives a reset", Some(&at_venue));
    Ok(report)
}
