//! Verifies a log: the hash and number of each line, and the hash of the line before, through all rotated
//! files.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::anchor::{self, Anchor};
use super::chain::{LogEnd, has_valid_hash, hash, next_line, read_end};
use super::entry::Line;
use crate::file;

/// Result for a valid log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Number of lines in all files.
    pub lines: u64,
    /// SHA-256 of the last line in hex.
    pub hash: String,
    /// Number of the first line. Above 1, the earlier lines are in files that are not present.
    pub first: u64,
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
    /// Audit logs in the same directory that do not belong to the chain.
    pub apart: Vec<PathBuf>,
}

/// A file whose own lines are valid.
struct LogFile {
    path: PathBuf,
    lines: u64,
    /// Number of the first line.
    first: u64,
    /// Hash of the line before the first.
    prev: String,
    /// SHA-256 of the first line.
    first_hash: String,
    end: LogEnd,
}

/// Verifies every line of a log and of its rotated files. The error names the first invalid or missing line.
pub fn verify(path: &Path) -> Result<Verified> {
    // Read before the log: a line that is appended meanwhile reaches the log before the anchor.
    let written = anchor::read(path);
    let siblings = siblings(path);
    let missing = written.is_some() && !path.exists();
    let newest = match (if missing { None } else { verify_file(path)? }, &written) {
        (Some(file), _) => file,
        // The log was truncated, and nothing was written since.
        (None, Some(Anchor { end, .. })) => match find_older(&siblings, end.seq, &end.hash)? {
            Some(file) => file,
            None => bail!("verifying {}: {}", path.display(), missing_lines(1, end.seq)),
        },
        (None, None) => {
            let hash = hash(b"");
            return Ok(Verified { lines: 0, hash, first: 1, files: vec![path.to_owned()], apart: siblings });
        }
    };
    if let Some(written) = &written {
        check_complete(&newest, written)?;
    }
    let mut chain = vec![newest];
    while let Some(LogFile { first, prev, path, .. }) = chain.last().filter(|file| file.first > 1) {
        match find_older(&siblings, first - 1, prev)? {
            Some(file) => chain.push(file),
            None => {
                check_no_gap(path, *first, &siblings)?;
                break;
            }
        }
    }
    chain.reverse();
    let apart = siblings.into_iter().filter(|path| !belongs_to(&chain, path)).collect();
    let (Some(oldest), Some(newest)) = (chain.first(), chain.last()) else {
        bail!("verifying {}: no file", path.display())
    };
    Ok(Verified {
        lines: chain.iter().map(|file| file.lines).sum(),
        hash: newest.end.hash.clone(),
        first: oldest.first,
        files: chain.iter().map(|file| file.path.clone()).collect(),
        apart,
    })
}

/// Verifies the lines of one file. Returns `None` for a file without a line.
fn verify_file(path: &Path) -> Result<Option<LogFile>> {
    let mut file = BufReader::new(file::open_to_read(path)?);
    let mut found: Option<LogFile> = None;
    let mut line = Vec::new();
    let mut number = 0;
    while next_line(&mut file, &mut line).with_context(|| format!("reading {}", path.display()))? {
        number += 1;
        let before = found.as_ref().map(|file| &file.end);
        let event = match verify_line(&line, before) {
            Ok(event) => event,
            Err(problem) => bail!("verifying {}: line {number}: {problem}", path.display()),
        };
        let line_hash = hash(&line[..line.len() - 1]);
        let end = LogEnd { seq: event.seq, hash: line_hash.clone() };
        match &mut found {
            Some(file) => (file.lines, file.end) = (number, end),
            None => {
                let (path, first, prev) = (path.to_owned(), event.seq, event.prev);
                found = Some(LogFile { path, lines: number, first, prev, first_hash: line_hash, end });
            }
        }
    }
    Ok(found)
}

