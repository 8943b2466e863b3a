//! The command `breaker` and its output.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// The pin root of a testbed.
pub const PIN_ROOT: &str = "/sys/fs/bpf/breaker";

/// Environment of breaker on a testbed: the pin root, permission to pin in a mount namespace that ends with
/// the testbed, and a control socket that does not exist.
pub const PIN_ENVIRONMENT: [(&str, &str); 3] = [
    ("BREAKER_PIN_ROOT", PIN_ROOT),
    ("BREAKER_PRIVATE_PINS", "1"),
    ("BREAKER_CONTROL", "/run/breaker-of-no-test/control.sock"),
];

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct CliOutput {
    /// The exit code; `None` after a signal.
    pub exit_code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CliOutput {
    /// The output of a process.
    ///
    /// # Panics
    /// If it is not UTF-8.
    pub fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { exit_code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn expect_exit(self, code: i32) -> Self {
        assert_eq!(self.exit_code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that standard error contains a text.
    #[track_caller]
    pub fn expect_stderr(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Asserts that standard output contains a text.
    #[track_caller]
    pub fn expect_stdout(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// The command `breaker` with the environment of a testbed.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command.envs(PIN_ENVIRONMENT);
    command
}

/// Path of the binary `breaker`, which cargo builds beside the test programs.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let found = own.ancestors().map(|path| path.join("breaker")).find(|path| path.is_file());
    found.expect("`breaker` is not beside the tests: run `cargo build -p breaker-user`")
}

/// Runs breaker in the namespace of the test program.
pub fn breaker(args: &[&str]) -> CliOutput {
    CliOutput::new(command().args(args).output().expect("running breaker"))
}
