//! The command line of breaker, as a user types it on a host.

use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::{CliOutput, PIN_ENVIRONMENT, command};
use crate::network::Network;
use crate::testbed::Testbed;

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

    /// The events of a kind.
    pub fn events_of_kind(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// All events so far, as `breaker events --json` prints them. Events wait in the ring until an agent
    /// writes them to the log, so an agent is started and stopped first.
    pub fn events(&self) -> Vec<Value> {
        let mut command = command();
        command.args(["agent", "--config"]).arg(self.config()).env_remove("NOTIFY_SOCKET");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut agent = self.on_host(|| command.spawn().expect("starting an agent"));
        let mut ready = String::new();
        let stdout = agent.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut ready).expect("its first line");
        kill_process(Pid::from_child(&agent), Signal::TERM).expect("stopping it");
        let ended = agent.wait_with_output().expect("waiting for its end");
        assert!(ended.status.success(), "{ready}{}", String::from_utf8_lossy(&ended.stderr));
        let output = self.cli("events --json").expect_exit(0);
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
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
