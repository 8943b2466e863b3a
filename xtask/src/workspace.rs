//! Where things are in the repository.

use std::path::{Path, PathBuf};

/// The repository: of the checkout that cargo runs us from, which may have been moved since we were compiled.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Programs built for this repository alone.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}
