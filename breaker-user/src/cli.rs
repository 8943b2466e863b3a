//! The command line. The doc comments are the help text and the manual page.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

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
  10  status: a scope is tripped
  11  status: the breaker is not in force; or no scope is tripped, but one is disarmed";
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 1000;

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
    Load(ConfigArgs),
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
    /// Arm a scope: an exceeded limit trips it.
    Arm(SwitchArgs),
    /// Disarm a scope: an exceeded limit only warns, and logs that it would have tripped the scope. `trip`
    /// still works.
    Disarm(SwitchArgs),
    /// Trip a scope: withhold all its orders until `reset`. Asks no question, needs no agent, and accepts any
    /// reason.
    Trip(TripArgs),
    /// Let a tripped scope trade again, on new connections. Refused while this is not safe.
    Reset(ResetArgs),
    /// Show the audit log: what happened, when, by whom and why.
    Events(EventsArgs),
    /// Verify the audit log.
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Rehearse a trip in throw-away network namespaces on this host's own kernel. Does not touch what is
    /// loaded.
    Drill(DrillArgs),
    /// Print the completions for a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages of every verb and of the configuration to a directory.
    Man(ManArgs),
    /// Serve one connection to the control socket. systemd and the agent start this.
    #[command(hide = true)]
    Control(ConfigArgs),
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
    /// Print the state read back as JSON.
    #[arg(long)]
    pub json: bool,
}

impl TripArgs {
    /// The reason for the log, and the problem of the given reason if it was replaced.
    pub fn reason(&self) -> (String, Option<String>) {
        let given = self.reason.join(OsStr::new(" "));
        let text = given.to_string_lossy();
        let text = text.trim();
        if text.is_empty() {
            let found = if self.reason.is_empty() { "it is missing" } else { "it is empty" };
            return ("no reason given".to_owned(), Some(found.to_owned()));
        }
        let found = match (given.to_str(), text.len()) {
            (_, length) if length > MAX_REASON => Some(format!("it has {length} bytes, cut to {MAX_REASON}")),
            (None, _) => Some("it is not UTF-8".to_owned()),
            _ => None,
        };
        (text[..text.floor_char_boundary(MAX_REASON)].to_owned(), found)
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
    /// As root, reset alone where `two_person` is set. This is logged as an event of its own.
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

/// Arguments of `drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// The scenario.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ScenarioName::Knight)]
    pub scenario: ScenarioName,
    /// Write the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
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

/// The scenarios of `drill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// Knight Capital, 1 August 2012: a runaway is cut off after exactly N orders, the agent is killed, and
    /// no stale order passes after the reset.
    Knight,
}

/// Joins the reason of a `trip` to its option, as `--reason=TEXT`, so that no reason can prevent the trip:
/// neither one that starts with a hyphen nor a missing one.
pub fn normalize_trip_reason(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let typed: Vec<_> = typed.into_iter().collect();
    if !typed.iter().any(|word| word == "trip") {
        return typed;
    }
    let mut words = typed.into_iter().peekable();
    let mut normalized = Vec::new();
    while let Some(mut word) = words.next() {
        if word == "--reason" {
            word.push("=");
            if let Some(text) = words.next_if(|next| !is_option_of_trip(next)) {
                word.push(text);
            }
        }
        normalized.push(word);
    }
    normalized
}

/// Returns true for an option of `trip`, which is no reason.
fn is_option_of_trip(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        matches!(
            name,
            "--json" | "--pin-root" | "--private-pins" | "--control" | "--reason" | "--help" | "-h"
        )
    })
}

/// Parses a reason, which must not be empty.
pub fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty: write a reason for the audit log".to_owned()),
        text if text.len() > MAX_REASON => {
            Err(format!("it has {} bytes: write at most {MAX_REASON}", text.len()))
        }
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    /// Parses a trip with these words after its scope. Returns the reason, its problem, and the JSON flag.
    fn trip(words: &[&OsStr]) -> (String, Option<String>, bool) {
        let typed = ["breaker", "trip", "session/x"].map(OsStr::new);
        let parsed =
            Cli::try_parse_from(normalize_trip_reason(typed.iter().chain(words).map(OsString::from)));
        let Ok(Cli { verb: Verb::Trip(args), .. }) = parsed else { panic!("{words:?}: {parsed:?}") };
        let (reason, found) = args.reason();
        (reason, found, args.json)
    }

    #[test]
    fn a_trip_accepts_any_reason_and_reports_a_replaced_one() {
        let long = "ü".repeat(600);
        for (words, reason, found, json) in [
            (&[][..], "no reason given", Some("it is missing"), false),
            (&["--json"], "no reason given", Some("it is missing"), true),
            (&["--reason"], "no reason given", Some("it is empty"), false),
            (&["--reason="], "no reason given", Some("it is empty"), false),
            (&["--reason", " \t"], "no reason given", Some("it is empty"), false),
            (&["--reason", "--json"], "no reason given", Some("it is empty"), true),
            (&["--reason", "--pin-root", "/x"], "no reason given", Some("it is empty"), false),
            (&["--reason", "--pin-root=/x", "--json"], "no reason given", Some("it is empty"), true),
            (&["--reason", "-5 % in a minute"], "-5 % in a minute", None, false),
            (&["--reason", "--"], "--", None, false),
            (&["--json", "--reason", "--jsn"], "--jsn", None, true),
            (&["--reason=-x"], "-x", None, false),
            (&["--reason", "a", "--reason", "b"], "a b", None, false),
            (&["--reason", &long], &long[..1000], Some("it has 1200 bytes, cut to 1000"), false),
            (&["--reason", "runaway"], "runaway", None, false),
        ] {
            let words: Vec<_> = words.iter().map(OsStr::new).collect();
            assert_eq!(trip(&words), (reason.to_owned(), found.map(str::to_owned), json), "{words:?}");
        }
        let (reason, found, _) = trip(&[OsStr::new("--reason"), OsStr::from_bytes(b"runaway \xff")]);
        assert_eq!((reason.as_str(), found.as_deref()), ("runaway \u{fffd}", Some("it is not UTF-8")));
    }

    #[test]
    fn other_verbs_require_a_reason() {
        for words in
            [&["reset", "host"][..], &["reset", "host", "--reason"], &["arm", "host", "--reason", "-x"]]
        {
            assert!(
                Cli::try_parse_from(normalize_trip_reason(
                    ["breaker"].iter().chain(words).map(OsString::from)
                ))
                .is_err()
            );
        }
    }
}
