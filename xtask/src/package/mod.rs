//! Builds the packages: the .deb and the .rpm of one tree of files.

mod copy;
mod formats;
mod reproducible;
mod sbom;
mod tree;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::{object, program, tools, workspace};

/// What to build.
pub struct Options {
    /// The profile of cargo for the binary.
    pub profile: String,
    /// The revision of the packages of one version.
    pub revision: u32,
    /// The directory for the packages; by default target/packages.
    pub output: Option<PathBuf>,
    /// Whether to build the kernel program a second time, and to compare.
    pub reproducible: bool,
}

/// Builds both packages and prints their paths.
pub fn run(options: &Options) -> Result<()> {
    tools::ensure(&tools::PACKAGING)?;
    object::build()?;
    let directory = workspace::root().join("target/packages");
    let _lock = lock(&directory)?;
    if options.reproducible {
        reproducible::check(&directory)?;
    }
    let binary = program::build_auditable(&options.profile)?;
    let root = directory.join("root");
    // Tests only install a package: it needs no symbols and little compression.
    let is_quick = options.profile == "dev";
    tree::make(&binary, is_quick, &root)?;
    sbom::write(&directory, &root.join(tree::DOCUMENTS).join("sbom"))?;
    let output = options.output.as_ref().unwrap_or(&directory);
    fs::create_dir_all(output).with_context(|| format!("creating {}", output.display()))?;
    let output = output.canonicalize().with_context(|| format!("resolving {}", output.display()))?;
    let revision = options.revision;
    for package in [formats::deb(&output, revision, is_quick)?, formats::rpm(&output, revision, is_quick)?] {
        println!("{}", package.display());
    }
    Ok(())
}

/// Creates the directory, and keeps other processes out of it until the file is dropped.
fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}
