//! Real etcd servers, as the cluster of a fleet.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_user::fleet::engine::Endpoints;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::slowness;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Longest time until a cluster has a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a cluster is like.
pub struct Options {
    /// The address of each member. [`Options::new`] takes loopback addresses that no other test has.
    pub addresses: Vec<IpAddr>,
    /// Whether clients need certificates.
    pub tls: bool,
    /// The size at which the database is full.
    pub quota_bytes: Option<u64>,
}

impl Options {
    /// Members at loopback addresses, without TLS.
    pub fn new(members: usize) -> Self {
        let [second, third, ..] = fastrand::u32(..).to_be_bytes();
        // 127.0.x.x has the addresses that other tests use.
        let address = |member: u8| Ipv4Addr::new(127, second.max(1), third, member);
        let addresses = (1..).take(members).map(|member| address(member).into()).collect();
        Self { addresses, tls: false, quota_bytes: None }
    }
}

/// A cluster. Its servers and its data end with the value.
///
/// The servers run in the network namespace of the thread that starts them: start, restart and call etcdctl
/// in the same one.
pub struct Cluster {
    directory: TempDir,
    options: Options,
    authority: Authority,
    token: String,
    servers: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts members at loopback addresses, and waits until they have a leader.
    pub fn start(members: usize) -> Self {
        Self::start_with(Options::new(members))
    }

    /// Starts a cluster, and waits until it has a leader.
    pub fn start_with(options: Options) -> Self {
        let directory = TempDir::new().expect("making a directory");
        let authority = Authority::new(directory.path(), "authority");
        authority.sign("root", None);
        // etcd computes the cluster's id from the token and the addresses.
        let token = format!("breaker-{}", fastrand::u64(..));
        let servers = options.addresses.iter().map(|_| None).collect();
        let mut cluster = Self { directory, options, authority, token, servers };
        cluster.start_all();
        cluster
    }

