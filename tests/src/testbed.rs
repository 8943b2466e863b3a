//! A network of namespaces with a configuration of breaker, and the breaker on its host.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_common::abi::Counters;
use breaker_user::config::{self, Policy};
use breaker_user::kernel::{Breaker, PinRoot, load};
use breaker_user::testbed::{Namespace, TwoHosts};
use breaker_user::view::Status;
use breaker_user::view::scope::Scope;
use tempfile::TempDir;

use crate::command::PIN_ROOT;
use crate::network::{self, Network};
use crate::packet_socket::PacketSocket;
use crate::receiver::Receiver;
use crate::slowness;
use crate::test_run::{TestRunOutput, run_pinned};

/// A network, and a directory with the configuration and the audit log. All of it ends with the value.
pub struct Testbed<N = TwoHosts> {
    /// The namespaces.
    pub network: N,
    directory: TempDir,
}

impl Testbed {
    /// Loads a policy on the trading host. The text is what follows `[host]` and its `interfaces`.
    pub fn load(policy: &str) -> Self {
        let testbed = Self::unloaded(policy);
        testbed.load_policy();
        testbed
    }

    /// A trading host and a venue with a configuration, and nothing loaded.
    pub fn unloaded(policy: &str) -> Self {
        Self::on(TwoHosts::new().expect("making namespaces"), policy)
    }

    /// The pin root, a path in the BPF file system of the host.
    pub fn root() -> PinRoot {
        PinRoot::new(PIN_ROOT).private()
    }
}

impl<N: Network> Network for Testbed<N> {
    const INTERFACE: &str = N::INTERFACE;

    fn host(&self) -> &Namespace {
        self.network.host()
    }

    fn firm(&self) -> &Namespace {
        self.network.firm()
    }

    fn venue(&self) -> &Namespace {
        self.network.venue()
    }
}

impl<N: Network> Testbed<N> {
    /// A network with a configuration, and nothing loaded. The text is what follows `[host]` and its
    /// `interfaces`.
    pub fn on(network: N, policy: &str) -> Self {
        receive_on_one_cpu(network.host(), N::INTERFACE);
        let testbed = Self { network, directory: TempDir::new().expect("making a directory") };
        let (audit, state, control) = (testbed.audit(), testbed.state(), testbed.control());
        let host = format!("[host]\ninterfaces = [{:?}]", N::INTERFACE);
        let text =
            format!("[agent]\naudit = {audit:?}\nstate = {state:?}\ncontrol = {control:?}\n{host}\n{policy}");
        std::fs::write(testbed.config(), text).expect("writing the configuration");
        testbed
    }

    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("breaker.toml")
    }

    /// Path of the audit log.
    pub fn audit(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    /// Path of the control socket.
    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Path of the state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The policy in the configuration.
    pub fn policy(&self) -> Policy {
        config::load(&self.config()).unwrap_or_else(|errors| panic!("{errors}")).policy
    }

    /// Loads the policy by a call of the library, without the command line.
    pub fn load_policy(&self) {
        let policy = self.policy();
        self.on_host(|| load::load(&policy, &Testbed::root())).expect("loading the policy");
    }

    /// Runs a function in the namespace of the host.
    pub fn on_host<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.network.host().run(f)
    }

    /// Runs a function with the loaded breaker.
    pub fn with_breaker<R: Send>(&self, f: impl FnOnce(&Breaker) -> R + Send) -> R {
        self.on_host(|| f(&Breaker::open(&Testbed::root()).expect("opening the loaded breaker")))
    }

    /// The status, as the library reads it.
    pub fn status(&self) -> Status {
        self.with_breaker(|breaker| Status::read(breaker, None).expect("reading the status"))
    }

    /// The status of a scope.
    #[track_caller]
    pub fn scope(&self, name: &str) -> Scope {
        let mut scopes = self.status().scopes.into_iter();
        scopes.find(|scope| scope.scope == name).unwrap_or_else(|| panic!("no scope {name}"))
    }

    /// The causes of a scope's trip; none if it is not tripped.
    #[track_caller]
    pub fn causes(&self, scope: &str) -> Vec<&'static str> {
        self.scope(scope).causes
    }

    /// The names of the tripped scopes.
    pub fn tripped(&self) -> Vec<String> {
        self.status().scopes.into_iter().filter(|scope| scope.tripped).map(|scope| scope.scope).collect()
    }

    /// The counters of a session by its number.
    pub fn counters(&self, session: usize) -> Counters {
        self.with_breaker(|breaker| breaker.counters().expect("reading the counters")[session])
    }

    /// Listens at a port of the venue, with IPv4.
    pub fn listen(&self, port: u16) -> Receiver {
        self.listen_at(TwoHosts::venue_socket(port))
    }

    /// Listens at an address of the venue.
    pub fn listen_at(&self, address: SocketAddr) -> Receiver {
        Receiver::listen(self.network.venue(), address)
    }

    /// Connects from the trading host to a port of the venue, with IPv4.
    #[track_caller]
    pub fn connect(&self, port: u16) -> TcpStream {
        self.connect_to(TwoHosts::venue_socket(port))
    }

    /// Connects from the trading host. Each write is a segment of its own, up to the MSS.
    #[track_caller]
    pub fn connect_to(&self, address: SocketAddr) -> TcpStream {
        network::connect(&self.network, address)
    }

    /// Sends frames from the host through the hook, by a packet socket.
    pub fn inject_frames(&self, frames: &[Vec<u8>]) {
        let socket = PacketSocket::send_only(self.network.host(), N::INTERFACE);
        for frame in frames {
            socket.send(frame);
        }
    }

    /// Runs the loaded program over a frame.
    pub fn run(&self, frame: &[u8], repeat: u32) -> TestRunOutput {
        self.on_host(|| run_pinned(&Testbed::root().program(), frame, repeat))
    }
}

/// Waits until a function returns a value, for at most 5 s, or longer on a slow machine.
///
/// # Panics
/// If it returns none in that time.
#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5) * slowness();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "timeout: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Has one CPU take in all frames of an interface, as for one queue of a network card.
///
/// A veth hands each frame to the CPU that sent it, so that two frames of a connection could overtake each
/// other.
fn receive_on_one_cpu(host: &Namespace, interface: &str) {
    let queue = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
    host.run(|| std::fs::write(&queue, "1")).unwrap_or_else(|error| panic!("writing {queue}: {error}"));
}
