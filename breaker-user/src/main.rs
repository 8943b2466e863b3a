//! The binary `breaker`: parses the command line, runs the verb, returns the exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use breaker_user::cli::{self, Cli};
use breaker_user::{cli_error, command};
use clap::Parser;

fn main() -> ExitCode {
    // clap exits with 2 after wrong usage and with 0 after help.
    match command::run(Cli::parse_from(cli::normalize_trip_reason(std::env::args_os()))) {
        Ok(code) => code,
        Err(error) if command::is_output_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The result is ignored: if standard error is closed, the exit code is all that remains.
            let _ = writeln!(io::stderr(), "breaker: {}", cli_error::text_of(&error));
            cli_error::code_of(&error).into()
        }
    }
}
