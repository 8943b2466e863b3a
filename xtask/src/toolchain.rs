//! Finds a Rust toolchain that can build `core` for the BPF target.
//!
//! Two toolchains work: a rustup nightly with rust-src, and the rustc of the distribution with the Rust
//! sources. The other crates need only stable Rust.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{packages, process};

/// A Rust toolchain that can build the kernel program.
pub struct Toolchain {
    kind: Kind,
    version: Version,
    /// The root of the Rust sources. The build removes this path from the kernel object.
    pub sources: PathBuf,
}

#[derive(Clone, Copy)]
enum Kind {
    Nightly,
    Distribution,
}

/// The version numbers in the output of `rustc -vV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    release: (u32, u32),
    llvm: u32,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { release: (major, minor), llvm } = self.version;
        let kind = match self.kind {
            Kind::Nightly => "rustup's nightly",
            Kind::Distribution => "the distribution's Rust",
        };
        write!(f, "{kind}, {major}.{minor} with LLVM {llvm}")
    }
}

impl Toolchain {
    /// Returns a command for the cargo of this toolchain, with `-Z` flags allowed.
    pub fn cargo(&self) -> Command {
        match self.kind {
            Kind::Nightly => nightly("cargo"),
            Kind::Distribution => {
                let mut cargo = process::other_toolchain("/usr/bin/cargo");
                cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }
}

/// Returns the first toolchain with sources and with an LLVM that the linker can read, or installs one if
/// possible.
pub fn find_or_install(newest_llvm: Option<u32>) -> Result<Toolchain> {
    let find = || [Kind::Nightly, Kind::Distribution].into_iter().find_map(|kind| probe(kind, newest_llvm));
    if let Some(found) = find() {
        return Ok(found);
    }
    if version(&mut nightly("rustc")).is_some_and(|nightly| nightly.is_usable(newest_llvm)) {
        // The result is ignored: without access to the server of rustup, the packages below are installed
        // instead.
        let _ = process::stdout_of(rustup().args(["component", "add", "rust-src", "--toolchain", "nightly"]));
        if let Some(found) = find() {
            return Ok(found);
        }
    }
    if packages::can_install() {
        packages::ensure(packages::RUST)?;
    }
    find().with_context(|| {
        let (major, minor) = oldest_release();
        format!(
            "building the kernel program: neither a rustup nightly with rust-src nor a /usr/bin/rustc of \
             {major}.{minor} or newer with its sources was found: \
             run `rustup toolchain install nightly --component rust-src`"
        )
    })
}

fn probe(kind: Kind, newest_llvm: Option<u32>) -> Option<Toolchain> {
    let rustc = || match kind {
        Kind::Nightly => nightly("rustc"),
        Kind::Distribution => process::other_toolchain("/usr/bin/rustc"),
    };
    let version = version(&mut rustc())?;
    let sysroot = process::stdout_of(rustc().args(["--print", "sysroot"]))?;
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust");
    let usable = version.is_usable(newest_llvm) && sources.join("library/core/Cargo.toml").exists();
    usable.then_some(Toolchain { kind, version, sources })
}

fn rustup() -> Command {
    let mut rustup = process::other_toolchain("rustup");
    // A missing toolchain is a valid result of the search, so rustup must not install one.
    rustup.env("RUSTUP_AUTO_INSTALL", "0");
    rustup
}

fn nightly(program: &str) -> Command {
    let mut command = rustup();
    command.args(["run", "nightly", program]);
    command
}

fn version(rustc: &mut Command) -> Option<Version> {
    Version::parse(&process::stdout_of(rustc.arg("-vV"))?)
}

/// Returns the `rust-version` of the workspace. Cargo refuses older toolchains.
fn oldest_release() -> (u32, u32) {
    major_and_minor(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: major_and_minor(field("release: ")?)?,
            llvm: major_and_minor(field("LLVM version: ")?)?.0,
        })
    }

    /// Returns true if the toolchain is new enough and the LLVM is not newer than that of the linker.
    ///
    /// A linker reads bitcode of its own LLVM version and of older versions.
    fn is_usable(self, newest_llvm: Option<u32>) -> bool {
        self.release >= oldest_release() && newest_llvm.is_none_or(|newest| self.llvm <= newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                           host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn the_version_is_read_from_the_output_of_rustc() {
        assert_eq!(Version::parse(NIGHTLY), Some(Version { release: (1, 97), llvm: 22 }));
        assert_eq!(Version::parse("rustc 1.97.0\n"), None);
        assert_eq!(Version::parse("release: x.y\nLLVM version: 22.1\n"), None);
    }

    #[test]
    fn a_toolchain_older_than_the_workspace_or_newer_than_the_linker_is_refused() {
        let rust = |release, llvm| Version { release, llvm };
        let (major, minor) = oldest_release();
        assert!(rust((major, minor), 22).is_usable(Some(22)));
        assert!(rust((major, minor + 5), 21).is_usable(Some(22)));
        assert!(!rust((major, minor - 1), 22).is_usable(Some(22)));
        assert!(!rust((major, minor), 23).is_usable(Some(22)));
        assert!(rust((major, minor), 23).is_usable(None), "a linker on PATH is trusted");
    }
}
