//! The binary `breaker`: parse, run, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use breaker_user::cli::{self, Cli};
use breaker_user::{cli_error, command};
use clap::Parser;

fn main() -> ExitCode {
    // clap leaves with 2 where the usage is wrong, and with 0 after help.
    match command::run(Cli::parse_from(cli::spelled(std::env::args_os()))) {
        Ok(code) => code,
        Err(error) if command::has_no_reader(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell if standard error is gone as well.
            let _ = writeln!(io::stderr(), "breaker: {}", cli_error::text_of(&error));
            cli_error::code_of(&error).into()
        }
    }
}
