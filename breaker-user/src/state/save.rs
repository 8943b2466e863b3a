//! Writes the state file from the state in the kernel.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::Timespec;

use super::contents::{AgentRun, AuditEnd, Contents};
use super::now;
use super::plan::merge;
use super::store::Store;
use crate::background;
use crate::config::{Policy, Word};
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, Switchboard, durable};
use crate::load_log::LoadLog;

/// How long a writer waits for other writers.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a trip waits for another writer that holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a trip waits for the disk.
const DISK_TIMEOUT: Duration = Duration::from_millis(250);
/// Report of the background process: another writer holds the lock.
const BUSY: &[u8] = b"busy";
/// Report of the background process: it has the lock.
const LOCKED: &[u8] = b"locked";
/// Report of the background process: the state is on disk. Any other text is an error.
const DONE: &[u8] = b"done";
/// Most bytes of a report.
const MAX_REPORT: usize = 512;
/// How long the background process waits for the lock.
const LATER: Duration = Duration::from_secs(600);

/// The occasion of a write.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// Switches, arms or totals may have changed.
    Changed,
    /// A policy was put in force, by a load.
    Loaded(&'a Policy),
    /// A policy was put in force, by a reload.
    Reloaded(&'a Policy),
    /// What is loaded was removed by `unload`.
    Unloaded,
    /// An agent begins to write.
    AgentStarted,
    /// The agent ends.
    AgentEnded,
}

/// The result of a write with a time limit.
#[derive(Debug)]
pub enum Saved {
    /// The state is on disk.
    Done,
    /// A background process is still writing.
    Later,
}

/// Returns the state files of a load.
pub fn store(board: &Switchboard) -> Store {
    Store::new(PathBuf::from(trim_padding(&board.meta().state)), board.root())
}

/// Writes the state of a load.
pub fn save(breaker: &Breaker, act: Act) -> Result<()> {
    save_patiently(breaker, act, PATIENCE, |_| {})
}

fn save_patiently(breaker: &Breaker, act: Act, patience: Duration, report: impl Fn(&[u8])) -> Result<()> {
    let store = store(breaker);
    let lock = store.lock(Duration::ZERO).or_else(|_| {
        report(BUSY);
        store.lock(patience)
    })?;
    report(LOCKED);
    let found = store.read();
    // Read under the lock, so that the last writer writes the newest state of the kernel.
    let states = durable::read(breaker).context("reading the switches")?;
    let before = found.contents();
    let root = breaker.root().path().display().to_string();
    let mut next = Contents::empty(root, now::boot_id());
    if let Some(before) = before {
        next.generation = before.generation;
        next.agent = before.agent;
        next.unclean_boot = before.unclean_boot.clone();
    }
    next.generation += 1;
    // A write during or after an `unload` must not mark the load as loaded again.
    next.loaded = match act {
        Act::Unloaded => false,
        Act::Loaded(_) | Act::Reloaded(_) | Act::AgentStarted => true,
        Act::Changed | Act::AgentEnded => before.is_none_or(|before| before.loaded),
    };
    next.policy = trim_padding(&breaker.policy().name);
    next.policy_sha256 = breaker.policy().sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    next.audit = LoadLog::open(breaker).last_line().map(|end| AuditEnd { seq: end.seq, hash: end.hash });
    next.scopes = merge(before, &states, now::today());
    match act {
        Act::AgentStarted => next.agent = AgentRun::Running,
        Act::AgentEnded => next.agent = AgentRun::Ended,
        Act::Loaded(_) if next.agent == AgentRun::Running => next.agent = AgentRun::Ended,
        _ => {}
    }
    if let Act::Loaded(policy) | Act::Reloaded(policy) = act {
        next.unclean_boot = policy.host().unclean_boot.word().to_owned();
        if !store.has_policy(&policy.sha256_hex()) {
            store.write_policy(policy.text(), &lock)?;
        }
    }
    store.write(&next, &lock)
}

/// Writes the state of the load in a process of its own.
///
/// Returns after at most `DISK_TIMEOUT`, and at most `LOCK_TIMEOUT` longer if another writer holds the lock,
/// so that neither a lock nor a disk delays a trip.
pub fn save_in_background(breaker: &Breaker) -> Result<Saved> {
    // In packet mode each read returns one message (pipe(2), O_DIRECT).
    let (reader, writer) = pipe_with(PipeFlags::DIRECT | PipeFlags::CLOEXEC).context("making a pipe")?;
    let writer = File::from(writer);
    background::run(|| {
        // The result is ignored: the parent may have stopped waiting.
        let report = |text: &[u8]| drop((&writer).write_all(&text[..text.len().min(MAX_REPORT)]));
        match save_patiently(breaker, Act::Changed, LATER, report) {
            Ok(()) => report(DONE),
            Err(error) => report(format!("{error:#}").as_bytes()),
        }
    })
    .context("starting a process")?;
    drop(writer);
    await_report(&mut File::from(reader))
}

/// Reads the reports of the background process until the state is on disk, an error, or a timeout.
fn await_report(reader: &mut File) -> Result<Saved> {
    let disk_deadline = Instant::now() + DISK_TIMEOUT;
    let mut deadline = disk_deadline;
    let mut report = [0; MAX_REPORT];
    loop {
        if !is_readable(reader, deadline.saturating_duration_since(Instant::now()))? {
            return Ok(Saved::Later);
        }
        let length = reader.read(&mut report).context("reading the result of the write")?;
        match &report[..length] {
            BUSY => deadline = disk_deadline.min(Instant::now() + LOCK_TIMEOUT),
            LOCKED => deadline = disk_deadline + LOCK_TIMEOUT,
            DONE => return Ok(Saved::Done),
            b"" => bail!("the process that writes it has died"),
            error => return Err(anyhow!(String::from_utf8_lossy(error).into_owned())),
        }
    }
}

/// Returns true once there is data or the end of the data, false after the timeout.
fn is_readable(reader: &File, timeout: Duration) -> Result<bool> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready.context("waiting for the write")? != 0),
        }
    }
}
