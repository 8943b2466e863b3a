//! The entry point of the binary: runs a verb in this process, over the control socket, or for a connection
//! to the control socket.

use std::process::ExitCode;

use anyhow::Result;

use super::client;
use super::request::Request;
use super::serve;
use crate::cli::{Cli, Verb};
use crate::cli_error::{self, Code};
use crate::command;
use crate::kernel::PinRoot;

/// Runs the verb of the command line. Sends it to the control socket if this process may not open the pins.
pub fn run(cli: Cli) -> Result<ExitCode> {
    if let Verb::Control(args) = &cli.verb {
        let root = PinRoot::new(&cli.pin_root);
        return serve::run(&if cli.private_pins { root.private() } else { root }, args);
    }
    let request = Request::of(&cli);
    let path = cli.control.clone();
    // This user may not be allowed to read the configuration either, so the socket is tried first.
    if matches!(cli.verb, Verb::Load(_) | Verb::Reload(_))
        && PinRoot::new(&cli.pin_root).is_closed()
        && let Some(request) = &request
        && let Some(code) = client::send_request(&path, request)?
    {
        return Ok(code);
    }
    let result = command::run(cli);
    match (request, &result) {
        (Some(request), Err(error)) if cli_error::code_of(error) == Code::Permission => {
            client::send_request(&path, &request)?.map_or(result, Ok)
        }
        _ => result,
    }
}
