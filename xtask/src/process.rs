//! Running other programs, and keeping from them what `cargo run` told us about ourselves.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The cargo that runs us, with its toolchain, in the root of the workspace.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    without(&cargo, describes_us)
}

/// A program that picks its own Rust toolchain, in the root of the workspace.
pub fn other_toolchain(program: impl AsRef<OsStr>) -> Command {
    without(program.as_ref(), |name| describes_us(name) || chooses_toolchain(name))
}

fn without(program: &OsStr, unwanted: fn(&str) -> bool) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(unwanted) {
            command.env_remove(name);
        }
    }
    command
}

/// Set by `cargo run` for its child. Build scripts that watch them would run again, and LD_LIBRARY_PATH would
/// give one toolchain the libraries of another.
fn describes_us(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "LD_LIBRARY_PATH")
}

/// Binds a child to the outer toolchain, or would change what it compiles.
fn chooses_toolchain(name: &str) -> bool {
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

/// Runs to the end with our own input and output; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs to the end with our own input and output.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("starting {}", describe(command)))
}

/// What the program prints, where it exists and succeeds; its complaints are nobody's business.
pub fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Program and first argument: enough to know what was tried, in one line.
pub fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let first = command.get_args().next().unwrap_or_default();
    format!("`{} {}`", program.to_string_lossy(), first.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_outer_toolchain_reaches_another() {
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
            assert!(chooses_toolchain(name), "{name}");
        }
        assert!(describes_us("LD_LIBRARY_PATH") && describes_us("CARGO_PKG_VERSION"));
    }

    #[test]
    fn homes_and_proxies_stay() {
        for name in ["CARGO_HOME", "RUSTUP_HOME", "PATH", "HOME", "CARGO_HTTP_CAINFO", "CARGO_NET_OFFLINE"] {
            assert!(!chooses_toolchain(name) && !describes_us(name), "{name}");
        }
    }

    #[test]
    fn an_answer_needs_success() {
        assert_eq!(answer(Command::new("echo").arg("yes")), Some("yes".to_owned()));
        assert_eq!(answer(&mut Command::new("false")), None);
        assert_eq!(answer(&mut Command::new("/nonexistent/program")), None);
    }
}
