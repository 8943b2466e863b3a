//! The client of the control socket.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::answer::Answer;
use super::request::Request;
use crate::seqpacket::{Received, connect_to, receive, send_message, set_timeout};

/// Longest wait for the connection and for sending the request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for each message of the answer: a verb may wait for a disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends a request, prints the answer and returns its exit code. Returns `None` if no process listens.
pub fn send_request(path: &Path, request: &Request) -> Result<Option<ExitCode>> {
    let context = || format!("asking the control socket {}", path.display());
    let socket = match connect_to(path, TIMEOUT) {
        Err(error) if is_absent(&error) => return Ok(None),
        socket => socket.with_context(context)?,
    };
    send_message(&socket, &serde_json::to_vec(request)?).with_context(context)?;
    set_timeout(&socket, ANSWER_TIMEOUT).with_context(context)?;
    loop {
        let message = match receive(&socket).with_context(context)? {
            Received::Message(message) => message,
            Received::TooLong | Received::End => {
                bail!("{}: it ended without an exit code: run `breaker status`, and try again", context())
            }
        };
        // The result is ignored: the verb has run, even if standard output is closed.
        match serde_json::from_slice(&message).with_context(context)? {
            Answer::Stdout(text) => drop(io::stdout().write_all(text.as_bytes())),
            Answer::Stderr(text) => drop(io::stderr().write_all(text.as_bytes())),
            Answer::Exit(code) => {
                let _ = io::stdout().flush();
                return Ok(Some(code.into()));
            }
        }
    }
}

/// Returns true if there is no socket at a path, or no process listens there.
fn is_absent(error: &io::Error) -> bool {
    let kinds = [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::ConnectionRefused];
    kinds.contains(&error.kind())
}
