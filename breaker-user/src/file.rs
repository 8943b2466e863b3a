//! Opens files safely where others may have placed something else: a FIFO would block, a device may have no
//! end.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::OFlags;

/// Opens a regular file without blocking, or reports what else is there.
///
/// Symbolic links are not followed: another user could point a link at any file, which root would then
/// overwrite.
pub fn open(options: &mut OpenOptions, path: &Path) -> Result<File> {
    open_with(options, path, OFlags::NONBLOCK | OFlags::NOFOLLOW)
}

/// Opens a regular file for reading without blocking. Follows symbolic links.
pub fn open_to_read(path: &Path) -> Result<File> {
    open_with(OpenOptions::new().read(true), path, OFlags::NONBLOCK)
}

fn open_with(options: &mut OpenOptions, path: &Path, flags: OFlags) -> Result<File> {
    let opening = || format!("opening {}", path.display());
    let file = match options.custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => file,
        Err(error) => {
            let found = std::fs::symlink_metadata(path).ok().and_then(|found| special(found.file_type()));
            return Err(match found {
                Some(found) => io::Error::new(error.kind(), format!("it is {found}: name a regular file")),
                None => error,
            })
            .with_context(opening);
        }
    };
    match special(file.metadata().with_context(opening)?.file_type()) {
        None => Ok(file),
        Some(found) => {
            Err(io::Error::other(format!("it is {found}: name a regular file"))).with_context(opening)
        }
    }
}

/// What is at a path instead of a regular file; `None` for a regular file or for nothing.
pub fn obstacle(path: &Path) -> Option<&'static str> {
    std::fs::symlink_metadata(path).ok().and_then(|found| special(found.file_type()))
}

/// Name of a file type other than a regular file.
fn special(found: FileType) -> Option<&'static str> {
    let kinds: [(bool, &str); 6] = [
        (found.is_symlink(), "a symbolic link"),
        (found.is_dir(), "a directory"),
        (found.is_fifo(), "a FIFO"),
        (found.is_socket(), "a socket"),
        (found.is_char_device(), "a character device"),
        (found.is_block_device(), "a block device"),
    ];
    kinds.into_iter().find_map(|(is, name)| is.then_some(name))
}
