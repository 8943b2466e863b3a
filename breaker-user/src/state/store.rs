//! The files of a state directory: two generations of the state, a copy of the last policy, and a lock for
//! the writers.
//!
//! A write creates a new file, synchronises it, and exchanges it with the current file. The name of the state
//! file therefore always refers to a whole state. Each pin root has files of its own, so several loads may
//! share a directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Access, CWD, FlockOperation, RenameFlags, access, flock, renameat_with, statvfs};
use rustix::io::Errno;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use super::contents::Contents;
use crate::file;
use crate::kernel::{PinRoot, pins};

/// Bytes of the largest file that is read: about twenty times the file of a policy with the most scopes.
const MAX_BYTES: u64 = 16 << 20;

/// The state files of a pin root in a state directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    /// Suffix of the file names, which depends on the pin root. Empty for the default pin root.
    suffix: String,
    /// User ids whose files are trusted.
    owners: [u32; 3],
}

/// The result of reading both generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no state file.
    Nothing,
    /// The newest generation is whole.
    Whole(Box<Contents>),
    /// The newest generation is damaged or missing, for this reason; the previous generation is whole.
    Older(Box<Contents>, String),
    /// No generation is whole, for this reason.
    Damaged(String),
}

impl Found {
    /// Returns the newest whole generation.
    pub fn contents(&self) -> Option<&Contents> {
        match self {
            Self::Whole(found) | Self::Older(found, _) => Some(found),
            Self::Nothing | Self::Damaged(_) => None,
        }
    }
}

