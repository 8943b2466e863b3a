//! The hash chain: each line contains the SHA-256 of the line before (`prev`) and of its own text (`hash`).

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Seek, SeekFrom};

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use super::entry::Line;

/// Longest line that is read, in bytes. A file with a longer line is no audit log.
const MAX_LINE: u64 = 16 << 20;
/// Length of the first read from the end of a log, in bytes.
const FIRST_TAIL: u64 = 64 * 1024;

/// SHA-256 in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the member `hash`: the SHA-256 of the text before it. Without it, an edit of the last line would be
/// invisible.
pub(super) fn with_hash(object: &str) -> String {
    let open = object.strip_suffix('}').unwrap_or(object);
    format!("{open},\"hash\":\"{}\"}}", hash(open.as_bytes()))
}

/// Returns true if the text is byte for byte a result of [`with_hash`].
pub(super) fn has_valid_hash(text: &[u8]) -> bool {
    const MEMBER: usize = ",\"hash\":\"\"}".len() + 64;
    let open = std::str::from_utf8(&text[..text.len().saturating_sub(MEMBER)]);
    open.is_ok_and(|open| with_hash(open).as_bytes() == text)
}

/// Number and hash of the last line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Number of the line; 0 for an empty log.
    pub seq: u64,
    /// SHA-256 of the line in hex, of no bytes for an empty log.
    pub hash: String,
}

/// Reads the end of a log, and whether its last line is complete.
pub(super) fn read_end(file: &mut File) -> Result<(LogEnd, bool)> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut size = FIRST_TAIL;
    loop {
        let from = length.saturating_sub(size);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(size).read_to_end(&mut tail)?;
        if let Some(end) = last_line(&tail, from == 0) {
            return Ok((end, tail.last().is_none_or(|byte| *byte == b'\n')));
        }
        if size > MAX_LINE {
            bail!("no event is in its last {size} bytes: this is no audit log: move it away");
        }
        size *= 8;
    }
}

/// Number and hash of the last line in the tail of a log; `None` if a longer tail is needed. `whole` means
/// the whole log.
fn last_line(tail: &[u8], whole: bool) -> Option<LogEnd> {
    let mut lines = tail.split(|&byte| byte == b'\n');
    if !whole {
        // The tail starts inside this line.
        lines.next();
    }
    let mut lines = lines.rev().filter(|line| !line.is_empty());
    let Some(last) = lines.next() else { return whole.then(|| LogEnd { seq: 0, hash: hash(b"") }) };
    let event = std::iter::once(last).chain(lines).find_map(|line| serde_json::from_slice::<Line>(line).ok());
    match event {
        None if !whole => None,
        event => Some(LogEnd { seq: event.map_or(0, |line| line.seq), hash: hash(last) }),
    }
}

/// Reads a line with its newline into the buffer, without newline at an unfinished end. Returns false at the
/// end.
pub(super) fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let length = file.take(MAX_LINE + 1).read_until(b'\n', line)?;
    if length as u64 > MAX_LINE {
        let found = format!("a line of more than {} MiB: this is no audit log", MAX_LINE >> 20);
        return Err(io::Error::new(ErrorKind::InvalidData, found));
    }
    Ok(length != 0)
}