/// Parses a line and checks its hash and its place after the line before. The error is the problem as text.
fn verify_line(line: &[u8], before: Option<&LogEnd>) -> Result<Line, String> {
    let Some(text) = line.strip_suffix(b"\n") else {
        return Err("the line is incomplete: its end was cut off".to_owned());
    };
    let Ok(event) = serde_json::from_slice::<Line>(text) else {
        return Err("the line is not an event".to_owned());
    };
    if !has_valid_hash(text) {
        return Err("its `hash` does not match its text: the line was changed".to_owned());
    }
    let (prev, next) = match before {
        Some(before) => (before.hash.clone(), before.seq + 1),
        None if event.seq == 1 => (hash(b""), 1),
        // The line before may be in a rotated file.
        None => return Ok(event),
    };
    if event.prev != prev {
        return Err(
            "its `prev` does not match the line before: a line was changed, removed or moved".to_owned()
        );
    }
    if event.seq != next {
        return Err(format!(
            "it has number {} and not {next}: a line was changed, removed or moved",
            event.seq
        ));
    }
    Ok(event)
}

/// Checks that the newest file has lost no lines at either end.
fn check_complete(newest: &LogFile, written: &Anchor) -> Result<()> {
    let path = newest.path.display();
    if written.end.seq > newest.end.seq {
        let found = missing_lines(newest.end.seq + 1, written.end.seq);
        bail!("verifying {path}: {found}: they were cut off its end, or its newest file is not here");
    }
    // The log may have been rotated since the anchor was read.
    if written.first != 0 && newest.first > written.first && newest.first <= written.end.seq {
        bail!(
            "verifying {path}: {}: they were cut off its beginning",
            missing_lines(written.first, newest.first - 1)
        );
    }
    Ok(())
}

/// Finds and verifies the file whose last line has this number and hash.
fn find_older(siblings: &[PathBuf], seq: u64, hash: &str) -> Result<Option<LogFile>> {
    let has_end = |path: &&PathBuf| {
        let end = file::open_to_read(path).ok().and_then(|mut file| read_end(&mut file).ok());
        end.is_some_and(|(end, _)| end.seq == seq && end.hash == hash)
    };
    siblings.iter().find(has_end).map_or(Ok(None), |path| verify_file(path))
}

/// Checks that no older file is present, because the file between would then be missing.
fn check_no_gap(path: &Path, first: u64, siblings: &[PathBuf]) -> Result<()> {
    let ends = siblings.iter().filter_map(|path| {
        let mut file = file::open_to_read(path).ok()?;
        read_end(&mut file).ok().map(|(end, _)| (end.seq, path))
    });
    match ends.filter(|(seq, _)| (1..first).contains(seq)).max() {
        None => Ok(()),
        Some((seq, older)) if seq + 1 == first => {
            bail!(
                "verifying {}: line 1: it does not follow the end of {}: a line was changed there",
                path.display(),
                older.display()
            )
        }
        Some((seq, older)) => bail!(
            "verifying {}: {}: a file is missing between it and {}, or lines were cut off there: find the \
             file, or \
             report the loss",
            path.display(),
            missing_lines(seq + 1, first - 1),
            older.display()
        ),
    }
}

fn missing_lines(from: u64, to: u64) -> String {
    if from == to {
        format!("line number {from} is missing")
    } else {
        format!("line numbers {from} to {to} are missing")
    }
}

/// Audit logs with related names: `audit.jsonl.1`, `audit.jsonl-20261122`, `audit-20261122.jsonl`,
/// `audit.1.jsonl`.
pub(super) fn siblings(path: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(stem)) = (path.parent(), path.file_stem()) else { return Vec::new() };
    let stem = stem.to_string_lossy();
    let is_named = |found: &PathBuf| {
        let name = found.file_name().unwrap_or_default().to_string_lossy();
        found != path && name.strip_prefix(&*stem).is_some_and(|rest| rest.starts_with(['.', '-']))
    };
    let is_log = |found: &PathBuf| {
        let mut line = Vec::new();
        let read =
            file::open_to_read(found).and_then(|file| Ok(next_line(&mut BufReader::new(file), &mut line)?));
        read.is_ok() && serde_json::from_slice::<Line>(&line).is_ok()
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(is_named).filter(is_log).collect();
    found.sort();
    found
}

/// Returns true for a file of the chain, and for a copy of one.
fn belongs_to(chain: &[LogFile], path: &Path) -> bool {
    let mut line = Vec::new();
    let read = file::open_to_read(path).and_then(|file| Ok(next_line(&mut BufReader::new(file), &mut line)?));
    let first_hash = hash(line.strip_suffix(b"\n").unwrap_or(&line));
    read.is_ok() && chain.iter().any(|file| file.first_hash == first_hash)
}
