//! `trip` and `status` for a load of another version or with damaged maps. Both use only the part that every
//! layout has.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::{ABI_VERSION, cause};
use serde_json::{Value, json};

use super::output::{print, warn};
use crate::cli::{StatusArgs, TripArgs};
use crate::cli_error::{CliError, Code};
use crate::display::causes;
use crate::journal::{self, Action};
use crate::kernel::PinRoot;
use crate::kernel::frozen::{self, FrozenBoard};
use crate::view::columns::{Cell, Columns};

/// Trips a scope. Idle connections end at their next message, and journald has the record instead of the
/// audit log, because neither the connections nor the path of the log can be read from another layout.
///
/// # Errors
/// Returns `refusal` if the layout is that of this version: its maps are then damaged.
pub fn trip(
    root: &PinRoot,
    args: &TripArgs,
    board: &FrozenBoard,
    refusal: anyhow::Error,
) -> Result<ExitCode> {
    let scope = board.find(&args.scope)?;
    board.trip(scope, cause::MANUAL)?;
    // After an upgrade that died, some hooks may use the maps of the staged pin root.
    if let Ok(staged) = FrozenBoard::open(&root.staged())
        && let Ok(scope) = staged.find(&args.scope)
    {
        staged.trip(scope, cause::MANUAL)?;
    }
    // The scope is tripped: no order of the scope passes, whatever fails from here on.
    let (reason, _) = args.reason();
    let switch = board.switch(scope)?;
    let state = state(&args.scope, board, scope)?;
    let counts = json!({ "epoch": switch.epoch, "layout": board.abi() });
    let record = journal::record_without_log(&Action {
        kind: "tripped",
        scope: Some(&args.scope),
        causes: cause::MANUAL,
        reason: Some(&reason),
        counts,
    });
    print(&if args.json {
        serde_json::to_string_pretty(&json!({ "scope": state, "layout": board.abi() }))?
    } else {
        format!(
            "{}: TRIPPED ({}), epoch {}; by the switch alone: connections end at their next message",
            args.scope,
            causes(switch.causes).join(", "),
            switch.epoch
        )
    })?;
    warn(&format!(
        "breaker: the audit log was not written, because its place in layout {} cannot be read: \
         {record}",
        board.abi()
    ));
    if switch.causes & cause::MANUAL == 0 {
        let text = format!("tripping {}: it was tripped, and somebody has reset it since", args.scope);
        return Err(CliError::new(Code::Unexpected, text).into());
    }
    if board.abi() == ABI_VERSION {
        return Err(refusal);
    }
    let lost = frozen::lost_links(root);
    if lost.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    warn(&format!(
        "breaker: it is done, and IT DOES NOT HOLD: DETACHED: {}: nothing is enforced there",
        lost.join(", ")
    ));
    Ok(Code::Interface.into())
}

/// Shows the switches, and returns `refusal` as the error.
pub fn status(args: &StatusArgs, board: &FrozenBoard, refusal: anyhow::Error) -> Result<ExitCode> {
    let scopes = match &args.scope {
        Some(text) => vec![(board.find(text)?, text.clone())],
        None => board.scopes().into_iter().map(|(number, name)| (number, name.to_string())).collect(),
    };
    if args.json {
        let scopes = scopes.iter().map(|(number, name)| state(name, board, *number));
        let scopes = scopes.collect::<Result<Vec<_>>>()?;
        print(&serde_json::to_string_pretty(
            &json!({ "breaker": { "abi": board.abi() }, "scopes": scopes }),
        )?)?;
        return Err(refusal);
    }
    let mut table = Columns::new(&["SCOPE", "SWITCH", "EPOCH"]);
    for (number, name) in scopes {
        let switch = board.switch(number)?;
        let shown = match switch.causes {
            0 => Cell::new("passing"),
            held => Cell::bad(format!("TRIPPED: {}", causes(held).join(", "))),
        };
        table.row([Cell::new(name), shown, Cell::number(switch.epoch)]);
    }
    print(&format!(
        "layout {}, which another version has loaded: this version ({}, layout {ABI_VERSION}) shows its \
         switches, and `breaker trip` trips them; everything else needs that version, or \
         `breaker upgrade`\n\n{}",
        board.abi(),
        crate::VERSION,
        table.text(false).trim_end()
    ))?;
    Err(refusal)
}

fn state(name: &str, board: &FrozenBoard, scope: u32) -> Result<Value> {
    let switch = board.switch(scope)?;
    Ok(json!({
        "scope": name, "tripped": switch.causes != 0, "causes": causes(switch.causes), "epoch": switch.epoch,
    }))
}
