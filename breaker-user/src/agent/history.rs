//! What the audit log tells of the past, so that figures survive a restart of the agent: trips, and losses already told of.
//!
//! Read on from where the last reading ended; a log that was rotated is read from its start, and what it had told stays counted.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use breaker_common::abi::cause;

use crate::audit::Line;
use crate::config::Scopes;

/// Trips of a scope, by cause in the order of [`cause::NAMES`].
pub type Trips = [u64; cause::NAMES.len()];

/// See the module.
pub struct History {
    path: PathBuf,
    /// Which file, and how much of it was read.
    inode: u64,
    read: u64,
    loaded_at: u64,
    trips: HashMap<String, Trips>,
    lost: u64,
}

impl History {
    /// The history of a load that is told in this log. Reads nothing yet.
    pub fn new(path: PathBuf, names: &Scopes, loaded_at: u64) -> Self {
        let mut made = Self { path, inode: 0, read: 0, loaded_at, trips: HashMap::new(), lost: 0 };
        made.know(names);
        made
    }

    /// Counts the trips of these scopes too, from here on.
    pub fn know(&mut self, names: &Scopes) {
        for scope in names.iter() {
            self.trips.entry(names.name(scope).to_string()).or_default();
        }
    }

    /// Trips of a scope that the log tells of.
    pub fn trips(&self, scope: &str) -> Trips {
        self.trips.get(scope).copied().unwrap_or_default()
    }

    /// The kernel's count of lost events when the log last told of some, since the load.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Reads what has been added.
    pub fn read_on(&mut self) -> Result<()> {
        let what = || format!("reading {}", self.path.display());
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.with_context(what)?,
        };
        let found = file.metadata().with_context(what)?;
        if found.ino() != self.inode || found.len() < self.read {
            (self.inode, self.read) = (found.ino(), 0);
        }
        let mut file = BufReader::new(file);
        file.seek(SeekFrom::Start(self.read)).with_context(what)?;
        let mut line = Vec::new();
        // A line without its end is still being written: it is for the next time.
        while file.read_until(b'\n', &mut line).with_context(|| format!("reading {}", self.path.display()))? != 0
            && line.ends_with(b"\n")
        {
            self.read += line.len() as u64;
            self.take(&line);
            line.clear();
        }
        Ok(())
    }

    fn take(&mut self, text: &[u8]) {
        // Most lines are neither, and a log may be long.
        let Ok(text) = std::str::from_utf8(text) else { return };
        if !text.contains("\"tripped\"") && !text.contains("\"events_lost\"") {
            return;
        }
        let Ok(line) = serde_json::from_str::<Line>(text) else { return };
        let lost = line.counts.get("ring_since_load").and_then(|lost| lost.as_u64());
        match (line.kind.as_str(), lost) {
            ("tripped", _) => self.trip(&line),
            ("events_lost", Some(lost)) if line.counts.get("loaded_at") == Some(&self.loaded_at.into()) => {
                self.lost = lost
            }
            _ => {}
        }
    }

    fn trip(&mut self, line: &Line) {
        let Some(trips) = line.scope.as_ref().and_then(|scope| self.trips.get_mut(scope)) else { return };
        for name in line.cause.iter().flat_map(|causes| causes.split(',')) {
            let position = cause::NAMES.iter().position(|(_, known)| *known == name);
            if let Some(count) = position.and_then(|position| trips.get_mut(position)) {
                *count += 1;
            }
        }
    }
}
