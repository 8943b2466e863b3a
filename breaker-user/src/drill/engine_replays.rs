//! The scenario `engine-replays`: after a reset an engine resends its old orders with PossDupFlag(43)=Y.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::cause;

use super::environment::{Environment, SCOPE, TIMEOUT};
use super::figures::Report;
use super::traffic::{announce, trade};
use crate::testbed::fix::cl_ord_id;

/// Orders before the trip.
const ORDERS: u64 = 50;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "After a reset the engine resends its old orders with PossDupFlag=Y";
    let mut report = Report::new("engine-replays", title);
    let environment = Environment::new("", "")?;
    environment.log_on()?;
    let first = environment.engine.next_seq();
    announce("engine replays", &format!("{ORDERS} orders, a trip, a reset; then all orders once more"))?;
    let before = trade(&environment.engine, "M", ORDERS, 500);
    environment.venue.wait_for_orders(ORDERS as usize, TIMEOUT)?;
    environment.trip(SCOPE, 1)?;
    environment.reset(SCOPE)?;
    environment.log_on()?;
    let mut replayed = 0;
    for n in 0..ORDERS {
        let sent = environment.engine.resend_order(first + n, &cl_ord_id("M", n + 1));
        replayed += sent.messages;
        if sent.ending.is_some() {
            break;
        }
    }
    let at_engine = environment.engine.wait_for_end(TIMEOUT).context("the replay was not cut off")?;
    let causes = environment.causes(SCOPE)?;
    sleep(Duration::from_millis(300));
    let crossed = environment.venue.order_count() as u64;
    environment.reset(SCOPE)?;
    environment.log_on()?;
    let after = trade(&environment.engine, "A", 20, 200);
    environment.venue.wait_for_orders((ORDERS + after) as usize, TIMEOUT)?;
    let duplicates = environment.venue.orders().iter().filter(|order| order.poss_dup).count() as u64;
    report.orders(before + replayed + after, environment.venue.order_count() as u64);
    report.promise_count("no replayed order crosses", 0, crossed - before);
    report.promise_count("the venue has received no possible duplicate", 0, duplicates);
    report.promise_causes("the replay trips the session again", cause::REPLAY, causes);
    report.promise_reset("the engine receives a reset", Some(&at_engine));
    report.promise_count("after a second reset new orders pass", 20, after);
    Ok(report)
}
