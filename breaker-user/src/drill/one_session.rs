//! The scenario `one-session`: a person trips one of two trading sessions.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::environment::{Environment, OTHER_SESSION, SCOPE, TIMEOUT};
use super::figures::Report;
use super::traffic::{announce, while_trading};

/// Orders a second of each session.
const RATE: u64 = 500;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "A person trips one of two trading sessions; the other one trades on";
    let mut report = Report::new("one-session", title);
    let environment = Environment::new("", OTHER_SESSION)?;
    environment.log_on()?;
    let (other_venue, other_engine) = environment.second_session(9002)?;
    announce("one session", &format!("two sessions send {RATE} orders a second each; one is tripped"))?;
    let engine = &environment.engine;
    let (other_wrote, (wrote, tripped)) = while_trading(&other_engine, ("B", RATE), || {
        let traded = while_trading(engine, ("A", RATE), || {
            sleep(Duration::from_millis(500));
            let tripped = environment.trip(SCOPE, 1)?;
            sleep(Duration::from_millis(500));
            Ok(tripped)
        });
        sleep(Duration::from_millis(500));
        traded
    })?;
    let at_engine = engine.wait_for_end(TIMEOUT).context("the engine's connection did not end")?;
    let at_venue =
        environment.venue.wait_for_end(0, TIMEOUT).context("the venue's connection did not end")?;
    other_venue.wait_for_orders(other_wrote as usize, TIMEOUT)?;
    let crossed = environment.crossed(1)?;
    report.orders(wrote, crossed);
    report.count("orders of the other session", other_wrote);
    let last = environment.venue.orders().last().map(|order| order.at);
    report.time(
        "start of `breaker trip`, to the switch in the kernel",
        tripped.switched.since(tripped.started),
    );
    if let Some(last) = last {
        report.time("the switch, to the last order at the venue", last.since(tripped.switched));
    }
    report.time("the switch, to the reset at the engine", at_engine.at.since(tripped.switched));
    report.time("the switch, to the reset at the venue", at_venue.at.since(tripped.switched));
    report.promise_count("no order crosses after `trip` has returned", 0, crossed - tripped.crossed);
    report.promise_count(
        "the venue and the kernel count the same",
        crossed,
        environment.venue.order_count() as u64,
    );
    report.promise_reset("the engine receives a reset", Some(&at_engine));
    report.promise_reset("the venue receives a reset", Some(&at_venue));
    report.promise_count(
        "every order of the other session passes",
        other_wrote,
        other_venue.order_count() as u64,
    );
    report.promise(
        "the connection of the other session stays open",
        if other_engine.ending().is_none() { "open" } else { "ended" },
        other_engine.ending().is_none(),
    );
    Ok(report)
}
