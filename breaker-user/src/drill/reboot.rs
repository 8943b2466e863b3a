//! The scenario `reboot`: everything that a reboot takes from breaker is removed, and `load` restores it from
//! the state file before traffic.
//!
//! The kernel itself is not restarted. The agent is killed, and programs, links, maps and pins are removed.

use anyhow::{Context, Result};
use breaker_common::abi::cause;

use super::environment::{Environment, SCOPE, TIMEOUT, order_limit};
use super::figures::Report;
use super::traffic::{announce, trade};
use crate::testbed::Moment;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "What a reboot loses is removed: agent, programs, maps, pins; the kernel is not restarted";
    let mut report = Report::new("reboot", title);
    let mut environment = Environment::new("", &order_limit(1_000, "total"))?;
    environment.log_on()?;
    announce("reboot", "a trip; then agent, programs, maps and pins are removed, and loaded again")?;
    let before = trade(&environment.engine, "M", 50, 500);
    environment.venue.wait_for_orders(50, TIMEOUT)?;
    environment.trip(SCOPE, 1)?;
    let state = |environment: &Environment| {
        environment.with_breaker(|breaker| {
            let scope = breaker.scope(breaker.find(SCOPE)?)?;
            let window = scope.windows[0];
            Ok((scope.switch, window.issued.saturating_sub(window.floor)))
        })
    };
    let (old, used) = state(&environment)?;
    environment.kill_agent()?;
    environment.verb(&["unload", "--force"])?;
    let unloaded = environment.run_verb(&["status"])?.status.code();
    let started = Moment::now();
    let config = environment.config();
    environment.verb(&["load", "--config", config.to_str().context("the path is not UTF-8")?])?;
    let took = started.elapsed();
    let (new, used_after) = state(&environment)?;
    environment.log_on().context("logging on while tripped")?;
    let blocked = environment.engine.send_order("X0000001").messages;
    environment.engine.wait_for_end(TIMEOUT).context("an order after the load was not cut off")?;
    let crossed = environment.venue.order_count() as u64;
    environment.reset(SCOPE)?;
    environment.log_on()?;
    let after = trade(&environment.engine, "A", 20, 200);
    environment.venue.wait_for_orders((before + after) as usize, TIMEOUT)?;
    report.orders(before + blocked + after, environment.venue.order_count() as u64);
    report.time("`breaker load` with the restoration", took);
    let code = unloaded.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    report.promise("nothing is loaded in between: `status` ends with 3", code.clone(), code == "3");
    report.promise_causes("the trip and its cause are restored", cause::MANUAL, new.causes);
    let epochs = format!("{}, before {}", new.epoch, old.epoch);
    report.promise("the epoch rises, so that older connections stay fenced", epochs, new.epoch > old.epoch);
    report.promise_count("the total of a limit is restored", used, used_after);
    report.promise_count("no order crosses before the reset", 0, crossed - before);
    report.promise_count("after the reset new orders pass", 20, after);
    Ok(report)
}
