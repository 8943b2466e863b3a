//! The two formats of a package. breaker-user/Cargo.toml describes both.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::{process, tools};

/// Version of the packages, without a revision.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the .deb and returns its path.
pub fn deb(output: &Path, revision: u32, is_quick: bool) -> Result<PathBuf> {
    let mut deb = tools::cargo(&tools::DEB)?;
    deb.args(["--no-build", "--no-strip", "--quiet", "--package", "breaker-user"])
        .args(["--deb-revision", &revision.to_string()])
        .args(is_quick.then_some("--fast"));
    let path = output.join(format!("breaker_{VERSION}-{revision}_{}.deb", architecture_of_debian()));
    // It prints the path, as xtask does.
    process::run(deb.arg("--output").arg(&path).stdout(Stdio::null()))?;
    Ok(path)
}

/// Makes the .rpm and returns its path.
pub fn rpm(output: &Path, revision: u32, is_quick: bool) -> Result<PathBuf> {
    let path = output.join(format!("breaker-{VERSION}-{revision}.{}.rpm", std::env::consts::ARCH));
    let mut rpm = tools::cargo(&tools::GENERATE_RPM)?;
    // The binary is linked statically.
    rpm.args(["--package", "breaker-user", "--auto-req", "disabled"])
        .args(["--payload-compress", if is_quick { "none" } else { "zstd" }])
        .args(["--set-metadata", &format!("release = \"{revision}\"")]);
    process::run(rpm.arg("--output").arg(&path))?;
    path.canonicalize().with_context(|| format!("finding {}", path.display()))
}

/// Returns Debian's name of the architecture.
fn architecture_of_debian() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
