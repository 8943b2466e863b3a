//! Reads a log as it grows and is rotated.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::chain::next_line;
use crate::file;

/// Bytes at the start of a file that identify it: they contain number, time and hash of its first line.
const HEAD: usize = 512;

/// A reader that remembers its position.
pub struct Reader {
    path: PathBuf,
    open: Option<Open>,
    /// Bytes at the end of the first file that are read; `None` for all.
    tail: Option<u64>,
}

/// The file that is being read. It stays open when it is renamed.
struct Open {
    file: File,
    read: u64,
    head: Vec<u8>,
}

impl Reader {
    /// Makes a reader at the start of the log, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None, tail: None }
    }

    /// Makes a reader of the last complete lines of the log, at most `bytes` of them, and of later lines.
    pub fn of_tail(path: PathBuf, bytes: u64) -> Self {
        Self { path, open: None, tail: Some(bytes) }
    }

    /// Path of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the complete lines that were added since the last call; an unfinished line is still being
    /// written. Reads a renamed file to its end and then the new file, and a truncated file from its start.
    pub fn read_new(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let what = format!("reading {}", self.path.display());
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None if !self.path.exists() => return Ok(()),
                None => {
                    let file = file::open_to_read(&self.path)?;
                    let read = self.tail.take().map_or(Ok(0), |tail| line_start(&file, tail));
                    let read = read.with_context(|| what.clone())?;
                    self.open.insert(Open { file, read, head: Vec::new() })
                }
            };
            open.read_new(&mut take).with_context(|| what.clone())?;
            let own = open.file.metadata().with_context(|| what.clone())?;
            match fs::metadata(&self.path) {
                // The old file was renamed, and the new one does not exist yet.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Ok(found) if (found.dev(), found.ino()) != (own.dev(), own.ino()) => self.open = None,
                _ => return Ok(()),
            }
        }
    }
}

impl Open {
    fn read_new(&mut self, take: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut head = vec![0; HEAD];
        let length = read_start(&self.file, &mut head)?;
        head.truncate(length);
        if self.file.metadata()?.len() < self.read || !head.starts_with(&self.head) {
            self.read = 0;
        }
        self.head = head;
        let mut file = BufReader::new(&self.file);
        file.seek(SeekFrom::Start(self.read))?;
        let mut line = Vec::new();
        while next_line(&mut file, &mut line)? {
            let Some(text) = line.strip_suffix(b"\n") else { break };
            self.read += line.len() as u64;
            take(text)?;
        }
        Ok(())
    }
}

/// The position of the first line that starts in the last bytes of a file.
fn line_start(file: &File, tail: u64) -> Result<u64> {
    let Some(before) = file.metadata()?.len().checked_sub(tail + 1) else { return Ok(0) };
    let mut rest = BufReader::new(file);
    rest.seek(SeekFrom::Start(before))?;
    let mut line = Vec::new();
    next_line(&mut rest, &mut line)?;
    Ok(before + line.len() as u64)
}

/// Fills the buffer with the first bytes of a file, and returns their number.
fn read_start(file: &File, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}
