//! The pin root: a directory of the BPF file system that holds a load's maps, program and links. It *is* the state "loaded".
//!
//! It appears and disappears whole: a load fills a directory beside it and renames that, an unload goes the other way. What dies in
//! between leaves its pins there, and the next load or unload removes them. Names hold no dots, which bpffs refuses.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{attachment, bpffs};
use crate::cli_error::{CliError, Code};

/// Where a host's breaker is pinned unless said otherwise: a BPF file system of its own, in which nobody else can take a name.
pub const DEFAULT: &str = "/run/breaker/bpf";
/// The pin root in that file system. A load comes together beside its root, so a mount point is none.
const OWN: &str = "host";

/// The pin root of a load.
#[derive(Clone, Debug)]
pub struct PinRoot {
    path: PathBuf,
    /// The load may end with a mount namespace.
    private: bool,
}

impl PinRoot {
    /// The root at a path, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // What stands beside it is needed too, and a bare name has no parent.
        let path = std::path::absolute(&path).unwrap_or(path);
        let path = if path == Path::new(DEFAULT) { path.join(OWN) } else { path };
        Self { path, private: false }
    }

    /// The same root, whose load may end with the mount namespace that its pins are in.
    pub fn private(self) -> Self {
        Self { private: true, ..self }
    }

    /// Why what is pinned here ends before the host does, unless that is allowed: its file system is in a mount namespace of its own.
    pub fn private_mount_problem(&self) -> Option<String> {
        let parent = self.path.parent().unwrap_or(&self.path);
        if self.private || !bpffs::is_private(parent) {
            return None;
        }
        Some(format!(
            "{} is in a mount namespace of its own: what is pinned there ends with that",
            self.path.display()
        ))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something is pinned here.
    pub fn exists(&self) -> bool {
        self.holds().is_ok_and(|holds| holds)
    }

    /// Whether something is pinned here; an error where that cannot be seen. An empty directory holds nothing.
    fn holds(&self) -> io::Result<bool> {
        match fs::read_dir(&self.path) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join(name.to_lowercase())
    }

    /// The pin of the program.
    pub fn program(&self) -> PathBuf {
        self.path.join("program")
    }

    /// The pin of the program that reads what comes in.
    pub fn inbound_program(&self) -> PathBuf {
        self.path.join("program_inbound")
    }

    /// The pin of the program for interfaces without a link header.
    pub fn program_ip(&self) -> PathBuf {
        self.path.join("program_ip")
    }

    /// The pin of the one that reads what comes in at those.
    pub fn inbound_program_ip(&self) -> PathBuf {
        self.path.join("program_inbound_ip")
    }

    /// The pin of its link to the interface at this position of `Meta::interfaces`.
    pub fn inbound_link(&self, position: usize) -> PathBuf {
        self.path.join(format!("link_inbound_{position}"))
    }

    /// The pin of the link to the interface at this position of `Meta::interfaces`.
    pub fn link(&self, position: usize) -> PathBuf {
        self.path.join(format!("link_{position}"))
    }

    /// Says, by being there, that the load itself added the qdisc of the interface at this position.
    pub fn qdisc(&self, position: usize) -> PathBuf {
        self.path.join(format!("qdisc_{position}"))
    }

    /// Refuses unless something is loaded here.
    pub fn require(&self) -> Result<()> {
        if self.holds().with_context(|| format!("opening {}", self.path.display()))? {
            return Ok(());
        }
        let hint = if bpffs::holds(&self.path) { "" } else { " (and no BPF file system is mounted there)" };
        let elsewhere = attachment::any_breaker().map_or_else(String::new, |id| {
            format!(
                " (a breaker's program, id {id}, is loaded: under another pin root, or one that another mount hides: see `findmnt -t bpf`)"
            )
        });
        let text = format!(
            "opening {}: nothing is loaded there{hint}: load first with `breaker load`, or name another place with --pin-root{elsewhere}",
            self.path.display()
        );
        Err(CliError::new(Code::NotLoaded, text).into())
    }

    /// Takes the place beside this root where pins come together before a load and go apart after an unload, and keeps every other
    /// load, unload and reload of this root out until it is dropped.
    pub fn claim(&self) -> Result<Claim> {
        self.prepare()?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let path = self.path.with_file_name(format!("{name}_next"));
        loop {
            if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&path)
                && error.kind() != ErrorKind::AlreadyExists
            {
                return Err(error).with_context(|| format!("creating {}", path.display()));
            }
            // Between any two of these lines another may have taken it, or have removed it after its end.
            let directory = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                directory => directory.with_context(|| format!("opening {}", path.display()))?,
            };
            require_own(&directory, &path)?;
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&directory, &path) => return Ok(Claim { path, _directory: directory }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let text = format!(
                        "taking {}: another load, unload or reload of it is at work: see `breaker status` when it is done",
                        self.path.display()
                    );
                    return Err(CliError::new(Code::Refused, text).into());
                }
                Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
            }
        }
    }

    /// Sees that this root can be made: in a BPF file system, which is mounted where a host has none, under a name that it takes.
    fn prepare(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(&self.path);
        bpffs::mount_missing(parent, self.private)?;
        if !bpffs::holds(parent) || !parent.is_dir() {
            let text = format!(
                "creating {}: {} is no directory of a BPF file system: mount one there (`mount -t bpf bpf {}`) or choose another \
                 --pin-root",
                self.path.display(),
                parent.display(),
                parent.display()
            );
            return Err(CliError::new(Code::Usage, text).into());
        }
        if self.path.is_dir() {
            let directory =
                File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
            require_own(&directory, &self.path)?;
        }
        let name = self.path.file_name().unwrap_or_default();
        if name.is_empty() || name.as_bytes().contains(&b'.') {
            let text = format!(
                "creating {}: the BPF file system takes no dots in names: choose another --pin-root",
                self.path.display()
            );
            return Err(CliError::new(Code::Usage, text).into());
        }
        Ok(())
    }

    /// Makes the directory, readable by its owner alone.
    pub fn create(&self) -> Result<()> {
        directory(&self.path)?;
        directory(&self.lock_path())
    }

    /// Takes over the name of `to`, where nothing may be, at once.
    pub fn rename(&self, to: &Self) -> Result<()> {
        fs::rename(&self.path, &to.path)
            .with_context(|| format!("renaming {} to {}", self.path.display(), to.path.display()))
    }

    /// Removes every pin and the directory. Links that nothing else holds detach with it.
    pub fn remove(&self) -> Result<()> {
        let removed =
            if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        removed.with_context(|| format!("removing {}", self.path.display()))
    }

    /// Keeps every other reset, and a reload, out until it is dropped.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.lock_path();
        let directory = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        flock(&directory, FlockOperation::LockExclusive)
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(Lock { _directory: directory })
    }

    /// What [`PinRoot::lock`] locks: inside the root, for anyone may lock a directory that anyone may open. The root itself is the
    /// agent's to lock.
    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }
}

