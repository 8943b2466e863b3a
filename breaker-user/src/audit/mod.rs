//! The audit log: one JSON object a line, each with the SHA-256 of the line before and of itself, so that no edit, removal or reorder
//! goes unseen. Of lines that are cut off at the end a note of the last hash tells: [`anchor`] keeps one, and whoever wants to be sure of that
//! keeps another elsewhere.
//!
//! Agent and verbs write the same file; a lock on it keeps them in turn. A line is on disk before its writer goes on.

mod anchor;
mod reader;
mod verify;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use anchor::Anchor;
pub use reader::Reader;
pub use verify::{Verified, verify};

use crate::cli_error::{CliError, Code};
use crate::file;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Real user id.
    pub uid: u32,
    /// The person behind it, by name where the name is known.
    pub user: String,
    /// Process id.
    pub pid: u32,
    /// `cli`, `agent` or `kernel`.
    pub via: String,
}

impl Actor {
    /// This process.
    pub fn this(via: &str) -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self { uid, user: person(uid), pid: std::process::id(), via: via.to_owned() }
    }

    /// The kernel program.
    pub fn kernel() -> Self {
        Self { uid: 0, user: "kernel".to_owned(), pid: 0, via: "kernel".to_owned() }
    }
}

/// Who logged in, whatever su and sudo made of them since; where nobody did, who called sudo. Only the kernel is believed, and sudo
/// where its caller is root now: anyone can set a variable.
fn person(uid: u32) -> String {
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    match login.filter(|login| *login != u32::MAX) {
        Some(login) => name(login),
        None if uid == 0 => std::env::var("SUDO_USER").unwrap_or_else(|_| name(uid)),
        None => name(uid),
    }
}

/// The name of a user of this host; of one from elsewhere (LDAP), the number.
fn name(uid: u32) -> String {
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().find_map(of).unwrap_or_else(|| uid.to_string())
}

/// What happened, without its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub time: Timestamp,
    /// What: `tripped`, `reset` and so on.
    pub kind: String,
    /// To which scope; `None` for the host's own doings.
    pub scope: Option<String>,
    /// For which cause.
    pub cause: Option<String>,
    /// By whom.
    pub actor: Actor,
    /// Why, in that person's words.
    pub reason: Option<String>,
    /// Figures.
    pub counts: serde_json::Value,
    /// The policy that was in force.
    pub policy: String,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, RFC 3339, UTC.
    pub time: Timestamp,
    /// Number of the line, from 1.
    pub seq: u64,
    /// What.
    pub kind: String,
    /// To which scope.
    pub scope: Option<String>,
    /// For which cause.
    pub cause: Option<String>,
    /// By whom.
    pub actor: Actor,
    /// Why.
    pub reason: Option<String>,
    /// Figures.
    pub counts: serde_json::Value,
    /// The policy that was in force.
    pub policy: String,
    /// SHA-256 of the line before, in hex; of nothing for the first. The line's own stands behind it as `hash`.
    pub prev: String,
}

/// How long to wait for the other writers.
const PATIENCE: Duration = Duration::from_secs(3);
/// Room that [`reserve`] sets aside, bytes: more than an entry of the verbs takes.
const ROOM: u64 = 8 * 1024;

/// Appends entries, in one turn, once the other writers have had theirs.
pub fn append(path: &Path, entries: &[Entry]) -> Result<()> {
    append_within(path, entries, PATIENCE)
}

/// The same, for one who can wait only so long for the others.
pub fn append_within(path: &Path, entries: &[Entry], patience: Duration) -> Result<()> {
    let mut file = open(path)?;
    lock(&file, path, patience)?;
    let end = end(&mut file).with_context(|| format!("reading the end of {}", path.display()))?;
    let length = file.metadata().with_context(|| format!("asking after {}", path.display()))?.len();
    let anchor = anchor::read(path);
    let known = anchor.as_ref().map_or(0, |anchor| anchor.first);
    // Where the log was rotated, or its end is gone, it goes on behind what was written last.
    let written = anchor.map(|anchor| anchor.end).filter(|written| written.seq > end.seq);
    let End { mut seq, hash: mut prev } = written.unwrap_or(end);
    let first = if length == 0 { seq + 1 } else { known };
    let mut lines = String::new();
    for entry in entries {
        seq += 1;
        let line = sealed(&serde_json::to_string(&line(entry, seq, prev))?);
        prev = hash(line.as_bytes());
        lines.push_str(&line);
        lines.push('\n');
    }
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line of a full disk would break the chain for good. Truncating needs no room; where it fails too, `end` copes.
        let _ = file.set_len(length);
    }
    written.with_context(|| format!("writing {}", path.display()))?;
    anchor::write(&file, path, &Anchor { end: End { seq, hash: prev }, first });
    Ok(())
}

