//! An answer of the control socket: messages with pieces of output, and a last message with the exit code.

use std::io;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use crate::seqpacket::send_message;

/// Most characters of output in a message. JSON takes at most six bytes for each, which fit into a message.
const MAX_CHARS: usize = 600;

/// A message of an answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Text for standard output.
    Stdout(String),
    /// Text for standard error.
    Stderr(String),
    /// The exit code. The last message.
    Exit(u8),
}

/// Sends the output of a verb and its exit code.
pub fn send(socket: impl AsFd, stdout: &str, stderr: &str, exit: u8) -> io::Result<()> {
    let pieces = |text: &str, message: fn(String) -> Answer| -> Vec<Answer> {
        let chars: Vec<char> = text.chars().collect();
        chars.chunks(MAX_CHARS).map(|piece| message(piece.iter().collect())).collect()
    };
    let output = pieces(stdout, Answer::Stdout).into_iter().chain(pieces(stderr, Answer::Stderr));
    for answer in output.chain([Answer::Exit(exit)]) {
        send_message(&socket, &serde_json::to_vec(&answer)?)?;
    }
    Ok(())
}
