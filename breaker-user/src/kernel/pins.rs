//! The pin root: a directory in a BPF file system with the pins of a load's maps, programs and links.
//! Something is loaded exactly while it exists.
//!
//! A load fills a directory beside the pin root and renames that directory. An unload does the reverse. A
//! load or unload that dies in between leaves its pins in that directory, and the next one removes them.
//! Names have no dots: bpffs refuses dots.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{bpffs, loaded_programs};
use crate::cli_error::{CliError, Code};

/// The default of `--pin-root`: a BPF file system of breaker alone, in which no other user can make a name.
pub const DEFAULT: &str = bpffs::OWN_MOUNT;
/// Name of the pin root in that file system. A mount point cannot be a pin root: a load is built beside its
/// root.
const DEFAULT_NAME: &str = "host";

/// The pin root of a load.
#[derive(Clone, Debug)]
pub struct PinRoot {
    path: PathBuf,
    /// The load may end with its mount namespace.
    private: bool,
    /// True if the program paths are those of the programs that replace the old programs in an upgrade.
    successors: bool,
}

impl PinRoot {
    /// The root at a path. The path need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // A relative name has no parent, which `claim` needs.
        let path = std::path::absolute(&path).unwrap_or(path);
        let path = if path == Path::new(DEFAULT) { path.join(DEFAULT_NAME) } else { path };
        Self { path, private: false, successors: false }
    }

    /// The same root, for a load that may end with the mount namespace of its pins.
    pub fn private(self) -> Self {
        Self { private: true, ..self }
    }

    /// Returns true if the load may end with the mount namespace of its pins.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Returns a text if the pins here end before the host does, because their file system is in a private
    /// mount namespace. Returns `None` if [`PinRoot::private`] allows this.
    pub fn private_mount_problem(&self) -> Option<String> {
        let parent = self.path.parent().unwrap_or(&self.path);
        if self.private || !bpffs::is_private(parent) {
            return None;
        }
        Some(format!("{} is in a mount namespace of its own: pins there end with it", self.path.display()))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if something is pinned here.
    pub fn exists(&self) -> bool {
        self.has_pins().is_ok_and(|has_pins| has_pins)
    }

    /// Returns true if this process may not read the pin root.
    pub fn is_closed(&self) -> bool {
        self.has_pins().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    /// Returns true if the directory has an entry. Fails if it cannot be read.
    fn has_pins(&self) -> io::Result<bool> {
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

    /// Returns the same root, with the paths of the programs that replace the old programs in an upgrade.
    pub fn successors(&self) -> Self {
        Self { successors: true, ..self.clone() }
    }

    /// Returns the directory in which a load, or an upgrade to another layout, builds its pins.
    pub fn staged(&self) -> Self {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Self { path: self.path.with_file_name(format!("{name}_next")).join("pins"), ..self.clone() }
    }

    fn program_pin(&self, name: &str) -> PathBuf {
        let pin = self.path.join(name);
        if self.successors { successor(&pin) } else { pin }
    }

    /// Returns the pins of all programs. A load may lack some of them.
    pub fn programs(&self) -> [PathBuf; 4] {
        [self.program(), self.program_ip(), self.inbound_program(), self.inbound_program_ip()]
    }

    /// The pin of the enforcing program.
    pub fn program(&self) -> PathBuf {
        self.program_pin("program")
    }

    /// The pin of the program that reads inbound traffic.
    pub fn inbound_program(&self) -> PathBuf {
        self.program_pin("program_inbound")
    }

    /// The pin of the enforcing program for interfaces without a link header.
    pub fn program_ip(&self) -> PathBuf {
        self.program_pin("program_ip")
    }

    /// The pin of the program that reads inbound traffic at interfaces without a link header.
    pub fn inbound_program_ip(&self) -> PathBuf {
        self.program_pin("program_inbound_ip")
    }

    /// The pin of the link for inbound traffic of the interface at this position of `Meta::interfaces`.
    pub fn inbound_link(&self, position: usize) -> PathBuf {
        self.path.join(format!("link_inbound_{position}"))
    }

    /// The pin of the enforcing link of the interface at this position of `Meta::interfaces`.
    pub fn link(&self, position: usize) -> PathBuf {
        self.path.join(format!("link_{position}"))
    }

    /// A directory that exists if the load itself added the qdisc of the interface at this position.
    pub fn qdisc(&self, position: usize) -> PathBuf {
        self.path.join(format!("qdisc_{position}"))
    }

    /// Fails if nothing is loaded here.
    pub fn require(&self) -> Result<()> {
        if self.has_pins().with_context(|| format!("opening {}", self.path.display()))? {
            return Ok(());
        }
        let hint = if bpffs::holds(&self.path) { "" } else { " (and no BPF file system is mounted there)" };
        let elsewhere = loaded_programs::any_breaker().map_or_else(String::new, |id| {
            format!(
                " (a breaker's program, id {id}, is loaded: under another pin root, or under one that a \
                 mount hides: see `findmnt -t bpf`)"
            )
        });
        let text = format!(
            "opening {}: nothing is loaded there{hint}: load first with `breaker load`, or choose another \
             --pin-root{elsewhere}",
            self.path.display()
        );
        Err(CliError::new(Code::NotLoaded, text).into())
    }

    /// Claims the directory beside this root where a load is built and an unload is taken apart. Keeps every
    /// other load, unload and reload of this root out until the claim is dropped.
    ///
    /// # Errors
    /// Fails at once if another claim exists.
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
            // At each step another process may have claimed the directory, or have removed it at the end of
            // its claim.
            let directory = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                directory => directory.with_context(|| format!("opening {}", path.display()))?,
            };
            require_own(&directory, &path)?;
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_same_directory(&directory, &path) => {
                    return Ok(Claim { path, _directory: directory });
                }
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let text = format!(
                        "taking {}: another load, unload or reload of it is running: see `breaker status` \
                         when it has ended",
                        self.path.display()
                    );
                    return Err(CliError::new(Code::Refused, text).into());
                }
                Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
            }
        }
    }

    /// Checks that this root can be made. Mounts its BPF file system if that is missing.
    fn prepare(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(&self.path);
        bpffs::mount_missing(parent, self.private)?;
        if !bpffs::holds(parent) || !parent.is_dir() {
            let text = format!(
                "creating {}: {} is no directory of a BPF file system: mount one there (`mount -t bpf bpf \
                 {}`) or choose another --pin-root",
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

    /// Makes the directory, which only its owner may read.
    pub fn create(&self) -> Result<()> {
        make_directory(&self.path)?;
        make_directory(&self.lock_path())
    }

    /// Renames this root to `to`, which must not exist. The rename is atomic.
    pub fn rename(&self, to: &Self) -> Result<()> {
        fs::rename(&self.path, &to.path)
            .with_context(|| format!("renaming {} to {}", self.path.display(), to.path.display()))
    }

    /// Removes every pin and the directory. A link that no process holds open is detached by this.
    pub fn remove(&self) -> Result<()> {
        let removed =
            if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        removed.with_context(|| format!("removing {}", self.path.display()))
    }

    /// Returns the root and everything in it.
    pub fn all_pins(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        let mut pins = vec![self.path.clone()];
        for entry in entries {
            pins.push(entry.with_context(|| format!("reading {}", self.path.display()))?.path());
        }
        Ok(pins)
    }

    /// Gives new pins to the owner of this root. Root may change a load of another account, which must be
    /// able to open every pin of its load.
    pub fn give_to_owner(&self, pins: &[PathBuf]) -> Result<()> {
        let owner = |path: &Path| {
            let found =
                fs::metadata(path).with_context(|| format!("reading the owner of {}", path.display()))?;
            Ok::<_, anyhow::Error>((found.uid(), found.gid()))
        };
        let wanted = owner(&self.path)?;
        for pin in pins {
            if owner(pin)? != wanted {
                std::os::unix::fs::chown(pin, Some(wanted.0), Some(wanted.1))
                    .with_context(|| format!("giving {} to user {}", pin.display(), wanted.0))?;
            }
        }
        Ok(())
    }

    /// Keeps every other reset, and a reload, out until the lock is dropped. Waits for the lock.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.lock_path();
        let directory = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        flock(&directory, FlockOperation::LockExclusive)
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(Lock { _directory: directory })
    }

    /// The directory that [`PinRoot::lock`] locks. It is inside the root, because anyone who may open a
    /// directory may lock it. The agent locks the root itself.
    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }
}

