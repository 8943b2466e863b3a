//! `breaker audit verify`: verifies the audit log, and compares its end with every anchor that can be read.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::events;
use super::output::print;
use crate::audit::{self, AuditLog as _, Claim, Compared, Comparison, LogEnd, Verified};
use crate::cli::{AuditVerb, VerifyArgs};
use crate::journald;
use crate::kernel::{PinRoot, Switchboard};
use crate::load_log::{self, LoadLog};
use crate::state::{self, Store};

/// A valid log, and the anchors that it was compared with.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    verified: Verified,
    anchors: Vec<Compared>,
}

/// Verifies the log.
pub fn run(root: &PinRoot, verb: &AuditVerb) -> Result<ExitCode> {
    let AuditVerb::Verify(args) = verb;
    let path = events::path(root, &args.log)?;
    // Read before the log: a line that is appended meanwhile reaches the log before an anchor.
    let claims = claims(root, &path, args);
    let verified = audit::verify(&path);
    let anchors = match (audit::compare(&path, &claims), &verified) {
        (Err(_), Err(_)) => Vec::new(),
        (compared, _) => compared?,
    };
    let contradictions: Vec<_> = anchors.iter().filter_map(|anchor| anchor.found.as_deref()).collect();
    let verified = match (verified, &contradictions[..]) {
        (Ok(verified), []) => verified,
        (Err(error), []) => return Err(error),
        (Ok(_), found) => {
            return Err(anyhow!("verifying {}: {}: find out who did it", path.display(), found.join("; ")));
        }
        (Err(error), found) => return Err(anyhow!("{error:#}; {}", found.join("; "))),
    };
    let report = Report { verified, anchors };
    print(&if args.json { serde_json::to_string_pretty(&report)? } else { text(&path, &report) })?;
    Ok(ExitCode::SUCCESS)
}

/// What each readable anchor outside of the directory of the log says.
fn claims(root: &PinRoot, path: &Path, args: &VerifyArgs) -> Vec<Claim> {
    let mut claims = Vec::new();
    let board = Switchboard::open(root).ok().filter(|board| load_log::path(board) == path);
    if let Some(board) = &board {
        let source = format!("META of {}", root.path().display());
        claims.extend(LoadLog::open(board).kept().map(|end| Claim::new(source, end)));
    }
    let store = match &args.state {
        Some(directory) => Some(Store::new(directory, root)),
        None => board.as_ref().map(state::store),
    };
    if let Some(store) = store {
        let source = format!("the state file {}", store.path().display());
        let end = store.read().contents().and_then(|found| found.audit.clone());
        claims.extend(end.map(|end| Claim::new(source, LogEnd { seq: end.seq, hash: end.hash })));
    }
    claims.extend(distinct(journald::read_ends(path)).into_iter().map(|end| Claim::new("journald", end)));
    claims
}

/// The different last lines, in the order of their numbers.
fn distinct(mut ends: Vec<LogEnd>) -> Vec<LogEnd> {
    ends.sort_by(|one, other| (one.seq, &one.hash).cmp(&(other.seq, &other.hash)));
    ends.dedup();
    ends
}

/// The result of a verification as text.
fn text(path: &Path, Report { verified: found, anchors }: &Report) -> String {
    let mut text = format!("{}: {} lines, none changed, removed or moved", path.display(), found.lines);
    if found.files.len() > 1 {
        text += &format!(", in {} files", found.files.len());
    }
    if found.first > 1 {
        text += &format!(
            "; it begins with number {}: the earlier lines are in files that are not here",
            found.first
        );
    }
    for apart in &found.apart {
        text += &format!("; {} does not belong to it", apart.display());
    }
    text += &format!("; hash of the last line: {}", found.hash);
    let mut agreeing: Vec<_> = anchors
        .iter()
        .filter(|anchor| anchor.result == Comparison::Agrees)
        .map(|anchor| anchor.source.as_str())
        .collect();
    agreeing.dedup();
    if !agreeing.is_empty() {
        text += &format!("; it agrees with {}", agreeing.join(", "));
    }
    text
}
