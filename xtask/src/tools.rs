//! Cargo's subcommands of fixed versions, built once into target/tools.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// A subcommand of cargo: `cargo-NAME` of a version.
pub struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Records the dependencies in the binary, in the section `.dep-v0`.
pub const AUDITABLE: Tool = Tool { name: "auditable", version: "0.7.7" };
/// Lists the dependencies as CycloneDX.
pub const CYCLONEDX: Tool = Tool { name: "cyclonedx", version: "0.5.9" };
/// Makes the .deb.
pub const DEB: Tool = Tool { name: "deb", version: "3.8.0" };
/// Makes the .rpm.
pub const GENERATE_RPM: Tool = Tool { name: "generate-rpm", version: "0.21.1" };
/// Checks licences, sources and versions of the dependencies.
pub const DENY: Tool = Tool { name: "deny", version: "0.20.2" };
/// What `cargo xtask package` and its tests run.
pub const PACKAGING: [Tool; 4] = [AUDITABLE, CYCLONEDX, DEB, GENERATE_RPM];

/// Builds the tools that are missing or have another version.
pub fn ensure(tools: &[Tool]) -> Result<()> {
    let mut list = process::cargo();
    let list = process::stdout_of(list.args(["install", "--list", "--root"]).arg(workspace::tools()));
    let list = list.unwrap_or_default();
    let build_directory = workspace::tools().join("build");
    for Tool { name, version } in tools {
        let is_current = list.lines().any(|line| line == format!("cargo-{name} v{version}:"));
        if !is_current || !workspace::tools().join("bin").join(format!("cargo-{name}")).is_file() {
            build(name, version, &build_directory)
                .with_context(|| format!("building cargo-{name} {version}"))?;
        }
    }
    match fs::remove_dir_all(&build_directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", build_directory.display()))
        }
        _ => Ok(()),
    }
}

fn build(name: &str, version: &str, directory: &Path) -> Result<()> {
    eprintln!("building cargo-{name} {version}: some minutes, once");
    let mut install = process::cargo();
    install
        .args(["install", &format!("cargo-{name}"), "--version", version, "--locked", "--force", "--quiet"])
        .arg("--root")
        .arg(workspace::tools())
        // The tools have dependencies in common, and run for a moment only.
        .env("CARGO_TARGET_DIR", directory)
        .envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")])
        .envs([("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")]);
    process::run(&mut install)
}

/// Returns `cargo NAME` for a tool, which [`ensure`] has built.
pub fn cargo(tool: &Tool) -> Result<Command> {
    let mut command = process::cargo();
    command.env("PATH", path_with(&workspace::tools().join("bin"))?).arg(tool.name);
    Ok(command)
}

/// Returns PATH with a directory in front.
fn path_with(directory: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).with_context(|| format!("adding {} to PATH", directory.display()))
}
