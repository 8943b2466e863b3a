//! `breaker trip --explain`.

use std::process::ExitCode;

use anyhow::Result;

use super::output::print;
use crate::cli::TripArgs;
use crate::kernel::{Breaker, PinRoot};
use crate::view::{Explanation, explanation_text};

/// Prints what a trip of the scope would do. Changes nothing.
pub fn run(root: &PinRoot, args: &TripArgs) -> Result<ExitCode> {
    let breaker = Breaker::open(root)?;
    let explanation = Explanation::read(&breaker, breaker.find(&args.scope)?)?;
    print(&if args.json {
        serde_json::to_string_pretty(&explanation)?
    } else {
        explanation_text::text(&explanation, false)
    })?;
    Ok(ExitCode::SUCCESS)
}
