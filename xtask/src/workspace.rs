//! Paths in the repository.

use std::path::{Path, PathBuf};

/// Returns the root of the checkout from which cargo runs xtask.
///
/// The run-time variable comes first: the checkout may have moved since xtask was compiled.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Returns the directory of programs that are built for this repository alone.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}
