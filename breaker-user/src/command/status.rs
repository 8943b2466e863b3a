//! `breaker status`.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::ABI_VERSION;

use super::other_layout;
use super::output::print;
use crate::cli::StatusArgs;
use crate::cli_error::{self, Code};
use crate::kernel::frozen::FrozenBoard;
use crate::kernel::{Breaker, PinRoot};
use crate::view::{Status, table};

/// Prints the status, and ends with its exit code.
pub fn run(root: &PinRoot, args: &StatusArgs) -> Result<ExitCode> {
    let breaker = match Breaker::open(root) {
        Err(refusal) if cli_error::code_of(&refusal) == Code::Mismatch => {
            return match FrozenBoard::open(root) {
                Ok(board) if board.abi() != ABI_VERSION => other_layout::status(args, &board, refusal),
                _ => Err(refusal),
            };
        }
        opened => opened?,
    };
    let only = args.scope.as_deref().map(|scope| breaker.find(scope)).transpose()?;
    let status = Status::read(&breaker, only)?;
    print(&if args.json { serde_json::to_string_pretty(&status)? } else { table::status(&status) })?;
    Ok(status.code().map_or(ExitCode::SUCCESS, ExitCode::from))
}
