//! The command line. The doc comments are the help text and the manual page.

mod captures;
mod drill;
#[cfg(feature = "fleet")]
mod fleet;
mod reason;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

pub use captures::{LearnArgs, ReplayArgs};
pub use drill::{DrillArgs, ScenarioName};
#[cfg(feature = "fleet")]
pub use fleet::{
    ActivateArgs, FleetArgs, FleetSwitchArgs, FleetTripArgs, FleetVerb, InventoryVerb, PublishArgs,
};
pub use reason::{MAX_REASON, normalize_trip_reason, reason};

use crate::kernel::pins;

/// Text of `--version`.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BREAKER_GIT"), ")");
/// End of the long help: the values of [`crate::cli_error::Code`].
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  unexpected error
   2  wrong usage, or an error in the configuration
   3  nothing is loaded
   4  refused; nothing is changed
   5  the pins are from another version or layout, or not from breaker
   6  a permission or capability is missing
   7  the kernel lacks a feature
   8  an interface is missing; or the change is made, but the breaker is not in force
   9  replay, learn: a capture breaks off; everything before is included
  10  status: a scope is tripped
  11  status: the breaker is not in force, or a scope is disarmed and none tripped; verify: a gap
  12  fleet: a host differs, refused or did not answer
  13  fleet: etcd cannot be reached, or refuses";

/// An order-flow circuit breaker in the Linux kernel: counts outbound FIX orders at the network interface,
/// and withholds all of them as soon as a person trips it or a limit is exceeded.
///
/// The kernel enforces it without any process: neither this program nor the agent has to run.
#[derive(Debug, Parser)]
#[command(name = "breaker", version = VERSION, max_term_width = 110, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// Directory in a BPF file system for the pins of this instance. Instances with different directories are
    /// independent. The default directory is a file system that breaker mounts itself.
    #[arg(long, global = true, value_name = "DIR", default_value = pins::DEFAULT, env = "BREAKER_PIN_ROOT")]
    #[arg(display_order = 100)]
    pub pin_root: PathBuf,
    /// Allow pins that end with this mount namespace, as in a container. Without this option they are
    /// refused.
    #[arg(long, global = true, env = "BREAKER_PRIVATE_PINS", value_parser = FalseyValueParser::new())]
    #[arg(display_order = 101)]
    pub private_pins: bool,
    /// Control socket for users who may not open the pins.
    #[arg(long, global = true, value_name = "PATH", default_value = crate::config::DEFAULT_CONTROL)]
    #[arg(env = "BREAKER_CONTROL", display_order = 102)]
    pub control: PathBuf,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Validate a configuration, and this host for it. Loads nothing.
    Check(ConfigArgs),
    /// Put a configuration in force: load, attach, pin, exit. The kernel then enforces it without a process.
    Load(LoadArgs),
    /// Replace the configuration in force, as a whole or not at all, and without a gap in enforcement.
    ///
    /// Switches, epochs, armed scopes and windows are kept. Prints every limit and rule that the new
    /// configuration loosens. Refuses to loosen any while a scope is tripped.
    Reload(ConfigArgs),
    /// Detach the programs and remove every pin. Refused while a scope is tripped.
    Unload(UnloadArgs),
    /// Put this version's program in the place of the attached one, with no packet undecided. Switches,
    /// epochs, windows, counters and connections stay, and so does a trip. Refused if this version is older.
    Upgrade(UpgradeArgs),
    /// Attach the pinned program again where it was detached, or to an interface that was made again under
    /// its name. A trip stays.
    Attach(AttachArgs),
    /// Load a configuration or adopt the loaded one, then serve metrics and write the audit log. Runs until
    /// SIGTERM or SIGINT; enforcement continues without it.
    Agent(ConfigArgs),
    /// Show what is in force, as read back from the kernel. Exit codes, in this order: 11 if the breaker is
    /// not in force, 10 if a scope is tripped, 11 if a scope is disarmed, else 0.
    Status(StatusArgs),
    /// Show a live view in the terminal: scopes with their rates, limits and states, problems and events.
    Top(TopArgs),
    /// Arm a scope: an exceeded limit trips it.
    Arm(SwitchArgs),
    /// Disarm a scope: an exceeded limit only warns, and logs that it would have tripped the scope. `trip`
    /// still works.
    Disarm(SwitchArgs),
    /// Acknowledge the warnings of a scope. Until then they stay in `status`, in `top` and in the metrics.
    Ack(SwitchArgs),
    /// Trip a scope: withhold all its orders until `reset`. Asks no question, needs no agent, and accepts any
    /// reason.
    Trip(TripArgs),
    /// Let a tripped scope trade again, on new connections. Refused while this is not safe.
    Reset(ResetArgs),
    /// Attest what is enforced: hashes of this binary and of the policy, the tags of the programs as the
    /// kernel computes them, the attachments, and the traffic that the hook does not cover. Ends with 11 if
    /// there is a gap.
    Verify(AttestArgs),
    /// Show the audit log: what happened, when, by whom and why.
    Events(EventsArgs),
    /// Verify the audit log.
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Rehearse a trip in throw-away network namespaces on this host's own kernel. Does not touch what is
    /// loaded.
    Drill(DrillArgs),
    /// Trip, reset, arm and compare many hosts together, through an etcd cluster. Exit code 12 if a host
    /// differs, refused or did not answer; 13 if etcd cannot be reached.
    #[cfg(feature = "fleet")]
    Fleet(FleetArgs),
    /// Print the completions for a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages of every verb and of the configuration to a directory.
    Man(ManArgs),
    /// Show what a configuration would have done on captures: counts, peaks, warnings and trips.
    ///
    /// Runs the decision of the kernel program over the packets with their own times. Reads several captures
    /// in the order of time. Exit code 9 if one breaks off.
    Replay(ReplayArgs),
    /// Propose limits from the peaks of captures, or of what is loaded: a configuration to paste.
    ///
    /// A proposal is the highest peak of a window, times the factor. Without a configuration, the sessions
    /// are those that the captures show. Exit code 9 if a capture breaks off.
    Learn(LearnArgs),
    /// Serve one connection to the control socket. systemd and the agent start this.
    #[command(hide = true)]
    Control(ControlArgs),
}

