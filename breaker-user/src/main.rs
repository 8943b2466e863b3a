//! The binary `breaker`: parses the command line, runs the verb, returns the exit code.

use std::process::ExitCode;

use breaker_user::cli::{self, Cli};
use breaker_user::{command, control};
use clap::Parser;

fn main() -> ExitCode {
    // clap exits with 2 after wrong usage and with 0 after help.
    command::report(control::run(Cli::parse_from(cli::normalize_trip_reason(std::env::args_os()))))
}
