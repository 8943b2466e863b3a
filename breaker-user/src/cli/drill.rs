//! Arguments of `drill`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// The scenario.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ScenarioName::Knight)]
    pub scenario: ScenarioName,
    /// Run every scenario, one after the other.
    #[arg(long, conflicts_with = "scenario")]
    pub all: bool,
    /// Trip this session of what is loaded, and measure the trip on the wire. Refused unless the session's
    /// configuration says `drill = true`. The session stays tripped.
    #[arg(long, value_name = "session/NAME", conflicts_with_all = ["scenario", "all"])]
    pub live: Option<String>,
    /// Write the report to this file: one page of HTML for an auditor if its name ends with `.html`, else
    /// JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The scenarios of `drill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Knight Capital, 1 August 2012: a runaway is cut off after exactly N orders, the agent is killed, and
    /// no stale order passes after the reset.
    Knight,
    /// One of two trading sessions is tripped; the other trades on.
    OneSession,
    /// Thousands of orders are written at once, and share segments.
    CoalescedBurst,
    /// The agent is killed with -9; limits, switch and reset work without it.
    AgentDead,
    /// After a reset the engine resends its old orders.
    EngineReplays,
    /// The venue stops reading; orders that wait in TCP do not outlive a trip and a reset.
    WindowShut,
    /// The program is replaced while orders leave.
    UpgradeUnderLoad,
    /// A tripped session logs on again and cancels its orders.
    CancelWhileTripped,
    /// Everything that a reboot loses is removed, and loaded again. The kernel is not restarted.
    Reboot,
}
