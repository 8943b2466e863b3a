//! A digest of the sources of the kernel object.
//!
//! `cargo xtask build` writes the digest beside the object, and the build script of breaker-user compares it.
//! The digest covers contents and no file times, because a fresh clone has the times of the clone.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The paths that determine the content of the kernel object, relative to the root of the workspace.
pub const WATCHED: [&str; 4] =
    ["breaker-ebpf/Cargo.toml", "breaker-ebpf/src", "breaker-common/Cargo.toml", "breaker-common/src"];

/// Returns the path of the object, which does not depend on the target directory of cargo.
pub fn object(root: &Path) -> PathBuf {
    root.join("target/bpf/breaker.o")
}

/// Returns the path of the file with the digest of the sources.
pub fn stamp(root: &Path) -> PathBuf {
    root.join("target/bpf/breaker.o.sources")
}

/// Returns a digest of the names and contents of the watched Rust sources and manifests.
pub fn digest(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for path in WATCHED {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    // FNV-1a detects an edit. Protection against an attack is not needed.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let content = fs::read(&file)?;
        let length = content.len().to_le_bytes();
        for byte in name.as_bytes().iter().chain(&length).chain(&content) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "toml") {
        // Other files, such as backups of an editor, do not change the object.
        files.push(path.to_path_buf());
    }
    Ok(())
}
