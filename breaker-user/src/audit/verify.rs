//! Checks a log: each line's own hash, its number and the hash of the line before, back through the files that were rotated away from it.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::anchor::{self, Anchor};
use super::{End, Line, hash, is_sealed, next_line, tail_end};
use crate::file;

/// A log that was found to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many lines there are, in all of its files.
    pub lines: u64,
    /// SHA-256 of the last one, in hex.
    pub hash: String,
    /// Number of the first one: where that is not 1, those before are in files that are not here.
    pub first: u64,
    /// The files, the oldest first.
    pub files: Vec<PathBuf>,
    /// Logs beside it that are no part of it.
    pub apart: Vec<PathBuf>,
}

/// A file that was found to be whole in itself.
struct Part {
    path: PathBuf,
    lines: u64,
    /// Number of its first line, and the hash of the line before that.
    first: u64,
    prev: String,
    /// SHA-256 of its first line.
    head: String,
    end: End,
}

/// Checks every line of a log and of what was rotated away from it. The error names the first that is wrong, or those that are missing.
pub fn verify(path: &Path) -> Result<Verified> {
    // Before the log is read: a line that comes meanwhile is in the log first.
    let written = anchor::read(path);
    let siblings = siblings(path);
    let gone = written.is_some() && !path.exists();
    let newest = match (if gone { None } else { part(path)? }, &written) {
        (Some(part), _) => part,
        // Emptied, and nothing written since.
        (None, Some(Anchor { end, .. })) => match older(&siblings, end.seq, &end.hash)? {
            Some(part) => part,
            None => bail!("verifying {}: {}", path.display(), missing(1, end.seq)),
        },
        (None, None) => {
            let hash = hash(b"");
            return Ok(Verified { lines: 0, hash, first: 1, files: vec![path.to_owned()], apart: siblings });
        }
    };
    if let Some(written) = &written {
        require_all_of(&newest, written)?;
    }
    let mut parts = vec![newest];
    while let Some(Part { first, prev, path, .. }) = parts.last().filter(|part| part.first > 1) {
        match older(&siblings, first - 1, prev)? {
            Some(part) => parts.push(part),
            None => {
                require_none_between(path, *first, &siblings)?;
                break;
            }
        }
    }
    parts.reverse();
    let apart = siblings.into_iter().filter(|path| !is_of(&parts, path)).collect();
    let (Some(oldest), Some(newest)) = (parts.first(), parts.last()) else {
        bail!("verifying {}: no file", path.display())
    };
    Ok(Verified {
        lines: parts.iter().map(|part| part.lines).sum(),
        hash: newest.end.hash.clone(),
        first: oldest.first,
        files: parts.iter().map(|part| part.path.clone()).collect(),
        apart,
    })
}

/// Checks a file in itself. `None` for one without a line.
fn part(path: &Path) -> Result<Option<Part>> {
    let mut file = BufReader::new(file::open_to_read(path)?);
    let mut found: Option<Part> = None;
    let mut line = Vec::new();
    let mut number = 0;
    while next_line(&mut file, &mut line).with_context(|| format!("reading {}", path.display()))? {
        number += 1;
        let before = found.as_ref().map(|part| &part.end);
        let event = match event(&line, before) {
            Ok(event) => event,
            Err(wrong) => bail!("verifying {}: line {number}: {wrong}", path.display()),
        };
        let own = hash(&line[..line.len() - 1]);
        let end = End { seq: event.seq, hash: own.clone() };
        match &mut found {
            Some(part) => (part.lines, part.end) = (number, end),
            None => {
                let (path, first, prev) = (path.to_owned(), event.seq, event.prev);
                found = Some(Part { path, lines: number, first, prev, head: own, end });
            }
        }
    }
    Ok(found)
}

/// A line that is whole and follows the one before, or what is wrong with it.
fn event(line: &[u8], before: Option<&End>) -> Result<Line, String> {
    let Some(text) = line.strip_suffix(b"\n") else {
        return Err("it is unfinished: its end was cut off".to_owned());
    };
    let Ok(event) = serde_json::from_slice::<Line>(text) else { return Err("it is no event".to_owned()) };
    if !is_sealed(text) {
        return Err("its `hash` is not that of its text: it was changed".to_owned());
    }
    let (prev, next) = match before {
        Some(before) => (before.hash.clone(), before.seq + 1),
        None if event.seq == 1 => (hash(b""), 1),
        // What was before it may have been rotated away.
        None => return Ok(event),
    };
    if event.prev != prev {
        return Err(
            "its `prev` is not the hash of the line before: a line was changed, removed or moved".to_owned()
        );
    }
    if event.seq != next {
        return Err(format!(
            "it has number {} where {next} must follow: a line was changed, removed or moved",
            event.seq
        ));
    }
    Ok(event)
}

/// Refuses a file of which lines are gone at either end.
fn require_all_of(newest: &Part, written: &Anchor) -> Result<()> {
    let path = newest.path.display();
    if written.end.seq > newest.end.seq {
        let found = missing(newest.end.seq + 1, written.end.seq);
        bail!("verifying {path}: {found}: they were cut off its end, or its newest file is not here");
    }
    // It may have been rotated since that was read.
    if written.first != 0 && newest.first > written.first && newest.first <= written.end.seq {
        bail!(
            "verifying {path}: {}: they were cut off its beginning",
            missing(written.first, newest.first - 1)
        );
    }
    Ok(())
}

/// The file whose last line has this number and hash.
fn older(siblings: &[PathBuf], seq: u64, hash: &str) -> Result<Option<Part>> {
    let ends_so = |path: &&PathBuf| {
        let end = file::open_to_read(path).ok().and_then(|mut file| tail_end(&mut file).ok());
        end.is_some_and(|(end, _)| end.seq == seq && end.hash == hash)
    };
    siblings.iter().find(ends_so).map_or(Ok(None), |path| part(path))
}

/// Refuses where an older file is here, and not the one between.
fn require_none_between(path: &Path, first: u64, siblings: &[PathBuf]) -> Result<()> {
    let ends = siblings.iter().filter_map(|path| {
        let mut file = file::open_to_read(path).ok()?;
        tail_end(&mut file).ok().map(|(end, _)| (end.seq, path))
    });
    match ends.filter(|(seq, _)| (1..first).contains(seq)).max() {
        None => Ok(()),
        Some((seq, older)) if seq + 1 == first => {
            bail!(
                "verifying {}: line 1: it does not follow the end of {}: a line there was changed",
                path.display(),
                older.display()
            )
        }
        Some((seq, older)) => bail!(
            "verifying {}: {}: a file is missing between it and {}, or lines were cut off there: find the file, or tell who must know",
            path.display(),
            missing(seq + 1, first - 1),
            older.display()
        ),
    }
}

fn missing(from: u64, to: u64) -> String {
    if from == to {
        format!("line number {from} is missing")
    } else {
        format!("line numbers {from} to {to} are missing")
    }
}

/// Logs beside a log, by what they are called: `audit.jsonl.1`, `audit.jsonl-20261122`, `audit-20261122.jsonl`, `audit.1.jsonl`.
fn siblings(path: &Path) -> Vec<PathBuf> {
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

/// True for a file of the chain, and for a copy of one.
fn is_of(parts: &[Part], path: &Path) -> bool {
    let mut line = Vec::new();
    let read = file::open_to_read(path).and_then(|file| Ok(next_line(&mut BufReader::new(file), &mut line)?));
    let head = hash(line.strip_suffix(b"\n").unwrap_or(&line));
    read.is_ok() && parts.iter().any(|part| part.head == head)
}
