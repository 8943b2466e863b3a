//! Runs other programs without the environment variables that `cargo run` sets for xtask.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Returns a command for the cargo that runs xtask, with the same toolchain, in the root of the workspace.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    command_without(&cargo, is_set_by_cargo_run)
}

/// Returns a command for a program that selects its own Rust toolchain, in the root of the workspace.
pub fn other_toolchain(program: impl AsRef<OsStr>) -> Command {
    command_without(program.as_ref(), |name| is_set_by_cargo_run(name) || selects_toolchain(name))
}

fn command_without(program: &OsStr, unwanted: fn(&str) -> bool) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(unwanted) {
            command.env_remove(name);
        }
    }
    command
}

/// Returns true for a variable that `cargo run` sets for its child process.
///
/// Build scripts that watch these variables would run again. `LD_LIBRARY_PATH` would give one toolchain the
/// libraries of another toolchain.
fn is_set_by_cargo_run(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "LD_LIBRARY_PATH")
}

/// Returns true for a variable that selects the toolchain of a child process or changes what the child
/// compiles.
fn selects_toolchain(name: &str) -> bool {
    name.starts_with("RUSTC")
        || name.starts_with("RUSTDOC")
        || name.starts_with("CARGO_BUILD_")
        || name.starts_with("CARGO_PROFILE_")
        || name.starts_with("CARGO_TARGET_BPF")
        || matches!(
            name,
            "CARGO" | "CARGO_ENCODED_RUSTFLAGS" | "CARGO_TARGET_DIR" | "RUSTFLAGS" | "RUSTUP_TOOLCHAIN"
        )
}

/// Runs a command with the input and output of xtask. Any exit status but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a command with the input and output of xtask and returns the exit status.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("starting {}", describe(command)))
}

/// Returns the trimmed standard output of a command, or `None` if the program is absent or fails.
///
/// Standard error is discarded.
pub fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Returns the program and the first argument of a command, for error messages.
pub fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let first = command.get_args().next().unwrap_or_default();
    format!("`{} {}`", program.to_string_lossy(), first.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_of_the_outer_toolchain_reaches_another_toolchain() {
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
            assert!(selects_toolchain(name), "{name}");
        }
        assert!(is_set_by_cargo_run("LD_LIBRARY_PATH") && is_set_by_cargo_run("CARGO_PKG_VERSION"));
    }

    #[test]
    fn home_directories_and_proxies_are_kept() {
        for name in ["CARGO_HOME", "RUSTUP_HOME", "PATH", "HOME", "CARGO_HTTP_CAINFO", "CARGO_NET_OFFLINE"] {
            assert!(!selects_toolchain(name) && !is_set_by_cargo_run(name), "{name}");
        }
    }

    #[test]
    fn output_is_returned_only_on_success() {
        assert_eq!(stdout_of(Command::new("echo").arg("yes")), Some("yes".to_owned()));
        assert_eq!(stdout_of(&mut Command::new("false")), None);
        assert_eq!(stdout_of(&mut Command::new("/nonexistent/program")), None);
    }
}