/// Returns the pin of the program that replaces a pinned program in an upgrade. At the end of the upgrade the
/// new program takes over the old pin.
pub fn successor(program: &Path) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push("_next");
    name.into()
}

/// Makes a directory. A BPF file system holds only directories and pins.
pub fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("creating {}", path.display()))
}

/// A claimed directory beside a pin root: see [`PinRoot::claim`].
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _directory: File,
}

impl Claim {
    /// Returns the roots that a load or an unload left here when it died.
    pub fn leftovers(&self) -> Result<Vec<PinRoot>> {
        let entries = fs::read_dir(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        entries.map(|entry| Ok(PinRoot::new(entry?.path()))).collect()
    }

    /// The root that is built or taken apart here.
    pub fn root(&self) -> PinRoot {
        PinRoot::new(self.path.join("pins"))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A directory with leftovers stays, and the next claim finds them.
        let _ = fs::remove_dir(&self.path);
    }
}

/// A locked pin root: see [`PinRoot::lock`].
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// Returns true while this open directory is the one at the path.
fn is_same_directory(directory: &File, path: &Path) -> bool {
    let id = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    id(directory.metadata()).is_some_and(|open| id(fs::metadata(path)) == Some(open))
}

/// Refuses a directory of another user, who could keep breaker out of it or change its content. Root may take
/// over any user's load.
fn require_own(directory: &File, path: &Path) -> Result<()> {
    let owner =
        directory.metadata().with_context(|| format!("reading the owner of {}", path.display()))?.uid();
    let (me, loaded) = (geteuid().as_raw(), path.join("meta").exists() || path.join("pins").exists());
    if owner == me || owner == 0 || (me == 0 && loaded) {
        return Ok(());
    }
    let text = format!(
        "taking {}: user {owner} has made it, and could change its content: remove it (`rm -r {}`), or \
         choose a --pin-root where no other user may write, such as {DEFAULT}",
        path.display(),
        path.display()
    );
    Err(CliError::new(Code::Refused, text).into())
}
