//! A loaded breaker on a host that is a namespace: a trading host that faces a venue, unless another network is laid.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult};
use breaker_common::abi::Counters;
use breaker_user::config::{self, Policy};
use breaker_user::kernel::{Breaker, PinRoot, load};
use breaker_user::testbed::{Namespace, TwoHosts};
use breaker_user::view::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::raw::PacketSocket;

/// Where everything is pinned.
const ROOT: &str = "/sys/fs/bpf/breaker";

/// What has `breaker` pin there, though it ends with the rig.
pub const PINS: [(&str, &str); 2] = [("BREAKER_PIN_ROOT", ROOT), ("BREAKER_PRIVATE_PINS", "1")];

/// See the module.
pub struct Rig<N = TwoHosts> {
    /// The namespaces.
    pub wire: N,
    directory: TempDir,
}

/// Has all frames of a connection come in by one CPU, as those of one queue of a network card do. A veth hands each to the CPU that it
/// was sent on, and in the stack two would overtake each other there.
fn one_queue(host: &Namespace, interface: &str) {
    let queue = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
    host.run(|| std::fs::write(&queue, "1")).unwrap_or_else(|error| panic!("writing {queue}: {error}"));
}

/// Namespaces, one of which is the host that breaker is loaded on.
pub trait Network {
    /// The interface that breaker stands at.
    const INTERFACE: &str;
    /// The host.
    fn host(&self) -> &Namespace;
}

impl Network for TwoHosts {
    const INTERFACE: &str = Self::INTERFACE;

    fn host(&self) -> &Namespace {
        &self.firm
    }
}

/// What BPF_PROG_TEST_RUN says.
pub struct Ran {
    /// The program's verdict.
    pub verdict: i32,
    /// The packet after it.
    pub packet: Vec<u8>,
    /// Mean time of a run, ns.
    pub ns: u64,
}

impl Rig {
    /// Loads a policy on the trading host's `eth1`. The text is what follows `[host]` and its `interfaces`.
    pub fn new(policy: &str) -> Self {
        let rig = Self::unloaded(policy);
        let policy = rig.policy();
        rig.inside(|| load::load(&policy, &Self::root())).expect("loading");
        rig
    }

    /// The same, with nothing loaded.
    pub fn unloaded(policy: &str) -> Self {
        Self::on(TwoHosts::new().expect("making namespaces"), policy)
    }

    /// Where everything is pinned; a path in the trading host's own BPF file system.
    pub fn root() -> PinRoot {
        PinRoot::new(ROOT).private()
    }
}

impl<N: Network> Rig<N> {
    /// A network with a configuration written for it and nothing loaded. The text is what follows `[host]` and its `interfaces`.
    pub fn on(wire: N, policy: &str) -> Self {
        one_queue(wire.host(), N::INTERFACE);
        let rig = Self { wire, directory: TempDir::new().expect("a directory") };
        let (audit, state) = (rig.audit(), rig.state());
        let host = format!("[host]\ninterfaces = [{:?}]", N::INTERFACE);
        let text = format!("[agent]\naudit = {audit:?}\nstate = {state:?}\n{host}\n{policy}");
        std::fs::write(rig.config(), text).expect("writing the configuration");
        rig
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("breaker.toml")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The policy as it was loaded.
    pub fn policy(&self) -> Policy {
        config::load(&self.config()).unwrap_or_else(|errors| panic!("{errors}")).policy
    }

    /// Does something on the host.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.wire.host().run(f)
    }

    /// Does something with what is loaded.
    pub fn breaker<R: Send>(&self, f: impl FnOnce(&Breaker) -> R + Send) -> R {
        self.inside(|| f(&Breaker::open(&Rig::root()).expect("opening what is loaded")))
    }

    /// What `status` says.
    pub fn status(&self) -> Status {
        self.breaker(|breaker| Status::read(breaker, None).expect("reading the status"))
    }

    /// The counters of a session by its number.
    pub fn counters(&self, session: usize) -> Counters {
        self.breaker(|breaker| breaker.counters().expect("reading the counters")[session])
    }

    /// Trips a scope, by hand.
    pub fn trip(&self, scope: &str) {
        let ran = self.cli(&["trip", scope, "--reason", "test"]);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Resets a scope, its senders as they may be.
    pub fn reset(&self, scope: &str) {
        let ran = self.cli(&["reset", scope, "--reason", "test", "--force"]);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Runs `breaker` on the host, as a user types it.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.inside(|| command().args(args).env("NO_COLOR", "1").output().expect("running breaker"))
    }

    /// What there is to tell so far, as `breaker events --json` shows it. Events wait in the ring: an agent that lives for a moment
    /// writes them down.
    pub fn told(&self) -> Vec<Value> {
        let mut command = command();
        command.args(["agent", "--config"]).arg(self.config()).env_remove("NOTIFY_SOCKET");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut agent = self.inside(|| command.spawn().expect("starting an agent"));
        let mut ready = String::new();
        let out = agent.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut ready).expect("its line");
        kill_process(Pid::from_child(&agent), Signal::TERM).expect("stopping it");
        let ended = agent.wait_with_output().expect("its end");
        assert!(ended.status.success(), "{ready}{}", String::from_utf8_lossy(&ended.stderr));
        let ran = self.cli(&["events", "--json"]);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
        let lines = String::from_utf8(ran.stdout).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    /// Sends frames from the host as they are, through the hook, by a packet socket.
    pub fn inject(&self, frames: &[Vec<u8>]) {
        let socket = PacketSocket::deaf(self.wire.host(), N::INTERFACE);
        for frame in frames {
            socket.send(frame);
        }
    }

    /// Runs the loaded program over a frame.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Ran {
        self.inside(|| run_pinned(&Rig::root().program(), frame, repeat))
    }
}

/// Runs a pinned program over a frame, in this thread's namespace.
pub fn run_pinned(pin: &Path, frame: &[u8], repeat: u32) -> Ran {
    let program = SchedClassifier::from_pin(pin).expect("opening the program");
    run(&program, frame, repeat)
}

/// Programs of tc and XDP: the kernel runs both over a frame.
pub trait Runs: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> {}
impl<P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>> Runs for P {}

/// Runs a program over a frame.
pub fn run(program: &impl Runs, frame: &[u8], repeat: u32) -> Ran {
    try_run(program, frame, repeat).expect("running the program")
}

/// The same, where the kernel may refuse the frame: newer ones run programs over whole IP headers only.
pub fn try_run(program: &impl Runs, frame: &[u8], repeat: u32) -> Result<Ran, ProgramError> {
    let mut packet = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut packet),
        repeat,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options)?;
    let (verdict, ns) = (result.return_value as i32, result.duration.as_nanos() as u64);
    packet.truncate(result.data_size_out as usize);
    Ok(Ran { verdict, packet, ns })
}

/// The binary on the host, whose pins end with it.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command.envs(PINS);
    command
}

/// The binary: beside the test programs, where cargo leaves it.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a path of one's own");
    let found = own.ancestors().map(|place| place.join("breaker")).find(|path| path.is_file());
    found.expect("no `breaker` beside the tests: `cargo build -p breaker-user`")
}
