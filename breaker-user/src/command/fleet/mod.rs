//! `breaker fleet`: verbs for many hosts.

mod change;
mod connection;
mod inventory;
mod policy;
mod ssh;
mod view;
mod wait;

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::output::print;
use crate::cli::{FleetArgs, FleetVerb};
use crate::cli_error::Code;
use crate::fleet::record::Verb;
use connection::Connection;

/// Runs a verb of a fleet.
pub fn run(args: &FleetArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the fleet's verb")?.block_on(run_verb(args))
}

async fn run_verb(args: &FleetArgs) -> Result<ExitCode> {
    let connection = Connection::open(args)?;
    match &args.verb {
        FleetVerb::Trip(switch) => change::trip(&connection, args, switch).await,
        FleetVerb::Reset(switch) => change::reset(&connection, args, switch).await,
        FleetVerb::Arm(switch) => change::arm(&connection, args, (switch, Verb::Arm)).await,
        FleetVerb::Disarm(switch) => change::arm(&connection, args, (switch, Verb::Disarm)).await,
        FleetVerb::Publish(publish) => policy::publish(&connection, args, publish).await,
        FleetVerb::Activate(activate) => policy::activate(&connection, args, activate).await,
        FleetVerb::Inventory(verb) => inventory::run(&connection, args, verb).await,
        FleetVerb::Status | FleetVerb::Verify => {
            let fleet = connection.read().await?;
            let shown = view::Status::of(&fleet);
            print(&if args.json { serde_json::to_string_pretty(&shown)? } else { shown.text() })?;
            Ok(if shown.is_same { ExitCode::SUCCESS } else { Code::Differs.into() })
        }
        FleetVerb::History => {
            let history = view::History::of(&connection.read().await?);
            print(&if args.json { serde_json::to_string_pretty(&history)? } else { history.text() })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
