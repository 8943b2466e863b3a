//! The entry point of the binary: a verb in this process, over the control socket, or for a connection to it.

use std::process::ExitCode;

use anyhow::Result;

use super::client;
use super::request::Request;
use super::serve;
use crate::cli::{Cli, Verb};
use crate::cli_error::{self, Code};
use crate::command;
use crate::kernel::PinRoot;

/// Runs the verb of the command line. Where this process may not open the pins, asks the control socket.
pub fn run(cli: Cli) -> Result<ExitCode> {
    if let Verb::Control(args) = &cli.verb {
        let root = PinRoot::new(&cli.pin_root);
        return serve::run(&if cli.private_pins { root.private() } else { root }, args);
    }
    let request = Request::of(&cli);
    let path = cli.control.clone();
    // The configuration may be closed to this user too, so that the socket comes first.
    if matches!(cli.verb, Verb::Load(_) | Verb::Reload(_))
        && PinRoot::new(&cli.pin_root).is_closed()
        && let Some(request) = &request
        && let Some(code) = client::ask(&path, request)?
    {
        return Ok(code);
    }
    let result = command::run(cli);
    match (request, &result) {
        (Some(request), Err(error)) if cli_error::code_of(error) == Code::Permission => {
            client::ask(&path, &request)?.map_or(result, Ok)
        }
        _ => result,
    }
}
