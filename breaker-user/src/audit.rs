//! The audit log: one JSON object a line, each with the SHA-256 of the line before, so that no edit, removal or reorder goes unseen.
//!
//! Agent and verbs write the same file; a lock on it keeps them in turn. A line is on disk before its writer goes on.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Real user id.
    pub uid: u32,
    /// Its name, or the number again; with the user who became root by sudo.
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
        let known = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
        Self { uid, user: known.unwrap_or_else(|_| uid.to_string()), pid: std::process::id(), via: via.to_owned() }
    }

    /// The kernel program.
    pub fn kernel() -> Self {
        Self { uid: 0, user: "kernel".to_owned(), pid: 0, via: "kernel".to_owned() }
    }
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
    /// SHA-256 of the line before, in hex; of nothing for the first.
    pub prev: String,
}

/// Appends entries, in one turn.
pub fn append(path: &Path, entries: &[Entry]) -> Result<()> {
    let mut file = open(path)?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    let (mut seq, mut prev) = end(&mut file).with_context(|| format!("reading the end of {}", path.display()))?;
    let length = file.metadata().with_context(|| format!("asking after {}", path.display()))?.len();
    let mut lines = String::new();
    for entry in entries {
        seq += 1;
        let line = serde_json::to_string(&line(entry, seq, prev))?;
        prev = hash(line.as_bytes());
        lines.push_str(&line);
        lines.push('\n');
    }
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line of a full disk would break the chain for good. Truncating needs no room; where it fails too, `end` copes.
        let _ = file.set_len(length);
    }
    written.with_context(|| format!("writing {}", path.display()))
}

fn open(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    options.open(path).with_context(|| format!("opening {}", path.display()))
}

fn line(entry: &Entry, seq: u64, prev: String) -> Line {
    let Entry { time, kind, scope, cause, actor, reason, counts, policy } = entry.clone();
    Line { time, seq, kind, scope, cause, actor, reason, counts, policy, prev }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Number and hash of the last whole line. What a crash left unfinished behind it is closed with a newline and stays visible.
fn end(file: &mut File) -> Result<(u64, String)> {
    const TAIL: u64 = 64 * 1024;
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok((0, hash(b"")));
    }
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if tail.last() != Some(&b'\n') {
        file.write_all(b"\n")?;
        tail.push(b'\n');
    }
    let mut lines = tail.split(|&byte| byte == b'\n').rev().filter(|line| !line.is_empty());
    let Some(last) = lines.next() else { return Ok((0, hash(b""))) };
    let seq = std::iter::once(last).chain(lines).find_map(|line| serde_json::from_slice::<Line>(line).ok());
    Ok((seq.map_or(0, |line| line.seq), hash(last)))
}

/// Every line of a log, as it stands.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    BufReader::new(file).lines().collect::<Result<_, _>>().with_context(|| format!("reading {}", path.display()))
}

/// Checks numbers and hashes of a log. Returns how many lines it has; the error names the first that is wrong.
pub fn verify(path: &Path) -> Result<u64> {
    let (mut seq, mut prev) = (0, hash(b""));
    for (number, text) in read(path)?.iter().enumerate() {
        let place = format!("verifying {}: line {}", path.display(), number + 1);
        let line: Line = serde_json::from_str(text).with_context(|| format!("{place}: it is no event"))?;
        if line.prev != prev {
            bail!("{place}: its `prev` is not the hash of the line before: a line was changed, removed or moved");
        }
        if line.seq != seq + 1 {
            bail!(
                "{place}: it has number {} where {} must follow: a line was changed, removed or moved",
                line.seq,
                seq + 1
            );
        }
        (seq, prev) = (line.seq, hash(text.as_bytes()));
    }
    Ok(seq)
}
