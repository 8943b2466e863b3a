//! The scenario `upgrade-under-load`: `breaker upgrade` while orders leave.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::cause;

use super::environment::{Environment, OTHER_SESSION, SCOPE, TIMEOUT, order_limit};
use super::figures::Report;
use super::traffic::{announce, while_trading};
use crate::testbed::Moment;

/// Orders a second.
const RATE: u64 = 2_000;
/// Number of upgrades.
const UPGRADES: u32 = 3;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "The program is replaced three times while orders leave; a trip stays";
    let mut report = Report::new("upgrade-under-load", title);
    let environment = Environment::new("", &format!("{}{OTHER_SESSION}", order_limit(1_000_000, "1h")))?;
    environment.log_on()?;
    let (other_venue, other_engine) = environment.second_session(9002)?;
    environment.trip("session/xnas-1", 2)?;
    other_engine.wait_for_end(TIMEOUT).context("the tripped session did not end")?;
    announce("upgrade under load", &format!("{RATE} orders a second, and {UPGRADES} upgrades"))?;
    let (wrote, longest) = while_trading(&environment.engine, ("U", RATE), || {
        let mut longest = Duration::ZERO;
        for _ in 0..UPGRADES {
            sleep(Duration::from_millis(200));
            let started = Moment::now();
            environment.verb(&["upgrade", "--force"])?;
            longest = longest.max(started.elapsed());
        }
        sleep(Duration::from_millis(200));
        Ok(longest)
    })?;
    environment.venue.wait_for_orders(wrote as usize, TIMEOUT)?;
    let is_open = environment.engine.ending().is_none();
    let crossed = environment.crossed(1)?;
    let stays = environment.causes("session/xnas-1")?;
    environment.hosts.firm.run(|| other_engine.connect())?;
    other_engine.logon()?;
    let _ = other_engine.send_order("X0000001");
    other_engine.wait_for_end(TIMEOUT).context("an order of the tripped session was not cut off")?;
    let tripped = environment.trip(SCOPE, 1)?;
    report.orders(wrote, crossed);
    report.time("longest `breaker upgrade`, with its verification by the kernel", longest);
    report.time("longest pause between two orders at the venue", longest_pause(&environment));
    report.promise_count("every order passes", wrote, environment.venue.order_count() as u64);
    report.promise_count("every order is counted once", wrote, crossed);
    report.promise("the connection stays open", if is_open { "open" } else { "ended" }, is_open);
    report.promise_causes("a tripped session stays tripped", cause::MANUAL, stays);
    report.promise_count("no order of the tripped session passes", 0, other_venue.order_count() as u64);
    report.promise_count("`trip` works after the upgrades", crossed, tripped.crossed);
    Ok(report)
}

fn longest_pause(environment: &Environment) -> Duration {
    let orders = environment.venue.orders();
    let pauses = orders.windows(2).map(|pair| pair[1].at.since(pair[0].at));
    pauses.max().unwrap_or_default()
}
