//! The verbs, one a file, and where they are told apart.

mod agent;
mod check;
mod drill;
mod events;
mod load;
mod reload;
mod status;
mod switch;
mod unload;

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Verb};
use crate::cli_error::Code;
use crate::enforced::Enforced;
use crate::kernel::PinRoot;

/// Does what was typed.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let root = PinRoot::new(cli.pin_root);
    let root = if cli.private_pins { root.private() } else { root };
    match cli.verb {
        Verb::Check(args) => check::run(&args),
        Verb::Load(args) => load::run(&root, &args),
        Verb::Reload(args) => reload::run(&root, &args),
        Verb::Unload(args) => unload::run(&root, &args),
        Verb::Agent(args) => agent::run(&root, &args),
        Verb::Status(args) => status::run(&root, &args),
        Verb::Arm(args) => switch::arm(&root, &args, true),
        Verb::Disarm(args) => switch::arm(&root, &args, false),
        Verb::Trip(args) => switch::trip(&root, &args),
        Verb::Reset(args) => switch::reset(&root, &args),
        Verb::Events(args) => events::run(&root, &args),
        Verb::Audit(verb) => events::audit(&root, &verb),
        Verb::Drill(args) => drill::run(&args),
    }
}

/// Prints a line on standard error, and goes on where nobody reads that.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The exit code of what was done: where it does not hold, it says why on standard error.
fn in_force(enforced: &Enforced) -> ExitCode {
    let lines = enforced.open_lines();
    if lines.is_empty() {
        return ExitCode::SUCCESS;
    }
    warn("breaker: it is done, and IT DOES NOT HOLD: the breaker is not in force:");
    lines.iter().for_each(|line| warn(&format!("  {line}")));
    Code::Interface.into()
}

/// Prints a line; a reader that has gone is an error like any other, told apart by [`has_no_reader`].
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        let gone = error.kind() == ErrorKind::BrokenPipe;
        let error = anyhow::Error::from(error).context("writing to standard output");
        if gone { error.context(NoReader) } else { error }
    })
}

/// A reader that has seen enough, as in `breaker status | head -1`. What was asked for is done by then.
pub fn has_no_reader(error: &anyhow::Error) -> bool {
    error.is::<NoReader>()
}

/// See [`has_no_reader`].
#[derive(Clone, Copy, Debug)]
struct NoReader;

impl fmt::Display for NoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output")
    }
}
