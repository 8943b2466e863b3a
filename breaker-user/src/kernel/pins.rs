//! The pin root: a directory of the BPF file system that holds a load's maps, program and links. It *is* the state "loaded".
//!
//! It appears and disappears whole: a load fills a directory beside it and renames that. Names hold no dots, which bpffs refuses.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use crate::fault::{Code, Fault};

/// Where a host's breaker is pinned unless said otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/breaker";
/// `BPF_FS_MAGIC` (kernel `magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const BPFFS: &str = "/sys/fs/bpf";

/// The pin root of a load.
#[derive(Clone, Debug)]
pub struct PinRoot {
    path: PathBuf,
}

impl PinRoot {
    /// The root at a path, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something is pinned here.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join(name.to_lowercase())
    }

    /// The pin of the program.
    pub fn program(&self) -> PathBuf {
        self.path.join("program")
    }

    /// The pin of the link to the interface at this position of `Meta::interfaces`.
    pub fn link(&self, position: usize) -> PathBuf {
        self.path.join(format!("link_{position}"))
    }

    /// The directory that a load fills before it takes this root's name.
    pub fn next(&self) -> Self {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path: self.path.with_file_name(format!("{name}_next")) }
    }

    /// Refuses unless something is loaded here.
    pub fn require(&self) -> Result<()> {
        if self.exists() {
            return Ok(());
        }
        let hint = if on_bpffs(&self.path) { "" } else { " (no BPF file system is mounted there)" };
        Err(Fault::new(
            Code::NotLoaded,
            format!("opening {}: nothing is pinned there{hint}: load first with `breaker load`", self.path.display()),
        )
        .into())
    }

    /// Makes the directory, readable by its owner alone. Mounts the BPF file system where a host has none.
    pub fn create(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(&self.path);
        if !on_bpffs(parent) && parent == Path::new(BPFFS) {
            mount("bpf", BPFFS, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
                .with_context(|| format!("mounting the BPF file system at {BPFFS}"))?;
        }
        if !on_bpffs(parent) {
            let text = format!(
                "creating {}: {} is not in a BPF file system: mount one there (`mount -t bpf bpf {}`) or choose another --pin-root",
                self.path.display(),
                parent.display(),
                parent.display()
            );
            return Err(Fault::new(Code::Usage, text).into());
        }
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains('.') {
            let text = format!(
                "creating {}: the BPF file system takes no dots in names: choose another --pin-root",
                self.path.display()
            );
            return Err(Fault::new(Code::Usage, text).into());
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.path)
            .with_context(|| format!("creating {}", self.path.display()))
    }

    /// Takes this root's name for the directory `next`, at once.
    pub fn take_over(&self, next: &Self) -> Result<()> {
        fs::rename(&next.path, &self.path)
            .with_context(|| format!("renaming {} to {}", next.path.display(), self.path.display()))
    }

    /// Removes every pin and the directory. Links that nothing else holds detach with it.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }

    /// Keeps every other load, unload and switch of this root out until it is dropped.
    pub fn lock(&self) -> Result<Lock> {
        let parent = self.path.parent().unwrap_or(&self.path);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits() as i32)
            .open(parent)
            .with_context(|| format!("opening {}", parent.display()))?;
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", parent.display()))?;
        Ok(Lock { _file: file })
    }
}

/// See [`PinRoot::lock`].
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|place| place.exists())
        .is_some_and(|place| statfs(place).is_ok_and(|found| found.f_type == BPF_FS_MAGIC))
}
