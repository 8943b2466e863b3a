//! Appends entries to a log. A lock on the file gives the writers their turns.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use super::anchor::{self, Anchor};
use super::chain::{LogEnd, hash, read_end, with_hash};
use super::entry::{Entry, Line};
use super::keeper::{AuditLog, continuation};
use crate::cli_error::{CliError, Code};
use crate::file;

/// Longest wait for the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// Space that [`reserve`] allocates, in bytes: more than an entry of a verb needs.
const RESERVED: u64 = 8 * 1024;

/// Appends entries in one write, after waiting for other writers. The entries are on disk when it returns.
/// Without an entry, it brings the anchor and the keeper up to date.
pub fn append(log: &(impl AuditLog + ?Sized), entries: &[Entry]) -> Result<()> {
    append_within(log, entries, LOCK_TIMEOUT)
}

/// Like [`append`], with a limit on the wait for other writers. The error of a timeout is [`Locked`].
pub fn append_within(log: &(impl AuditLog + ?Sized), entries: &[Entry], timeout: Duration) -> Result<()> {
    let path = log.path();
    let mut file = open(path)?;
    lock(&file, path, timeout)?;
    let end =
        finish_last_line(&mut file).with_context(|| format!("reading the end of {}", path.display()))?;
    let length = file.metadata().with_context(|| format!("reading the size of {}", path.display()))?.len();
    let anchor = anchor::read(path);
    let known_first = anchor.as_ref().map_or(0, |anchor| anchor.first);
    let LogEnd { mut seq, hash: mut prev } = continuation(end, anchor.map(|anchor| anchor.end), log.kept());
    let first = if length == 0 { seq + 1 } else { known_first };
    let mut lines = String::new();
    for entry in entries {
        seq += 1;
        let line = with_hash(&serde_json::to_string(&Line { seq, entry: entry.clone(), prev })?);
        prev = hash(line.as_bytes());
        lines.push_str(&line);
        lines.push('\n');
    }
    let result = match lines.as_bytes() {
        [] => Ok(()),
        bytes => file.write_all(bytes).and_then(|()| file.sync_data()),
    };
    if result.is_err() {
        // Half a line, from a full disk, would break the chain. Truncation needs no space; if it fails too,
        // the next writer ends the line.
        let _ = file.set_len(length);
    }
    result.with_context(|| format!("writing {}", path.display()))?;
    let end = LogEnd { seq, hash: prev };
    if seq != 0 {
        log.keep(&end);
    }
    anchor::write(&file, path, &Anchor { end, first });
    Ok(())
}

/// Returns an error if the path of a log is, or leads to, anything but a regular file.
pub fn check_path(path: &Path) -> Result<()> {
    let Some(found) = file::obstacle(path) else { return Ok(()) };
    let text = format!(
        "reading the configuration: agent audit: {} is {found}: name a regular file, or a path without a \
         file",
        path.display()
    );
    Err(CliError::new(Code::Usage, text).into())
}

/// Allocates space for an entry of an action that requires one.
pub fn reserve(path: &Path) -> Result<()> {
    let file = open(path)?;
    let length = file.metadata().with_context(|| format!("reading the size of {}", path.display()))?.len();
    match fallocate(&file, FallocateFlags::KEEP_SIZE, length, RESERVED) {
        // Some file systems do not support fallocate(2).
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("reserving space in {}", path.display())),
    }
}

/// Returns true if another process holds the lock of the log.
pub fn is_locked(path: &Path) -> bool {
    let locked = |file: File| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    file::open_to_read(path).is_ok_and(locked)
}

/// The error of a timeout: another process holds the lock of the log.
#[derive(Debug)]
pub struct Locked(Duration);

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another process has held its lock for {:?}", self.0)
    }
}

impl std::error::Error for Locked {}

/// Number and hash of the last line of a log; `None` if there is none, or if the log cannot be read.
pub fn last_line(path: &Path) -> Option<LogEnd> {
    let read = || Some(read_end(&mut file::open_to_read(path).ok()?).ok()?.0);
    anchor::read(path).map(|anchor| anchor.end).or_else(read).filter(|end| end.seq != 0)
}

/// Returns true if nothing was ever written to a log, according to the log and its anchor. A log that cannot
/// be read is not empty.
pub fn is_empty(path: &Path) -> bool {
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => 0,
        Err(_) => return false,
    };
    length == 0 && anchor::read(path).is_none_or(|anchor| anchor.end.seq == 0)
}

fn open(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    file::open(&mut options, path)
}

fn lock(file: &File, path: &Path, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_RETRY),
            Err(Errno::WOULDBLOCK) => {
                return Err(Locked(timeout)).with_context(|| format!("locking {}", path.display()));
            }
            Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }
}

/// Reads the end of a log. Ends a line that a crash left unfinished with a newline, so that it stays visible.
fn finish_last_line(file: &mut File) -> Result<LogEnd> {
    let (end, complete) = read_end(file)?;
    if !complete {
        file.write_all(b"\n")?;
    }
    Ok(end)
}
