//! The command line of breaker, as a user types it on a host.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;

use crate::testbed::{Network, Testbed};

/// The pin root of a testbed.
pub const PIN_ROOT: &str = "/sys/fs/bpf/breaker";

/// Environment of breaker on a testbed: the pin root, and leave to pin in a mount namespace that ends with
/// the testbed.
pub const PIN_ENVIRONMENT: [(&str, &str); 2] =
    [("BREAKER_PIN_ROOT", PIN_ROOT), ("BREAKER_PRIVATE_PINS", "1")];

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

impl<N: Network> Testbed<N> {
    /// Runs breaker on the host. The words of the command line are separated by spaces.
    pub fn cli(&self, words: &str) -> CliOutput {
        self.cli_args(&words.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())
    }

    /// Runs breaker on the host with these arguments.
    pub fn cli_args(&self, args: &[&str]) -> CliOutput {
        let run = || command().args(args).env("NO_COLOR", "1").output().expect("running breaker");
        CliOutput::new(self.on_host(run))
    }

    /// Runs `breaker load` with the configuration of the testbed; it must succeed.
    #[track_caller]
    pub fn load_cli(&self) {
        self.cli(&format!("load --config {}", self.config().display())).expect_exit(0);
    }

    /// Runs a verb that takes a scope and a reason.
    pub fn switch(&self, verb: &str, scope: &str) -> CliOutput {
        self.cli(&format!("{verb} {scope} --reason test"))
    }

    /// Trips a scope; it must succeed.
    #[track_caller]
    pub fn trip(&self, scope: &str) {
        self.switch("trip", scope).expect_exit(0);
    }

    /// Resets a scope by force, whether or not its senders have stopped; it must succeed.
    #[track_caller]
    pub fn reset(&self, scope: &str) {
        self.cli(&format!("reset {scope} --reason test --force")).expect_exit(0);
    }

    /// The output of `breaker status --json`, whatever its exit code.
    pub fn status_json(&self) -> StatusJson {
        StatusJson(self.cli("status --json").json())
    }

    /// Writes another configuration, all of it, beside that of the testbed. Returns its path.
    pub fn write_config(&self, name: &str, text: &str) -> PathBuf {
        let path = self.config().with_file_name(name);
        std::fs::write(&path, text).expect("writing a configuration");
        path
    }

    /// Runs a shell command on the host; it must succeed. Returns its standard output.
    #[track_caller]
    pub fn shell(&self, command: &str) -> String {
        let run = || Command::new("sh").args(["-c", command]).envs(PIN_ENVIRONMENT).output();
        let ran = self.on_host(run).expect("running sh");
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("UTF-8")
    }

    /// Asserts that nothing of breaker is left on the host: no pin, no program, no filter, no qdisc.
    #[track_caller]
    pub fn assert_clean(&self) {
        let interface = N::INTERFACE;
        // The kernel makes the `.debug` files of a BPF file system.
        let pins = self.shell("ls -A /sys/fs/bpf");
        let pins: Vec<_> = pins.lines().filter(|name| !name.ends_with(".debug")).collect();
        assert!(pins.is_empty(), "{pins:?}");
        assert_eq!(self.tcx_programs(interface), 0, "programs of tcx");
        assert_eq!(self.shell(&format!("tc filter show dev {interface} egress")), "");
        assert!(!self.shell(&format!("tc qdisc show dev {interface}")).contains("clsact"));
    }

    /// Number of tcx programs at the egress of an interface; 0 if the interface does not exist.
    pub fn tcx_programs(&self, interface: &str) -> usize {
        self.on_host(|| SchedClassifier::query_tcx(interface, TcAttachType::Egress))
            .map_or(0, |(_, programs)| programs.len())
    }
}

/// The JSON of `breaker status`.
#[derive(Clone, Debug)]
pub struct StatusJson(pub Value);

impl Deref for StatusJson {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl StatusJson {
    /// Causes of a scope's trip; none if it is not tripped.
    pub fn causes(&self, name: &str) -> Vec<&str> {
        let causes = scope(self, name)["causes"].as_array().expect("causes");
        causes.iter().filter_map(Value::as_str).collect()
    }

    /// Messages of a class that a session sent: passed, withheld.
    pub fn messages(&self, name: &str, class: &str) -> (u64, u64) {
        let messages = &session(self, name)["messages"][class];
        (number(&messages["passed"]), number(&messages["withheld"]))
    }

    /// Inbound messages of a session: fills, rejects, others.
    pub fn inbound(&self, name: &str) -> [u64; 3] {
        ["fill", "reject", "other"].map(|kind| number(&session(self, name)["inbound"][kind]))
    }

    /// Segments of a session with bytes that had been seen before.
    pub fn retransmitted(&self, name: &str) -> u64 {
        number(&session(self, name)["retransmitted"])
    }

    /// Number of times that a session's stream lost its framing.
    pub fn desyncs(&self, name: &str) -> u64 {
        number(&session(self, name)["desyncs"])
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A scope in the JSON of `breaker status`.
#[track_caller]
pub fn scope<'a>(status: &'a Value, name: &str) -> &'a Value {
    find(status, "scopes", "scope", name)
}

/// A session in the JSON of `breaker status`.
#[track_caller]
pub fn session<'a>(status: &'a Value, name: &str) -> &'a Value {
    find(status, "sessions", "name", name)
}

#[track_caller]
fn find<'a>(status: &'a Value, list: &str, key: &str, name: &str) -> &'a Value {
    let items = status[list].as_array().unwrap_or_else(|| panic!("no {list} in {status}"));
    items.iter().find(|item| item[key] == name).unwrap_or_else(|| panic!("{name} is not in {items:?}"))
}

/// Path of a file as an argument.
///
/// # Panics
/// If it is not UTF-8.
pub fn argument(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
