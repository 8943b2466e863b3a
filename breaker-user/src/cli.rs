//! The command line. What stands here in doc comments is the help text and the manual page.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kernel::pins;

/// An order-flow circuit breaker in the Linux kernel: counts outbound FIX orders at the network card, and withholds all of them the
/// moment a person throws the switch or a limit is passed.
///
/// Enforcement lives in the kernel and needs no process: not this one, not the agent. Exit codes: 0 done; 1 unexpected; 2 usage or
/// configuration; 3 not loaded; 4 refused, state unchanged; 5 layout or version mismatch; 6 permission missing; 7 kernel feature
/// missing; 8 interface missing; 10 (status) something is tripped; 11 (status) something is disarmed, detached or displaced.
#[derive(Debug, Parser)]
#[command(name = "breaker", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// Directory of the BPF file system that holds what is loaded; several can live side by side.
    #[arg(long, global = true, value_name = "DIR", default_value = pins::DEFAULT)]
    pub pin_root: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// One verb a variant.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Validate a configuration and this host for it; load nothing.
    Check(ConfigArgs),
    /// Load, attach, pin, exit: from here on it enforces with no process.
    Load(ConfigArgs),
    /// Detach and remove every pin. Refused while anything is tripped.
    Unload(UnloadArgs),
    /// Load or adopt, then serve metrics and write the audit log until told to stop. Stopping it stops no enforcement.
    Agent(ConfigArgs),
    /// Show what is in force, read back from the kernel. Exit 10: something is tripped; 11: something is disarmed or detached.
    Status(StatusArgs),
    /// Let the limits of a scope trip it.
    Arm(SwitchArgs),
    /// Let the limits of a scope only tell that they would have tripped it.
    Disarm(SwitchArgs),
    /// The big red button: withhold the orders of a scope from now on, until `reset`. Asks nothing, needs no agent.
    Trip(SwitchArgs),
    /// Let a tripped scope trade again, on new connections. Refused while it is not safe.
    Reset(SwitchArgs),
    /// Show the audit log.
    Events(EventsArgs),
    /// Rehearse the kill in throw-away network namespaces on this host's own kernel. Touches nothing that is loaded.
    Drill(DrillArgs),
}

/// Arguments of the verbs that read a configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `unload`.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Unload although something is tripped: its orders will pass again.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this scope: `host`, `group/NAME` or `session/NAME`.
    pub scope: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the verbs that change a scope.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// `host`, `group/NAME` or `session/NAME`.
    pub scope: String,
    /// Why: it goes into the audit log.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Print the state read back as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as events come.
    #[arg(long)]
    pub follow: bool,
    /// Print the log's own JSON lines.
    #[arg(long)]
    pub json: bool,
    /// The log, where it is not the one of what is loaded.
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
}

/// Arguments of `drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// What to rehearse.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ScenarioName::Knight)]
    pub scenario: ScenarioName,
    /// Write the figures there as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// What can be rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Knight Capital, 1 August 2012: a runaway is cut off at exactly N, the agent is killed, nothing stale comes after the reset.
    Knight,
}
