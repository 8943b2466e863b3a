//! `breaker learn`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::check;
use super::output::print;
use crate::cli::{ConfigArgs, LearnArgs};
use crate::cli_error::{CliError, Code};
use crate::config::{self, Policy};
use crate::kernel::{Breaker, PinRoot};
use crate::replay::learn::Learner;
use crate::replay::{captures, observing_engine};
use crate::view::learn::Learn;
use crate::view::learn_toml;

/// A configuration without sessions: every FIX flow is undeclared.
const EMPTY: &str = "[host]\ninterfaces = [\"lo\"]\nundeclared = \"watch\"\n";

/// Proposes limits. Ends with 9 if a capture breaks off.
pub fn run(root: &PinRoot, args: &LearnArgs) -> Result<ExitCode> {
    let policy = policy(args)?;
    let view = if args.captures.is_empty() {
        Learn::from_load(&policy, &Breaker::open(root)?, args.factor)?
    } else {
        let mut engine = observing_engine(&policy)?;
        let mut learner = Learner::new(&engine);
        let read = captures::read(&args.captures, &mut engine, &mut learner)?;
        Learn::from_captures(&policy, &learner, engine.figures(), (&read, args.factor))
    };
    if args.json {
        print(&serde_json::to_string_pretty(&view)?)?;
    } else {
        print(&learn_toml::toml(&view, &policy, &interfaces(args, &policy)))?;
    }
    Ok(if view.is_broken() { Code::Capture.into() } else { ExitCode::SUCCESS })
}

/// The configuration, or one without sessions.
fn policy(args: &LearnArgs) -> Result<Policy> {
    let config = match (&args.config, args.captures.is_empty()) {
        (Some(config), _) => config.clone(),
        (None, true) => config::DEFAULT_PATH.into(),
        (None, false) => {
            let parsed = config::parse("an empty configuration", EMPTY);
            return parsed.map_err(|errors| CliError::new(Code::Unexpected, errors.to_string()).into());
        }
    };
    check::policy(&ConfigArgs { config, json: args.json })
}

/// The interfaces of the configuration, or one of this host that is no loopback.
fn interfaces(args: &LearnArgs, policy: &Policy) -> Vec<String> {
    if args.config.is_some() || args.captures.is_empty() {
        return policy.host().interfaces.iter().map(|name| name.as_str().to_owned()).collect();
    }
    let names = std::fs::read_dir(Path::new("/sys/class/net")).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let name = names.into_iter().find(|name| name != "lo" && name.parse::<config::Interface>().is_ok());
    vec![name.unwrap_or_else(|| "lo".to_owned())]
}
