//! A trading host in a network namespace, with the binary as a user runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_user::audit::{self, Entry, Line};
use breaker_user::kernel::{Breaker, PinRoot};
use breaker_user::testbed::TwoHosts;
use rustix::process::{Pid, Signal, kill_process};

/// Pin root in the BPF file system of the namespace.
pub const ROOT: &str = "/sys/fs/bpf/breaker";
/// Address of the agent's metrics.
pub const METRICS: &str = "127.0.0.1:9469";
/// A policy with one session that may send three orders a minute.
pub const THREE: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
possdup = "pass"
limits = [{ class = "order", max = 3, per = "1m", warn = [60] }]
"#;

/// Returns true if the privileged tests can run.
pub fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: needs root");
    }
    root
}

/// A trading host, its venue, and a directory for its files.
pub struct Host {
    pub hosts: TwoHosts,
    directory: PathBuf,
}

impl Host {
    /// Creates a host with nothing loaded. The policy follows `[host]` with its `interfaces`.
    pub fn new(policy: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("breaker-agent-{}-{number}", std::process::id()));
        fs::create_dir_all(directory.join("log")).expect("a directory");
        let host = Self { hosts: TwoHosts::new().expect("namespaces"), directory };
        let (audit, state) = (host.audit(), host.state());
        let control = host.directory.join("control.sock");
        let paths = format!("audit = {audit:?}\nstate = {state:?}\ncontrol = {control:?}\n");
        let agent = format!("[agent]\nmetrics = \"{METRICS}\"\n{paths}");
        let text = format!("policy = \"test\"\n{agent}[host]\ninterfaces = [\"eth1\"]\n{policy}");
        fs::write(host.config(), text).expect("a configuration");
        host
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("breaker.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub fn audit(&self) -> PathBuf {
        self.directory.join("log/audit.jsonl")
    }