/// Arguments of the verbs that read a configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Path of the configuration file.
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `control`.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Do not log the request if it is denied, because the log has many denied requests of this user.
    #[arg(long)]
    pub omit_denied: bool,
    /// Number of denied requests of this user that were not logged.
    #[arg(long, default_value_t = 0)]
    pub omitted: u64,
}

/// Arguments of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// If the configuration is invalid, load the policy that was in force before, for example before a
    /// reboot.
    #[arg(long)]
    pub last_if_invalid: bool,
}

/// Arguments of `unload`.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Unload even if a scope is tripped: its orders then pass again.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// Go back to an older version too.
    #[arg(long)]
    pub force: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show this scope only: `host`, `group/NAME` or `session/NAME`.
    pub scope: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct AttestArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Compare with the JSON of an earlier `verify --json`, and name each difference. A difference is a gap.
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Allow the key `t`, which trips the selected scope after its name was typed. Without this option the
    /// view is read-only. Nothing in it resets.
    #[arg(long, conflicts_with_all = ["once", "json"])]
    pub act: bool,
    /// Print one screen as text and end. With `--json`, print one document and end.
    #[arg(long)]
    pub once: bool,
    /// Print a JSON document a second.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the verbs that change a scope.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// `host`, `group/NAME` or `session/NAME`, as `breaker status` lists them.
    pub scope: String,
    /// The reason, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
    /// Print the state read back as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `trip`.
#[derive(Debug, Args)]
pub struct TripArgs {
    /// `host`, `group/NAME` or `session/NAME`, as `breaker status` lists them.
    pub scope: String,
    /// The reason, for the audit log. A missing or invalid reason is replaced, and the scope is tripped
    /// nevertheless.
    #[arg(long, value_name = "TEXT")]
    pub reason: Vec<OsString>,
    /// Say what a trip of the scope would cut, what would still pass, what the venue does by itself and what
    /// stays in its book. Changes nothing and needs no reason.
    #[arg(long)]
    pub explain: bool,
    /// Print the state read back as JSON.
    #[arg(long)]
    pub json: bool,
}

impl TripArgs {
    /// The reason for the log, and the problem of the given reason if it was replaced.
    pub fn reason(&self) -> (String, Option<String>) {
        reason::trip_reason(&self.reason)
    }
}

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The scope and the reason.
    #[command(flatten)]
    pub switch: SwitchArgs,
    /// Reset even if orders were withheld a moment ago, so that their sender may continue. This is logged.
    #[arg(long)]
    pub force: bool,
    /// As root, reset alone where `two_person` is set, which is logged as an event of its own. Also lifts a
    /// trip of a fleet that is gone.
    #[arg(long)]
    pub break_glass: bool,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Wait for further events and print them.
    #[arg(long)]
    pub follow: bool,
    /// Print the JSON lines of the log.
    #[arg(long)]
    pub json: bool,
    /// Which log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Verbs of `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Verify that no line of the log was changed, removed or moved, and compare its end with every anchor.
    ///
    /// An anchor keeps number and hash of the last line: what is loaded, the state file, the file beside the
    /// log, the journal. Prints the number of lines and the hash of the last line. Keep both on another host,
    /// because root can change every anchor of this one.
    Verify(VerifyArgs),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// State directory to compare the log with. The default is that of what is loaded with this log.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Which log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The audit log to read.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Path of the log. The default is the log of what is loaded.
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell. For bash, write the output to a file `breaker` in /usr/share/bash-completion/completions.
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory. It is created if it does not exist.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
