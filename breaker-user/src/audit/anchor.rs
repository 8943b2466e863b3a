//! Number and hash of the last line that was written, in a file beside the log. A log that was rotated, by a new name or by being emptied,
//! so goes on where the one before ended, and a line that was cut off its end is missed.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::End;
use crate::file;

/// Digits of a number: the record always has the same length.
const DIGITS: usize = 20;
/// Hex digits of a hash.
const HASH: usize = 64;

/// What is known of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The line that was written last.
    pub end: End,
    /// Number of the first line of the file that it is in; 0 where that is not known.
    pub first: u64,
}

/// What was last written; `None` where nobody knows.
pub fn read(log: &Path) -> Option<Anchor> {
    let mut text = String::new();
    let anchor = file::open(OpenOptions::new().read(true), &path(log)).ok()?;
    anchor.take((2 * DIGITS + HASH + 3) as u64).read_to_string(&mut text).ok()?;
    let words: Vec<_> = text.split_whitespace().collect();
    let [seq, hash, first] = words[..] else { return None };
    let whole = hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let end = End { seq: seq.parse().ok()?, hash: hash.to_owned() };
    Some(Anchor { end, first: first.parse().ok()? }).filter(|_| whole)
}

/// Writes it down, in one piece. Where it cannot be written the log itself tells its end until it is rotated.
pub fn write(log: &File, path_of_log: &Path, Anchor { end, first }: &Anchor) {
    let Ok(of_log) = log.metadata() else { return };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(of_log.mode() & 0o666);
    let Ok(anchor) = file::open(&mut options, &path(path_of_log)) else { return };
    // Whoever may write the log must be able to write this.
    if anchor.metadata().is_ok_and(|found| (found.uid(), found.gid()) != (of_log.uid(), of_log.gid())) {
        let _ = std::os::unix::fs::fchown(&anchor, Some(of_log.uid()), Some(of_log.gid()));
    }
    let _ =
        anchor.write_all_at(format!("{:0DIGITS$} {} {first:0DIGITS$}\n", end.seq, end.hash).as_bytes(), 0);
}

/// Beside the log, under a name that no pattern for logs finds.
pub fn path(log: &Path) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    log.with_file_name(format!(".{name}.end"))
}