    /// Runs a function on the trading host.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.hosts.firm.run(f)
    }

    /// Runs a function with the loaded breaker.
    pub fn breaker<R: Send>(&self, f: impl FnOnce(&Breaker) -> R + Send) -> R {
        self.inside(|| f(&Breaker::open(&PinRoot::new(ROOT)).expect("opening what is loaded")))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_breaker"));
        command
            .args(["--pin-root", ROOT])
            .args(args)
            .env_remove("NOTIFY_SOCKET")
            .env("NO_COLOR", "1")
            .env("BREAKER_PRIVATE_PINS", "1");
        command
    }

    /// Runs a verb and returns its output.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.inside(|| self.command(args).output().expect("running breaker"))
    }

    /// Runs a verb that must succeed.
    pub fn cli_ok(&self, args: &[&str]) {
        let ran = self.cli(args);
        assert_eq!(ran.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Loads the policy.
    pub fn load(&self) {
        self.cli_ok(&["load", "--config", &self.config().display().to_string()]);
    }

    /// Starts an agent and waits for its first line of output.
    pub fn agent(&self) -> Agent {
        self.agent_with(|_| {})
    }

    /// Like [`Host::agent`], with a changed command.
    pub fn agent_with(&self, change: impl FnOnce(&mut Command) + Send) -> Agent {
        let config = self.config().display().to_string();
        let mut command = self.command(&["agent", "--config", &config]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = self.inside(|| command.spawn().expect("starting the agent"));
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        out.read_line(&mut line).expect("its line");
        if line.is_empty() {
            let mut text = String::new();
            child.stderr.take().expect("its errors").read_to_string(&mut text).expect("its errors");
            panic!("the agent did not start: {text}");
        }
        Agent { child, line, _out: out }
    }

    /// Runs an agent that must not start.
    pub fn refused_agent(&self) -> Output {
        self.cli(&["agent", "--config", &self.config().display().to_string()])
    }

    /// Opens a connection to the venue.
    pub fn connect(&self, port: u16) -> TcpStream {
        let stream = self.inside(|| TcpStream::connect(TwoHosts::venue_socket(port))).expect("connecting");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// Opens a connection to the agent's metrics.
    pub fn peer(&self) -> TcpStream {
        let to: SocketAddr = METRICS.parse().expect("an address");
        let stream = self.inside(|| TcpStream::connect(to)).expect("connecting to the agent");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        stream
    }

    /// Sends a request to the agent, and returns head and body of the response.
    pub fn request(&self, request: &str) -> (String, String) {
        let mut stream = self.peer();
        stream.write_all(request.as_bytes()).expect("sending");
        let mut response = Vec::new();
        // The connection may end with an RST if the agent did not read the whole request.
        let _ = stream.read_to_end(&mut response);
        let response = String::from_utf8(response).expect("text");
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {response:?}"));
        (head.to_owned(), body.to_owned())
    }

    /// Status code and body of a page.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body)
    }

    /// Value of a metric.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// All entries of the audit log now.
    pub fn all_entries(&self) -> Vec<Entry> {
        let lines = fs::read_to_string(self.audit()).unwrap_or_default();
        let parse = |line: &str| {
            serde_json::from_str::<Line>(line).unwrap_or_else(|_| panic!("not an event: {line}"))
        };
        lines.lines().map(|line| parse(line).entry).collect()
    }

    /// Entries of a kind.
    pub fn entries(&self, kind: &str) -> Vec<Entry> {
        self.all_entries().into_iter().filter(|entry| entry.kind == kind).collect()
    }

    /// Waits for a number of entries of a kind.
    pub fn wait_for(&self, kind: &str, count: usize) -> Vec<Entry> {
        eventually(|| Some(self.entries(kind)).filter(|entries| entries.len() >= count))
            .unwrap_or_else(|| panic!("waited in vain for {count} of {kind}: {:#?}", self.all_entries()))
    }

    /// Verifies the audit log.
    pub fn verify(&self) {
        audit::verify(&self.audit()).expect("an unbroken chain");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A running agent.
pub struct Agent {
    child: Child,
    /// Its first line of output.
    pub line: String,
    _out: BufReader<ChildStdout>,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// Waits for its end. Returns its exit status and standard error.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = eventually(|| self.child.try_wait().expect("waiting"));
        let status = status.expect("the agent ends");
        let mut text = String::new();
        self.child.stderr.take().expect("its errors").read_to_string(&mut text).expect("its errors");
        (status, text)
    }

    /// Stops it with SIGTERM, which must succeed. Returns its standard error.
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, text) = self.wait();
        assert_eq!(status.code(), Some(0), "{text}");
        text
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("killing");
        self.child.wait().expect("its end");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repeats a check until it returns a value, for at most ten seconds.
pub fn eventually<T>(mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let result = check();
        if result.is_some() || Instant::now() > deadline {
            return result;
        }
        sleep(Duration::from_millis(10));
    }
}

/// A NewOrderSingle(D).
pub fn order(number: u32) -> Vec<u8> {
    let body =
        format!("35=D\x0149=FIRM\x0156=XNYS\x0134={number}\x0111=R{number}\x0155=ACME\x0154=1\x0138=100\x01");
    let head = format!("8=FIX.4.4\x019={}\x01{body}", body.len());
    let sum = head.bytes().map(u32::from).sum::<u32>() % 256;
    format!("{head}10={sum:03}\x01").into_bytes()
}

/// Runs `promtool check metrics`. Returns its success and standard error.
pub fn promtool(text: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starting promtool (package prometheus)");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("writing to promtool");
    let ran = child.wait_with_output().expect("promtool");
    (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

/// Starts a server of the venue that discards what it receives.
pub fn discard_server(host: &Host, port: u16) {
    let venue = &host.hosts.venue;
    let listener =
        venue.run(|| std::net::TcpListener::bind(TwoHosts::venue_socket(port))).expect("listening");
    venue.spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
}

/// Path of a file in the pin root.
pub fn pin(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}
