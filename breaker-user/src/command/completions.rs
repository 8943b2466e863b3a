//! `breaker completions`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};

use super::output::print;
use crate::cli::{Cli, CompletionsArgs};

/// Prints the completions of one shell.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(&Cli::command()), "breaker", &mut text);
    print(String::from_utf8(text).context("reading the completions")?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the command line without its hidden verbs, which the completions would list.
fn visible(command: &Command) -> Command {
    Command::new("breaker")
        .version(crate::VERSION)
        .args(command.get_arguments())
        .subcommands(command.get_subcommands().filter(|verb| !verb.is_hide_set()))
}
