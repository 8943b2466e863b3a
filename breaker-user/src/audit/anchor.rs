//! The anchor of a log: number and hash of the last written line, in a file beside the log.
//!
//! A log that was rotated by renaming or truncation continues the chain of the file before, and a line that
//! was cut off the end is missed.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::LogEnd;
use crate::file;

/// Digits of a number: the record has a fixed length.
const DIGITS: usize = 20;
/// Hex digits of a hash.
const HASH_DIGITS: usize = 64;

/// The content of an anchor file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The last written line.
    pub end: LogEnd,
    /// Number of the first line of the same file; 0 if unknown.
    pub first: u64,
}

/// Reads the anchor of a log; `None` if it is missing or invalid.
pub fn read(log: &Path) -> Option<Anchor> {
    let mut text = String::new();
    let anchor = file::open(OpenOptions::new().read(true), &path(log)).ok()?;
    anchor.take((2 * DIGITS + HASH_DIGITS + 3) as u64).read_to_string(&mut text).ok()?;
    let words: Vec<_> = text.split_whitespace().collect();
    let [seq, hash, first] = words[..] else { return None };
    let valid = hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let end = LogEnd { seq: seq.parse().ok()?, hash: hash.to_owned() };
    Some(Anchor { end, first: first.parse().ok()? }).filter(|_| valid)
}

/// Writes the anchor in one write. On failure, the log itself shows its end until it is rotated.
pub fn write(log: &File, path_of_log: &Path, Anchor { end, first }: &Anchor) {
    let Ok(of_log) = log.metadata() else { return };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(of_log.mode() & 0o666);
    let Ok(anchor) = file::open(&mut options, &path(path_of_log)) else { return };
    // Every writer of the log must be able to write the anchor.
    if anchor.metadata().is_ok_and(|found| (found.uid(), found.gid()) != (of_log.uid(), of_log.gid())) {
        let _ = std::os::unix::fs::fchown(&anchor, Some(of_log.uid()), Some(of_log.gid()));
    }
    let _ =
        anchor.write_all_at(format!("{:0DIGITS$} {} {first:0DIGITS$}\n", end.seq, end.hash).as_bytes(), 0);
}

/// Path of the anchor: beside the log, hidden from patterns that match logs.
pub fn path(log: &Path) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    log.with_file_name(format!(".{name}.end"))
}