/// Refuses a policy whose log is, or leads to, something else than a file.
pub fn require(path: &Path) -> Result<()> {
    let Some(found) = file::obstacle(path) else { return Ok(()) };
    let text = format!(
        "reading the configuration: agent audit: {} is {found}: name a regular file, or none yet",
        path.display()
    );
    Err(CliError::new(Code::Usage, text).into())
}

/// Sets room aside for an entry: for what must not be done without one.
pub fn reserve(path: &Path) -> Result<()> {
    let file = open(path)?;
    let length = file.metadata().with_context(|| format!("asking after {}", path.display()))?.len();
    match fallocate(&file, FallocateFlags::KEEP_SIZE, length, ROOM) {
        // A file system that cannot set room aside is no reason to refuse.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("setting room aside in {}", path.display())),
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    file::open(&mut options, path)
}

/// True while another process writes, or holds the lock for whatever reason.
pub fn is_locked(path: &Path) -> bool {
    let locked = |file: File| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    file::open_to_read(path).is_ok_and(locked)
}

/// Another process has held the lock of the log for so long.
#[derive(Debug)]
pub struct Locked(Duration);

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another process has held its lock for {:?}", self.0)
    }
}

impl std::error::Error for Locked {}

fn lock(file: &File, path: &Path, patience: Duration) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(Duration::from_millis(2)),
            Err(Errno::WOULDBLOCK) => {
                return Err(Locked(patience)).with_context(|| format!("locking {}", path.display()));
            }
            Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }
}

fn line(entry: &Entry, seq: u64, prev: String) -> Line {
    let Entry { time, kind, scope, cause, actor, reason, counts, policy } = entry.clone();
    Line { time, seq, kind, scope, cause, actor, reason, counts, policy, prev }
}

/// An object with one more member, `hash`: the SHA-256 of all that stands before it. Without it the last line could be edited unseen.
fn sealed(object: &str) -> String {
    let open = object.strip_suffix('}').unwrap_or(object);
    format!("{open},\"hash\":\"{}\"}}", hash(open.as_bytes()))
}

/// True for what [`sealed`] made, to the byte.
fn is_sealed(text: &[u8]) -> bool {
    const SEAL: usize = ",\"hash\":\"\"}".len() + 64;
    let open = std::str::from_utf8(&text[..text.len().saturating_sub(SEAL)]);
    open.is_ok_and(|open| sealed(open).as_bytes() == text)
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last line of a log: its number and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// 0 where there is no line.
    pub seq: u64,
    /// SHA-256 in hex, of nothing where there is no line.
    pub hash: String,
}

/// The end of a log. A line that a crash left unfinished is closed with a newline and stays visible.
fn end(file: &mut File) -> Result<End> {
    let (end, whole) = tail_end(file)?;
    if !whole {
        file.write_all(b"\n")?;
    }
    Ok(end)
}

/// The end of a log, and whether its last line is finished.
fn tail_end(file: &mut File) -> Result<(End, bool)> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut size = 64 * 1024;
    loop {
        let from = length.saturating_sub(size);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(size).read_to_end(&mut tail)?;
        if let Some(found) = last(&tail, from == 0) {
            return Ok((found, tail.last().is_none_or(|byte| *byte == b'\n')));
        }
        if size > LONGEST_LINE {
            bail!("no event is in its last {size} bytes: this is no audit log: move it away");
        }
        size *= 8;
    }
}

/// Number and hash of the last line of a log, or of the tail of one; `None` where more of it is needed.
fn last(tail: &[u8], whole: bool) -> Option<End> {
    let mut lines = tail.split(|&byte| byte == b'\n');
    if !whole {
        // The rest of a line.
        lines.next();
    }
    let mut lines = lines.rev().filter(|line| !line.is_empty());
    let Some(last) = lines.next() else { return whole.then(|| End { seq: 0, hash: hash(b"") }) };
    let number =
        std::iter::once(last).chain(lines).find_map(|line| serde_json::from_slice::<Line>(line).ok());
    match number {
        None if !whole => None,
        number => Some(End { seq: number.map_or(0, |line| line.seq), hash: hash(last) }),
    }
}

/// Bytes of the longest line that is read: what is longer is no audit log.
const LONGEST_LINE: u64 = 16 << 20;

/// Reads a line with its newline, in place of what was in the buffer; without one where that is the end. False where there is no more.
fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let length = file.take(LONGEST_LINE + 1).read_until(b'\n', line)?;
    if length as u64 > LONGEST_LINE {
        let found = format!("a line of more than {} MiB: this is no audit log", LONGEST_LINE >> 20);
        return Err(io::Error::new(ErrorKind::InvalidData, found));
    }
    Ok(length != 0)
}