/// The lock of the writers, held until it is dropped.
pub struct Lock(#[expect(dead_code, reason = "its end is the end of the lock")] File);

impl Store {
    /// Returns the files of a pin root in a directory. The directory need not exist.
    pub fn new(directory: impl Into<PathBuf>, root: &PinRoot) -> Self {
        let default = PinRoot::new(pins::DEFAULT);
        let suffix = if root.path() == default.path() {
            String::new()
        } else {
            let hash = Sha256::digest(root.path().as_os_str().as_encoded_bytes());
            hash.iter().take(8).fold("-".to_owned(), |all, byte| all + &format!("{byte:02x}"))
        };
        // The owner of the parent of the pin root is the user that breaker runs as.
        let parent = root.path().parent().unwrap_or(root.path());
        let me = geteuid().as_raw();
        let owners = [0, me, fs::metadata(parent).map_or(me, |found| found.uid())];
        Self { directory: directory.into(), suffix, owners }
    }

    /// Returns the path of the state file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("state{}", self.suffix))
    }

    /// Returns the path of the previous generation.
    pub fn previous_path(&self) -> PathBuf {
        self.directory.join(format!("state{}.previous", self.suffix))
    }

    /// Returns the path of the copy of the last policy in force.
    pub fn policy_path(&self) -> PathBuf {
        self.directory.join(format!("policy{}.toml", self.suffix))
    }

    /// Reads both generations. Takes no lock, because a writer replaces a file atomically.
    pub fn read(&self) -> Found {
        let newest = self.read_generation(&self.path());
        let previous = self.read_generation(&self.previous_path());
        match (newest, previous) {
            (Ok(Some(newest)), Ok(Some(previous))) if previous.generation >= newest.generation => {
                let found = format!(
                    "it holds write {}, and the generation before it write {}: an older file was put in \
                     its place",
                    newest.generation, previous.generation
                );
                Found::Older(Box::new(previous), found)
            }
            (Ok(Some(newest)), _) => Found::Whole(Box::new(newest)),
            (Ok(None), Ok(None)) => Found::Nothing,
            (Ok(None), Ok(Some(previous))) => Found::Older(Box::new(previous), "it is missing".to_owned()),
            (Err(found), Ok(Some(previous))) => Found::Older(Box::new(previous), found),
            (Ok(None), Err(found)) => {
                Found::Damaged(format!("it is missing, and of the generation before it: {found}"))
            }
            (Err(found), _) => Found::Damaged(found),
        }
    }

    /// Reads one generation; `None` if the file does not exist.
    fn read_generation(&self, path: &Path) -> Result<Option<Contents>, String> {
        match fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(format!("it cannot be looked at ({error})")),
            Ok(_) => {
                let bytes = self.read_bytes(path).map_err(|error| error.root_cause().to_string())?;
                Contents::decode(&bytes).map(Some)
            }
        }
    }

    fn read_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let file = file::open(OpenOptions::new().read(true), path)?;
        let found = file.metadata()?;
        ensure!(self.owners.contains(&found.uid()), "user {} owns it, who is not breaker's", found.uid());
        ensure!(found.mode() & 0o002 == 0, "everybody may write to it");
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= MAX_BYTES, "it is longer than {} MiB", MAX_BYTES >> 20);
        Ok(bytes)
    }

    /// Returns the reason why a write would fail, as far as a check without a write can find it.
    pub fn unwritable(&self) -> Option<String> {
        let directory = self.directory.as_path();
        if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
            return Some(format!(
                "{} cannot be written ({})",
                directory.display(),
                std::io::Error::from(error)
            ));
        }
        let is_full = statvfs(directory).is_ok_and(|found| found.f_blocks != 0 && found.f_bavail == 0);
        is_full.then(|| format!("the file system of {} is full", directory.display()))
    }

    /// Creates the directory and takes the writers' lock.
    ///
    /// # Errors
    /// Fails if the directory cannot be created or written, or if another process holds the lock until the
    /// timeout.
    pub fn lock(&self, timeout: Duration) -> Result<Lock> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o750).create(&self.directory);
        made.with_context(|| format!("creating {}", self.directory.display()))?;
        let path = self.directory.join(format!(".state{}.lock", self.suffix));
        let file =
            file::open(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600), &path)?;
        self.give_to_owner(&file)?;
        let deadline = Instant::now() + timeout;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(Duration::from_millis(2)),
                Err(Errno::WOULDBLOCK) => {
                    bail!("locking {}: another process has held it for {timeout:?}", path.display())
                }
                Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
            }
        }
    }

    /// Replaces the state file. The current file becomes the previous generation if it is whole.
    pub fn write(&self, contents: &Contents, _lock: &Lock) -> Result<()> {
        let path = self.path();
        let is_whole = matches!(self.read_generation(&path), Ok(Some(_)));
        let next = self.write_new_file(&path, &contents.encode()?)?;
        let exchanged = is_whole && renameat_with(CWD, &next, CWD, &path, RenameFlags::EXCHANGE).is_ok();
        let (from, to) = if exchanged { (&next, self.previous_path()) } else { (&next, path.clone()) };
        fs::rename(from, &to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
        self.sync_directory()
    }

    /// Replaces the copy of the policy.
    pub fn write_policy(&self, text: &str, _lock: &Lock) -> Result<()> {
        self.replace(&self.policy_path(), text.as_bytes())
    }

    /// Returns the text of the copy of the policy.
    pub fn policy_text(&self) -> Result<String> {
        let path = self.policy_path();
        let bytes = self.read_bytes(&path).with_context(|| format!("reading {}", path.display()))?;
        String::from_utf8(bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// Reads the resets that wait for a second person, as [`Store::write_pending`] wrote them.
    pub fn pending(&self) -> Result<Vec<u8>> {
        self.read_bytes(&self.pending_path())
    }

    /// Replaces the resets that wait for a second person.
    pub fn write_pending(&self, bytes: &[u8], _lock: &Lock) -> Result<()> {
        self.replace(&self.pending_path(), bytes)
    }

    /// Reads the warnings, as [`Store::write_warnings`] wrote them.
    pub fn warnings(&self) -> Result<Vec<u8>> {
        self.read_bytes(&self.warnings_path())
    }

    /// Replaces the warnings.
    pub fn write_warnings(&self, bytes: &[u8], _lock: &Lock) -> Result<()> {
        self.replace(&self.warnings_path(), bytes)
    }

    /// Reads what the agent knows of its fleet, as [`Store::write_fleet`] wrote it.
    pub fn fleet(&self) -> Result<Vec<u8>> {
        self.read_bytes(&self.fleet_path())
    }

    /// Replaces what the agent knows of its fleet.
    pub fn write_fleet(&self, bytes: &[u8], _lock: &Lock) -> Result<()> {
        self.replace(&self.fleet_path(), bytes)
    }

    /// Replaces a file by one rename.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let next = self.write_new_file(path, bytes)?;
        fs::rename(&next, path).with_context(|| format!("renaming {}", next.display()))?;
        self.sync_directory()
    }

    fn fleet_path(&self) -> PathBuf {
        self.directory.join(format!("fleet{}.json", self.suffix))
    }

    fn warnings_path(&self) -> PathBuf {
        self.directory.join(format!("warnings{}.json", self.suffix))
    }

    fn pending_path(&self) -> PathBuf {
        self.directory.join(format!("pending{}.json", self.suffix))
    }

    /// Returns true if the copy of the policy has this SHA-256 in hex.
    pub fn has_policy(&self, sha256: &str) -> bool {
        let bytes = self.read_bytes(&self.policy_path()).unwrap_or_default();
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        found == sha256
    }

    /// Writes a new file in the directory of another file, and synchronises it.
    fn write_new_file(&self, path: &Path, bytes: &[u8]) -> Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let next = self.directory.join(format!(".{name}.next"));
        // A writer that died may have left its file.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", next.display()));
            }
            _ => {}
        }
        let mut file = file::open(OpenOptions::new().write(true).create_new(true).mode(0o640), &next)?;
        let written = self
            .give_to_owner(&file)
            .and_then(|()| Ok(file.write_all(bytes)?))
            .and_then(|()| Ok(file.sync_all()?));
        if written.is_err() {
            // An incomplete file would occupy space on a full disk.
            let _ = fs::remove_file(&next);
        }
        written.with_context(|| format!("writing {}", next.display()))?;
        Ok(next)
    }

    /// Makes the owner of the directory the owner of a file. The agent may run as another user than the
    /// verbs, and must be able to replace the file.
    fn give_to_owner(&self, file: &File) -> Result<()> {
        let (found, own) = (file.metadata()?, fs::metadata(&self.directory)?);
        if found.uid() != own.uid() && geteuid().is_root() && self.owners.contains(&own.uid()) {
            fchown(file, Some(own.uid()), Some(own.gid())).context("giving it to the directory's owner")?;
        }
        Ok(())
    }

    /// Synchronises the directory, so that its names are on disk.
    fn sync_directory(&self) -> Result<()> {
        let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory.with_context(|| format!("synchronising {}", self.directory.display()))
    }
}