    fn start_all(&mut self) {
        for member in 0..self.len() {
            self.servers[member] = Some(self.spawn(member));
        }
        for member in 0..self.len() {
            self.wait_for_leader(member);
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Returns true for a cluster without members, which cannot be started.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The URL of a member for clients.
    pub fn url(&self, member: usize) -> String {
        let scheme = if self.options.tls { "https" } else { "http" };
        format!("{scheme}://{}:{CLIENT_PORT}", self.options.addresses[member])
    }

    /// The endpoints for a client; with TLS the client is `root`.
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints_of("root")
    }

    /// The endpoints for a client with a user's certificate, if the cluster has TLS.
    pub fn endpoints_of(&self, user: &str) -> Endpoints {
        let urls = (0..self.len()).map(|member| self.url(member)).collect();
        Endpoints { urls, tls: self.options.tls.then(|| self.authority.sign(user, None)) }
    }

    /// The authority that the cluster trusts.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The directory of the cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends a member at once.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut server) = self.servers[member].take() {
            server.kill().expect("killing etcd");
            server.wait().expect("waiting for etcd");
        }
    }

    /// Stops all threads of a member. Its connections stay open.
    pub fn freeze(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    /// Lets a member go on.
    pub fn thaw(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    fn signal(&self, member: usize, signal: Signal) {
        let server = self.servers[member].as_ref().expect("a running member");
        kill_process(Pid::from_child(server), signal).expect("sending a signal");
    }

    /// Starts a killed member again, and waits until it knows the leader.
    pub fn restart(&mut self, member: usize) {
        self.kill(member);
        self.servers[member] = Some(self.spawn(member));
        self.wait_for_leader(member);
    }

    /// The number of the leader, as the first member that answers knows it.
    pub fn leader(&self) -> usize {
        let (leader, _) = (0..self.len())
            .filter_map(|member| self.status(member))
            .find(|(leader, _)| *leader != 0)
            .expect("a leader");
        let is_leader = |member: &usize| self.status(*member).is_some_and(|(_, id)| id == leader);
        (0..self.len()).find(is_leader).expect("the leader answers")
    }

    /// The id of the leader that a member knows, 0 for none, and the id of the member itself.
    fn status(&self, member: usize) -> Option<(u64, u64)> {
        self.servers[member].as_ref()?;
        let args = ["--command-timeout=1s", "endpoint", "status", "-w", "json"];
        let output = self.control(&[self.url(member)]).args(args).output().expect("running etcdctl");
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        let status = &answer[0]["Status"];
        // A number without a value is left out.
        Some((status["leader"].as_u64().unwrap_or(0), status["header"]["member_id"].as_u64()?))
    }

    fn wait_for_leader(&self, member: usize) {
        let deadline = Instant::now() + PATIENCE * slowness();
        while self.status(member).is_none_or(|(leader, _)| leader == 0) {
            let log = || std::fs::read_to_string(self.log(member)).unwrap_or_default();
            assert!(Instant::now() < deadline, "member {member} has no leader: {}", log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Runs etcdctl with all running members; it must succeed. Returns its output.
    #[track_caller]
    pub fn etcdctl(&self, args: &[&str]) -> String {
        self.try_etcdctl(args).unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
    }

    /// Runs etcdctl with all running members. Returns its output, or its message if it fails.
    pub fn try_etcdctl(&self, args: &[&str]) -> Result<String, String> {
        let running = (0..self.len()).filter(|member| self.servers[*member].is_some());
        let urls: Vec<_> = running.map(|member| self.url(member)).collect();
        let output = self.control(&urls).args(args).output().expect("running etcdctl");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn control(&self, urls: &[String]) -> Command {
        let mut command = Command::new(program("etcdctl"));
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", urls.join(",")));
        if self.options.tls {
            command.arg("--cacert").arg(self.file("authority.ca.pem"));
            command.arg("--cert").arg(self.file("root.pem")).arg("--key").arg(self.file("root.key"));
        }
        command
    }

    /// Makes users, each with the permission for one prefix, and turns authorisation on. `permission` is
    /// `read`, `write` or `readwrite`. The user `root` may do everything.
    pub fn enable_auth(&self, users: &[(&str, &str, &str)]) {
        self.etcdctl(&["user", "add", "root", "--no-password"]);
        self.etcdctl(&["user", "grant-role", "root", "root"]);
        for (user, permission, prefix) in users {
            self.etcdctl(&["user", "add", user, "--no-password"]);
            self.etcdctl(&["role", "add", user]);
            self.etcdctl(&["role", "grant-permission", user, "--prefix=true", permission, prefix]);
            self.etcdctl(&["user", "grant-role", user, user]);
        }
        self.etcdctl(&["auth", "enable"]);
    }

    /// Deletes the history of all changes so far.
    pub fn compact(&self) {
        let status: Value =
            serde_json::from_str(&self.etcdctl(&["get", "/", "-w", "json"])).expect("JSON of etcdctl");
        let revision = status["header"]["revision"].as_u64().expect("a revision");
        self.etcdctl(&["compact", &revision.to_string()]);
    }

    /// Writes until the database is full. Needs [`Options::quota_bytes`].
    pub fn fill(&self) {
        let value = "x".repeat(100_000);
        let full = (0..10_000).find_map(|n| self.try_etcdctl(&["put", &format!("/fill/{n}"), &value]).err());
        let full = full.expect("a full database");
        assert!(full.contains("database space exceeded"), "{full}");
    }

    /// Saves the content of the cluster to a file.
    pub fn save(&self, file: &Path) {
        let urls = [self.url(self.leader())];
        let file = file.to_str().expect("UTF-8");
        let saved = self.control(&urls).args(["snapshot", "save", file]).output().expect("running etcdctl");
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    }

    /// Ends all members and starts them again with a saved content.
    pub fn restore(&mut self, file: &Path) {
        for member in 0..self.len() {
            self.kill(member);
            std::fs::remove_dir_all(self.data(member)).expect("removing the data");
            let mut command = Command::new(program("etcdctl"));
            command.env("ETCDCTL_API", "3").arg("snapshot").arg("restore").arg(file);
            command.arg("--data-dir").arg(self.data(member)).args(self.identity(member));
            let output = command.output().expect("running etcdctl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        self.start_all();
    }

    fn spawn(&self, member: usize) -> Child {
        let log = File::options().create(true).append(true).open(self.log(member)).expect("opening a log");
        let mut command = Command::new(program("etcd"));
        command.args(self.identity(member)).arg("--data-dir").arg(self.data(member));
        let (client, peer) = (self.url(member), self.peer_url(member));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]);
        // A leader's crash then stops the cluster for 0.4 s; etcd's defaults are for hosts far apart.
        command.args(["--heartbeat-interval=20", "--election-timeout=200", "--logger=zap"]);
        if let Some(bytes) = self.options.quota_bytes {
            command.arg(format!("--quota-backend-bytes={bytes}"));
        }
        if self.options.tls {
            let files = self.authority.sign(&format!("m{member}"), Some(self.options.addresses[member]));
            command.arg("--trusted-ca-file").arg(files.ca).arg("--client-cert-auth");
            command.arg("--cert-file").arg(files.cert).arg("--key-file").arg(files.key);
            // The gateway is a client of its own server, and no user of a fleet.
            command.arg("--enable-grpc-gateway=false");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        command.spawn().expect("starting etcd: install etcd-server")
    }

    /// The arguments that a server and a restoration have in common.
    fn identity(&self, member: usize) -> Vec<String> {
        let peers: Vec<_> = (0..self.len()).map(|peer| format!("m{peer}={}", self.peer_url(peer))).collect();
        vec![
            format!("--name=m{member}"),
            format!("--initial-advertise-peer-urls={}", self.peer_url(member)),
            format!("--initial-cluster={}", peers.join(",")),
            format!("--initial-cluster-token={}", self.token),
        ]
    }

    fn peer_url(&self, member: usize) -> String {
        format!("http://{}:{PEER_PORT}", self.options.addresses[member])
    }

    fn data(&self, member: usize) -> PathBuf {
        self.file(&format!("m{member}"))
    }

    fn log(&self, member: usize) -> PathBuf {
        self.file(&format!("m{member}.log"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            // A server that has ended by itself needs no signal.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The path of a program of etcd: in the directory of `BREAKER_ETCD`, else on the path.
fn program(name: &str) -> PathBuf {
    std::env::var_os("BREAKER_ETCD").map_or_else(|| name.into(), |directory| Path::new(&directory).join(name))
}
