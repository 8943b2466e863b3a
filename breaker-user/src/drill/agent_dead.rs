//! The scenario `agent-dead`: the agent is killed with SIGKILL, and everything works without it.

use std::time::Duration;

use anyhow::{Context, Result};
use breaker_common::abi::cause;

use super::environment::{Environment, SCOPE, TIMEOUT, order_limit};
use super::figures::Report;
use super::traffic::{announce, trade};

/// Limit on orders in any second.
const LIMIT: u64 = 200;

/// Runs the scenario.
pub fn run() -> Result<Report> {
    let title = "The agent is killed with -9; limits, switch, status and reset work without it";
    let mut report = Report::new("agent-dead", title);
    let mut environment = Environment::new("", &order_limit(LIMIT, "1s"))?;
    environment.log_on()?;
    announce("agent dead", "the agent is killed with -9, and a runaway starts")?;
    environment.kill_agent()?;
    let wrote = trade(&environment.engine, "R", 10 * LIMIT, 2_000);
    let at_engine = environment.engine.wait_for_end(TIMEOUT).context("the runaway was not cut off")?;
    environment.venue.wait_for_end(0, TIMEOUT).context("the venue's connection did not end")?;
    let runaway = environment.crossed(1)?;
    let status = environment.run_verb(&["status"])?;
    let tripped = environment.causes(SCOPE)?;
    std::thread::sleep(Duration::from_millis(1_200));
    environment.verb(&["reset", SCOPE, "--reason", "drill", "--force"])?;
    environment.log_on()?;
    let after = trade(&environment.engine, "A", 20, 200);
    environment.venue.wait_for_orders((runaway + after) as usize, TIMEOUT)?;
    environment.start_agent()?;
    let adopted = environment.crossed(1)?;
    report.orders(wrote + after, adopted);
    report.promise_count(format!("of {wrote} orders exactly N = {LIMIT} pass"), LIMIT, runaway);
    report.promise_reset("the engine receives a reset", Some(&at_engine));
    report.promise_causes("the kernel has tripped the session", cause::RATE, tripped);
    let code = status.status.code().map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    report.promise("`status` works and ends with 10 (tripped)", code.clone(), code == "10");
    report.promise_count("after a `reset` without an agent every order passes", 20, after);
    report.promise_count("a new agent adopts the counters", runaway + after, adopted);
    Ok(report)
}
