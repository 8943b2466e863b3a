//! The binary `breaker`: parse, run, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use breaker_user::cli::Cli;
use breaker_user::{command, fault};
use clap::Parser;

fn main() -> ExitCode {
    // clap leaves with 2 where the usage is wrong, and with 0 after help.
    match command::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell if standard error is gone as well.
            let _ = writeln!(io::stderr(), "breaker: {}", fault::text_of(&error));
            fault::code_of(&error).into()
        }
    }
}

/// A reader that has seen enough, as in `breaker status | head -1`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}
