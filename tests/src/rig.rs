//! A loaded breaker on a trading host that is one namespace, facing a venue that is another.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions};
use breaker_common::abi::Counters;
use breaker_user::config::{self, Policy};
use breaker_user::kernel::{Breaker, PinRoot, load};
use breaker_user::lab::Wire;
use breaker_user::view::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// See the module.
pub struct Rig {
    /// The two namespaces.
    pub wire: Wire,
    directory: TempDir,
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
        let rig =
            Self { wire: Wire::new().expect("making namespaces"), directory: TempDir::new().expect("a directory") };
        let audit = rig.audit();
        let text = format!(
            "[agent]\naudit = {audit:?}\nstate = {:?}\n[host]\ninterfaces = [\"eth1\"]\n{policy}",
            rig.directory.path()
        );
        std::fs::write(rig.config(), text).expect("writing the configuration");
        rig
    }

    /// Where everything is pinned; a path in the trading host's own BPF file system.
    pub fn root() -> PinRoot {
        PinRoot::new("/sys/fs/bpf/breaker")
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("breaker.toml")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    /// The policy as it was loaded.
    pub fn policy(&self) -> Policy {
        config::load(&self.config()).unwrap_or_else(|errors| panic!("{errors}")).policy
    }

    /// Does something on the trading host.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.wire.firm.run(f)
    }

    /// Does something with what is loaded.
    pub fn breaker<R: Send>(&self, f: impl FnOnce(&Breaker) -> R + Send) -> R {
        self.inside(|| f(&Breaker::open(&Self::root()).expect("opening what is loaded")))
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

    /// Resets a scope.
    pub fn reset(&self, scope: &str) {
        let ran = self.cli(&["reset", scope, "--reason", "test"]);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Runs `breaker` on the trading host, as a user types it.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.inside(|| Command::new(binary()).args(args).env("NO_COLOR", "1").output().expect("running breaker"))
    }

    /// What there is to tell so far, as `breaker events --json` shows it. Events wait in the ring: an agent that lives for a moment
    /// writes them down.
    pub fn told(&self) -> Vec<Value> {
        let mut command = Command::new(binary());
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

    /// Sends frames from the trading host as they are, through the hook, by a packet socket.
    pub fn inject(&self, frames: &[Vec<u8>]) {
        let index = self.wire.firm.index(Wire::INTERFACE).expect("the interface");
        self.inside(|| inject(index, frames));
    }

    /// Runs the loaded program over a frame.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Ran {
        self.inside(|| run_pinned(&Self::root().program(), frame, repeat))
    }
}

/// Runs a pinned program over a frame, in this thread's namespace.
pub fn run_pinned(pin: &Path, frame: &[u8], repeat: u32) -> Ran {
    let program = SchedClassifier::from_pin(pin).expect("opening the program");
    run(&program, frame, repeat)
}

/// Runs a program over a frame.
pub fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Ran {
    try_run(program, frame, repeat).expect("running the program")
}

/// The same, where the kernel may refuse the frame: newer ones run programs over whole IP headers only.
pub fn try_run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<Ran, ProgramError> {
    let mut packet = vec![0; frame.len() + 256];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut packet), repeat, ..TestRunOptions::default() };
    let result = program.test_run(options)?;
    let (verdict, ns) = (result.return_value as i32, result.duration.as_nanos() as u64);
    packet.truncate(result.data_size_out as usize);
    Ok(Ran { verdict, packet, ns })
}

/// The binary: beside the test programs, where cargo leaves it.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a path of one's own");
    let found = own.ancestors().map(|place| place.join("breaker")).find(|path| path.is_file());
    found.expect("no `breaker` beside the tests: `cargo build -p breaker-user`")
}

/// `packet(7)`; no safe wrapper of it is kept up.
fn inject(index: u32, frames: &[Vec<u8>]) {
    // SAFETY: plain system calls with buffers of the lengths that are said.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        assert!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        for frame in frames {
            let sent = libc::sendto(socket, frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length);
            assert_eq!(sent, frame.len() as isize, "sending a frame: {}", std::io::Error::last_os_error());
        }
        libc::close(socket);
    }
}
