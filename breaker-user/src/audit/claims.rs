//! Compares a log with claims about its last line from outside its directory.

use std::collections::HashMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::chain::{LogEnd, hash, next_line};
use super::entry::Line;
use super::verify::siblings;
use crate::file;

/// The last line of a log according to a keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Name of the keeper.
    pub source: String,
    /// Number of the line.
    pub seq: u64,
    /// SHA-256 of the line in hex.
    pub hash: String,
}

/// The result of the comparison with one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Name of the keeper.
    pub source: String,
    /// Number of the line in the claim.
    pub seq: u64,
    /// The result.
    pub result: Comparison,
    /// Description of a contradiction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// Possible results of a comparison of a log with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// The log has the line.
    Agrees,
    /// The log has another line of this number, or ends before it.
    Contradicts,
    /// The line is older than the oldest file that is present.
    Older,
}

impl Claim {
    /// Makes the claim of a keeper.
    pub fn new(source: impl Into<String>, end: LogEnd) -> Self {
        Self { source: source.into(), seq: end.seq, hash: end.hash }
    }
}

/// Compares a log and its rotated files with claims, which must be read before the log. The log need not be
/// valid.
pub fn compare(path: &Path, claims: &[Claim]) -> Result<Vec<Compared>> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted: HashMap<u64, Vec<String>> = claims.iter().map(|claim| (claim.seq, Vec::new())).collect();
    let files: Vec<PathBuf> =
        siblings(path).into_iter().chain(path.exists().then(|| path.to_owned())).collect();
    let (mut first, mut last) = (u64::MAX, 0);
    for file in &files {
        each_line(file, |seq, text| {
            first = first.min(seq);
            if file == path || wanted.contains_key(&seq) {
                last = last.max(seq);
            }
            if let Some(hashes) = wanted.get_mut(&seq) {
                hashes.push(hash(text));
            }
        })?;
    }
    Ok(claims.iter().map(|claim| compare_one(claim, &wanted[&claim.seq], first, last)).collect())
}

fn compare_one(claim: &Claim, found: &[String], first: u64, last: u64) -> Compared {
    let Claim { source, seq, hash } = claim;
    let (result, text) = if found.contains(hash) {
        (Comparison::Agrees, None)
    } else if !found.is_empty() {
        let text =
            format!("{source} has line number {seq} with SHA-256 {hash}, and the log has another line");
        (Comparison::Contradicts, Some(text))
    } else if *seq < first && last != 0 {
        (Comparison::Older, None)
    } else {
        let end = if last == 0 { "is empty".to_owned() } else { format!("ends with line number {last}") };
        let text = format!("{source} has line number {seq}, and the log {end}: lines were cut off its end");
        (Comparison::Contradicts, Some(text))
    };
    Compared { source: source.clone(), seq: *seq, result, found: text }
}

/// Calls `take` with number and text of each event in a file.
fn each_line(path: &Path, mut take: impl FnMut(u64, &[u8])) -> Result<()> {
    let mut file = BufReader::new(file::open_to_read(path)?);
    let mut line = Vec::new();
    while next_line(&mut file, &mut line).with_context(|| format!("reading {}", path.display()))? {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Ok(event) = serde_json::from_slice::<Line>(text) {
            take(event.seq, text);
        }
    }
    Ok(())
}
