//! The command line. What stands here in doc comments is the help text and the manual page.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kernel::pins;

/// What `--version` prints.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BREAKER_GIT"), ")");
/// What the end of the long help tells: the values of [`crate::cli_error::Code`].
const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  unexpected
   2  wrong usage, or an error in the configuration
   3  nothing is loaded
   4  refused, and nothing is changed
   5  what is pinned is of another version or layout, or not breaker's
   6  a permission or capability is missing
   7  the kernel lacks a feature
   8  an interface is missing; or what was done does not hold: the breaker is not in force
  10  status: something is tripped
  11  status: it is not in force; or nothing is tripped, but something is disarmed";
/// The longest reason, in bytes.
const LONGEST_REASON: usize = 1000;

/// An order-flow circuit breaker in the Linux kernel: counts outbound FIX orders at the network card, and withholds all of them the
/// moment a person throws the switch or a limit is passed.
///
/// Enforcement lives in the kernel and needs no process: not this one, not the agent.
#[derive(Debug, Parser)]
#[command(name = "breaker", version = VERSION, max_term_width = 110, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// Directory of a BPF file system that holds what is loaded; several can live side by side. The default is a file system of
    /// breaker's own, which it mounts itself.
    #[arg(long, global = true, value_name = "DIR", default_value = pins::DEFAULT, env = "BREAKER_PIN_ROOT", display_order = 100)]
    pub pin_root: PathBuf,
    /// Let what is loaded end with this mount namespace, as in a container; otherwise that is refused.
    #[arg(long, global = true, env = "BREAKER_PRIVATE_PINS", value_parser = FalseyValueParser::new(), display_order = 101)]
    pub private_pins: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// One verb a variant.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Validate a configuration, and this host for it; load nothing.
    Check(ConfigArgs),
    /// Put a configuration in force: load, attach, pin, exit. From here on the kernel enforces it with no process.
    Load(ConfigArgs),
    /// Put another configuration in force in place of the one that is: whole or not at all, and no packet goes undecided. Switches,
    /// epochs, armed scopes and windows stay; prints what it loosens, and loosens nothing while anything is tripped.
    Reload(ConfigArgs),
    /// Detach, and remove every pin. Refused while anything is tripped.
    Unload(UnloadArgs),
    /// Load or adopt, then serve metrics and write the audit log until told to stop. Stopping it stops no enforcement.
    Agent(ConfigArgs),
    /// Show what is in force, read back from the kernel. Exit 11: it is not in force; 10: something is tripped; 11: something is
    /// disarmed.
    Status(StatusArgs),
    /// Let the limits of a scope trip it.
    Arm(SwitchArgs),
    /// Let the limits of a scope no longer trip it: they warn, and tell when they would have. `trip` still does.
    Disarm(SwitchArgs),
    /// The big red button: withhold the orders of a scope from now on, until `reset`. Asks nothing, needs no agent, and works whatever
    /// its reason is.
    Trip(TripArgs),
    /// Let a tripped scope trade again, on new connections. Refused while that is not safe.
    Reset(ResetArgs),
    /// Show the audit log: what was done and what happened, by whom, when and why.
    Events(EventsArgs),
    /// Check the audit log.
    #[command(subcommand)]
    Audit(AuditVerb),
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
    /// `host`, `group/NAME` or `session/NAME`, as `breaker status` lists them.
    pub scope: String,
    /// Why: it goes into the audit log.
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
    /// Why: it goes into the audit log. One that cannot be used is replaced, and the trip is made all the same.
    #[arg(long, value_name = "TEXT")]
    pub reason: Vec<OsString>,
    /// Print the state read back as JSON.
    #[arg(long)]
    pub json: bool,
}

impl TripArgs {
    /// The reason that goes into the log; and, where it is not the one that was given, what was wrong with that.
    pub fn reason(&self) -> (String, Option<String>) {
        let given = self.reason.join(OsStr::new(" "));
        let text = given.to_string_lossy();
        let text = text.trim();
        if text.is_empty() {
            let found = if self.reason.is_empty() { "it is missing" } else { "it is empty" };
            return ("no reason given".to_owned(), Some(found.to_owned()));
        }
        let found = match (given.to_str(), text.len()) {
            (_, length) if length > LONGEST_REASON => {
                Some(format!("it has {length} bytes, cut to {LONGEST_REASON}"))
            }
            (None, _) => Some("it is not UTF-8".to_owned()),
            _ => None,
        };
        (text[..text.floor_char_boundary(LONGEST_REASON)].to_owned(), found)
    }
}

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Which scope, and why.
    #[command(flatten)]
    pub switch: SwitchArgs,
    /// Reset although orders were withheld a moment ago: whoever sent them may send on. It is logged.
    #[arg(long)]
    pub force: bool,
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
    /// Which log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Verbs of `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Check that no line of the log was changed, removed or moved since it was written. Tells the number and the hash of its last
    /// line: compare them with a note made elsewhere, for lines cut off its end leave no other trace.
    Verify(VerifyArgs),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Which log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Which audit log.
#[derive(Debug, Args)]
pub struct LogArgs {
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

/// What was typed, with the reason of a `trip` as one word, `--reason=TEXT`: whatever it begins with, and also where it was left out, it
/// must not keep the trip from being made.
pub fn spelled(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let typed: Vec<_> = typed.into_iter().collect();
    if !typed.iter().any(|word| word == "trip") {
        return typed;
    }
    let mut words = typed.into_iter().peekable();
    let mut spelled = Vec::new();
    while let Some(mut word) = words.next() {
        if word == "--reason" {
            word.push("=");
            if let Some(text) = words.next_if(|next| !is_option_of_trip(next)) {
                word.push(text);
            }
        }
        spelled.push(word);
    }
    spelled
}

/// A word that is an option itself, and so no reason.
fn is_option_of_trip(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        matches!(name, "--json" | "--pin-root" | "--reason" | "--help" | "-h")
    })
}

/// A reason that says something.
fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty: say why, for the audit log".to_owned()),
        text if text.len() > LONGEST_REASON => {
            Err(format!("it has {} bytes: write at most {LONGEST_REASON}", text.len()))
        }
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    /// A trip with these words behind its scope: its reason, what was wrong with that, and whether JSON is wanted.
    fn trip(words: &[&OsStr]) -> (String, Option<String>, bool) {
        let typed = ["breaker", "trip", "session/x"].map(OsStr::new);
        let parsed = Cli::try_parse_from(spelled(typed.iter().chain(words).map(OsString::from)));
        let Ok(Cli { verb: Verb::Trip(args), .. }) = parsed else { panic!("{words:?}: {parsed:?}") };
        let (reason, found) = args.reason();
        (reason, found, args.json)
    }

    #[test]
    fn a_trip_takes_any_reason_and_tells_what_it_made_of_it() {
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
    fn other_verbs_want_a_reason() {
        for words in
            [&["reset", "host"][..], &["reset", "host", "--reason"], &["arm", "host", "--reason", "-x"]]
        {
            assert!(
                Cli::try_parse_from(spelled(["breaker"].iter().chain(words).map(OsString::from))).is_err()
            );
        }
    }
}
