//! The scenario `cancel-while-tripped`: a tripped session logs on again and cancels its resting orders.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breaker_common::abi::cause;

use super::environment::{Environment, SCOPE, TIMEOUT};
use super::figures::Report;
use super::traffic::{announce, trade};
use crate::testbed::fix::cl_ord_id;

/// Resting orders.
const ORDERS: u64 = 100;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "A tripped session logs on again and cancels its orders; the next order is withheld";
    let mut report = Report::new("cancel-while-tripped", title);
    let environment = Environment::new("while_tripped = \"reduce-only\"", "")?;
    environment.log_on()?;
    announce("cancel while tripped", &format!("{ORDERS} orders rest; after the trip all are cancelled"))?;
    let wrote = trade(&environment.engine, "M", ORDERS, 1_000);
    environment.venue.wait_for_orders(ORDERS as usize, TIMEOUT)?;
    let tripped = environment.trip(SCOPE, 1)?;
    environment.engine.wait_for_end(TIMEOUT).context("the connection did not end")?;
    environment.log_on().context("logging on while tripped, which is allowed in order to cancel")?;
    for n in 1..=ORDERS {
        let sent = environment.engine.send_cancel(&cl_ord_id("C", n), &cl_ord_id("M", n));
        ensure!(sent.ending.is_none(), "the connection ended at cancel {n}: {:?}", sent.ending);
    }
    let deadline = Instant::now() + TIMEOUT;
    while (environment.venue.cancels().len() as u64) < ORDERS && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    let cancels = environment.venue.cancels();
    let more = environment.engine.send_order("X0000001").messages;
    let at_engine = environment.engine.wait_for_end(TIMEOUT).context("the order was not cut off")?;
    sleep(Duration::from_millis(300));
    let crossed = environment.venue.order_count() as u64;
    report.orders(wrote + more, crossed);
    if let Some(last) = cancels.last() {
        report.time("the switch, to the last cancel at the venue", last.at.since(tripped.switched));
    }
    report.promise_count("every cancel reaches the venue while tripped", ORDERS, cancels.len() as u64);
    report.promise_count("no order crosses after the trip", 0, crossed - wrote);
    report.promise_reset("the order ends the connection with a reset", Some(&at_engine));
    let causes = environment.causes(SCOPE)?;
    report.promise_causes("the session is still tripped", cause::MANUAL, causes);
    Ok(report)
}
