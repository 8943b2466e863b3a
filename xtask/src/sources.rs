//! What the kernel object is made from, as one number: `cargo xtask build` writes it beside the object, and the build
//! script of breaker-user compares. Content, not times: a fresh clone has the times of the clone.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// All that decides what the kernel object contains, from the root of the workspace.
pub const WATCHED: [&str; 4] =
    ["breaker-ebpf/Cargo.toml", "breaker-ebpf/src", "breaker-common/Cargo.toml", "breaker-common/src"];

/// Where the object is, whatever target directory cargo uses for the rest.
pub fn object(root: &Path) -> PathBuf {
    root.join("target/bpf/breaker.o")
}

/// Where the digest of the object's sources is.
pub fn stamp(root: &Path) -> PathBuf {
    root.join("target/bpf/breaker.o.sources")
}

/// A digest of names and contents of the watched Rust sources and manifests.
pub fn digest(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for path in WATCHED {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    // FNV-1a: it tells an edit, not an attack.
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
        // Editors leave all kinds of other files about.
        files.push(path.to_path_buf());
    }
    Ok(())
}
