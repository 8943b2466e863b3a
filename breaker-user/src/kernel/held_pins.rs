//! The pins of a load, held open so that removed pins can be restored.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::detach_link::{open_pin, pin_object};
use super::pins::{PinRoot, make_directory};

/// The pins and directories of a pin root.
pub struct HeldPins {
    root: PinRoot,
    directories: Vec<PathBuf>,
    pins: Vec<(PathBuf, OwnedFd)>,
}

impl HeldPins {
    /// Opens every pin under a root.
    pub fn open(root: &PinRoot) -> Result<Self> {
        let (mut directories, mut pins) = (Vec::new(), Vec::new());
        let path = root.path();
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            let found = entry.with_context(|| format!("reading {}", path.display()))?;
            let name = PathBuf::from(found.file_name());
            if found.file_type()?.is_dir() {
                directories.push(name);
            } else {
                let pin = open_pin(&found.path());
                pins.push((name, pin.with_context(|| format!("opening {}", found.path().display()))?));
            }
        }
        Ok(Self { root: root.clone(), directories, pins })
    }

    /// Returns the names of removed pins and directories. Checks only that each name exists.
    pub fn missing(&self) -> Vec<String> {
        let names = self.pins.iter().map(|(name, _)| name).chain(&self.directories);
        let is_missing = |name: &&PathBuf| {
            let found = fs::symlink_metadata(self.root.path().join(name));
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        names.filter(is_missing).map(|name| name.display().to_string()).collect()
    }

    /// Restores removed pins.
    ///
    /// # Errors
    /// Fails while a load, unload, reload or upgrade of the root is running.
    pub fn restore(&self) -> Result<()> {
        let claim = self.root.claim()?;
        if self.root.path().exists() {
            return self.pin_missing(&self.root);
        }
        // The pins are built in another directory and renamed, so that the root appears complete.
        let next = claim.root();
        make_directory(next.path())?;
        self.pin_missing(&next).and_then(|()| next.rename(&self.root)).inspect_err(|_| {
            // The result is ignored: the first error is reported.
            let _ = next.remove();
        })
    }

    fn pin_missing(&self, root: &PinRoot) -> Result<()> {
        for name in self.directories.iter().filter(|name| !root.path().join(name).exists()) {
            make_directory(&root.path().join(name))?;
        }
        for (name, object) in &self.pins {
            let path = root.path().join(name);
            if !path.exists() {
                pin_object(object.as_fd(), &path).with_context(|| format!("pinning {}", path.display()))?;
            }
        }
        Ok(())
    }
}