/// Makes a directory. The BPF file system takes those and pins, and nothing else.
pub fn directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("creating {}", path.display()))
}

/// See [`PinRoot::claim`].
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _directory: File,
}

impl Claim {
    /// Roots that a load or an unload left here when it died.
    pub fn leftovers(&self) -> Result<Vec<PinRoot>> {
        let entries = fs::read_dir(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        entries.map(|entry| Ok(PinRoot::new(entry?.path()))).collect()
    }

    /// The root that is made or taken apart here.
    pub fn root(&self) -> PinRoot {
        PinRoot::new(self.path.join("pins"))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What could not be removed from it stays in it, for the next to see.
        let _ = fs::remove_dir(&self.path);
    }
}

/// See [`PinRoot::lock`].
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// True while this open directory is the one at the path.
fn is_at(directory: &File, path: &Path) -> bool {
    let id = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    id(directory.metadata()).is_some_and(|open| id(fs::metadata(path)) == Some(open))
}

/// Refuses a directory of somebody else, who could keep breaker out of it, or change what is in it. Root may take over any user's load.
fn require_own(directory: &File, path: &Path) -> Result<()> {
    let owner = directory.metadata().with_context(|| format!("asking after {}", path.display()))?.uid();
    let (me, loaded) = (geteuid().as_raw(), path.join("meta").exists() || path.join("pins").exists());
    if owner == me || owner == 0 || (me == 0 && loaded) {
        return Ok(());
    }
    let text = format!(
        "taking {}: user {owner} has made it, and could change what is in it: remove it (`rm -r {}`), or choose a --pin-root where nobody \
         else may write, such as {DEFAULT}",
        path.display(),
        path.display()
    );
    Err(CliError::new(Code::Refused, text).into())
}
