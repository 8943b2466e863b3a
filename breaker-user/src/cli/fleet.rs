//! The verbs of `breaker fleet`. The doc comments are the help text and the manual page.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::reason::{reason, trip_reason};
use crate::fleet::FleetScope;

/// Arguments of `fleet`.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Path of the configuration file, whose section `[fleet]` names the cluster.
    #[arg(long, global = true, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Longest wait for the hosts, in milliseconds.
    #[arg(long, global = true, value_name = "MS", default_value_t = 5_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub timeout: u64,
    /// The verb.
    #[command(subcommand)]
    pub verb: FleetVerb,
}

/// The verbs of a fleet.
#[derive(Debug, Subcommand)]
pub enum FleetVerb {
    /// Show every host of the inventory, the trips that stand, and the active policy. Ends with 12 if a host
    /// differs or does not answer.
    Status,
    /// Trip a scope on every host that it concerns, by etcd and by SSH at once. Asks no question.
    Trip(FleetTripArgs),
    /// Lift the trip that the fleet made for exactly this scope. Other trips stay, local ones too.
    Reset(FleetSwitchArgs),
    /// Arm a scope. Refused while a host of the inventory is absent or differs.
    Arm(FleetSwitchArgs),
    /// Disarm a scope: an exceeded limit only warns there.
    Disarm(FleetSwitchArgs),
    /// Publish a policy: every host checks it and says whether it would take it. Nothing is in force yet.
    Publish(PublishArgs),
    /// Activate the policy that was published last: every host puts it in force. Refused unless every host
    /// of the inventory has said that it would take it.
    Activate(ActivateArgs),
    /// Compare every host of the inventory with the active policy, from one revision. Ends with 12 unless
    /// all are the same.
    Verify,
    /// Show every command since the fleet exists.
    History,
    /// The hosts that must exist.
    #[command(subcommand)]
    Inventory(InventoryVerb),
}

/// Arguments of `fleet trip`.
#[derive(Debug, Args)]
pub struct FleetTripArgs {
    /// `all`, `host/NAME`, `group/NAME` or `session/NAME`.
    pub scope: FleetScope,
    /// The reason, for the history and for the audit log of each host. A missing or invalid reason is
    /// replaced, and the scope is tripped nevertheless.
    #[arg(long, value_name = "TEXT")]
    pub reason: Vec<OsString>,
}

impl FleetTripArgs {
    /// The reason, and the problem of the given one if it was replaced.
    pub fn reason(&self) -> (String, Option<String>) {
        trip_reason(&self.reason)
    }
}

/// Arguments of the other verbs that change a scope of a fleet.
#[derive(Debug, Args)]
pub struct FleetSwitchArgs {
    /// `all`, `host/NAME`, `group/NAME` or `session/NAME`.
    pub scope: FleetScope,
    /// The reason, for the history and for the audit log of each host.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
}

/// Arguments of `fleet publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The policy: a configuration that is the same on every host.
    pub file: PathBuf,
    /// The reason, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
}

/// Arguments of `fleet activate`.
#[derive(Debug, Args)]
pub struct ActivateArgs {
    /// The reason, for the history and for the audit log of each host.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
}

/// The verbs of the inventory.
#[derive(Debug, Subcommand)]
pub enum InventoryVerb {
    /// Add a host, or change its entry.
    Add {
        /// Name of the host in the fleet: its `[fleet].host`.
        host: crate::config::Name,
        /// Destination of `ssh` for the second way of a trip, as USER@ADDRESS.
        #[arg(long, value_name = "DESTINATION")]
        ssh: Option<String>,
    },
    /// Remove a host.
    Remove {
        /// Name of the host in the fleet.
        host: crate::config::Name,
    },
    /// List the hosts.
    List,
}
