//! Finds a Rust that can build `core` for the kernel's virtual machine. Two are known to work: a rustup nightly with
//! rust-src, and the distribution's own rustc with its sources. The workspace itself needs only stable Rust.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{packages, process};

/// A Rust that can build the kernel program.
pub struct Toolchain {
    kind: Kind,
    version: Version,
    /// The root of Rust's own sources; its path would otherwise end up in the kernel object.
    pub sources: PathBuf,
}

#[derive(Clone, Copy)]
enum Kind {
    Nightly,
    Distribution,
}

/// What `rustc -vV` says of itself.
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
    /// This toolchain's cargo, with `-Z` flags allowed.
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

/// The first Rust that has its sources and whose LLVM the linker can read; installs one where that is possible.
pub fn find_or_install(newest_llvm: Option<u32>) -> Result<Toolchain> {
    let find = || [Kind::Nightly, Kind::Distribution].into_iter().find_map(|kind| probe(kind, newest_llvm));
    if let Some(found) = find() {
        return Ok(found);
    }
    if version(&mut nightly("rustc")).is_some_and(|nightly| nightly.fits(newest_llvm)) {
        // Not every machine reaches the server it is on; the next way does not need it.
        let _ = process::answer(rustup().args(["component", "add", "rust-src", "--toolchain", "nightly"]));
        if let Some(found) = find() {
            return Ok(found);
        }
    }
    if packages::can_install() {
        packages::ensure(packages::RUST)?;
    }
    find().with_context(|| {
        let (major, minor) = oldest();
        format!(
            "building the kernel program: neither a rustup nightly with rust-src nor a /usr/bin/rustc of {major}.{minor} or newer \
             with its sources was found: `rustup toolchain install nightly --component rust-src`"
        )
    })
}

fn probe(kind: Kind, newest_llvm: Option<u32>) -> Option<Toolchain> {
    let rustc = || match kind {
        Kind::Nightly => nightly("rustc"),
        Kind::Distribution => process::other_toolchain("/usr/bin/rustc"),
    };
    let version = version(&mut rustc())?;
    let sysroot = process::answer(rustc().args(["--print", "sysroot"]))?;
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust");
    let usable = version.fits(newest_llvm) && sources.join("library/core/Cargo.toml").exists();
    usable.then_some(Toolchain { kind, version, sources })
}

fn rustup() -> Command {
    let mut rustup = process::other_toolchain("rustup");
    // A missing toolchain is an answer here, not a wish.
    rustup.env("RUSTUP_AUTO_INSTALL", "0");
    rustup
}

fn nightly(program: &str) -> Command {
    let mut command = rustup();
    command.args(["run", "nightly", program]);
    command
}

fn version(rustc: &mut Command) -> Option<Version> {
    Version::parse(&process::answer(rustc.arg("-vV"))?)
}

/// What the workspace asks for in `rust-version`, which cargo holds every toolchain to.
fn oldest() -> (u32, u32) {
    two_numbers(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
}

fn two_numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: two_numbers(field("release: ")?)?,
            llvm: two_numbers(field("LLVM version: ")?)?.0,
        })
    }

    /// A linker reads bitcode of its own LLVM and older, never newer.
    fn fits(self, newest_llvm: Option<u32>) -> bool {
        self.release >= oldest() && newest_llvm.is_none_or(|newest| self.llvm <= newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                           release: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn reads_what_rustc_says_of_itself() {
        assert_eq!(Version::parse(NIGHTLY), Some(Version { release: (1, 97), llvm: 22 }));
        assert_eq!(Version::parse("rustc 1.97.0\n"), None);
        assert_eq!(Version::parse("release: x.y\nLLVM version: 22.1\n"), None);
    }

    #[test]
    fn neither_too_old_nor_newer_than_the_linker() {
        let rust = |release, llvm| Version { release, llvm };
        let (major, minor) = oldest();
        assert!(rust((major, minor), 22).fits(Some(22)));
        assert!(rust((major, minor + 5), 21).fits(Some(22)));
        assert!(!rust((major, minor - 1), 22).fits(Some(22)));
        assert!(!rust((major, minor), 23).fits(Some(22)));
        assert!(rust((major, minor), 23).fits(None), "a linker on PATH is trusted");
    }
}
