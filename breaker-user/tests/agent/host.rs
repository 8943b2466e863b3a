//! A trading host in a namespace of its own, with the binary as a user runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_user::audit::{self, Line};
use breaker_user::kernel::{Breaker, PinRoot};
use breaker_user::testbed::TwoHosts;
use rustix::process::{Pid, Signal, kill_process};

/// In the BPF file system of the namespace: two hosts do not meet there.
pub const ROOT: &str = "/sys/fs/bpf/breaker";
/// Where the agent serves.
pub const METRICS: &str = "127.0.0.1:9469";
/// One session that may send three orders a minute.
pub const THREE: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
possdup = "pass"
limits = [{ class = "order", max = 3, per = "1m", warn = [60] }]
"#;

/// True where the privileged tests can run.
pub fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: needs root");
    }
    root
}

/// A trading host, its venue, and a directory for its files.
pub struct Host {
    pub wire: TwoHosts,
    directory: PathBuf,
}

impl Host {
    /// A host with this policy, and nothing loaded. The text is what follows `[host]` and its `interfaces`.
    pub fn new(policy: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("breaker-agent-{}-{number}", std::process::id()));
        fs::create_dir_all(directory.join("log")).expect("a directory");
        let host = Self { wire: TwoHosts::new().expect("namespaces"), directory };
        let agent = format!("[agent]\nmetrics = \"{METRICS}\"\naudit = {:?}\n", host.audit());
        let text = format!("policy = \"test\"\n{agent}[host]\ninterfaces = [\"eth1\"]\n{policy}");
        fs::write(host.config(), text).expect("a configuration");
        host
    }

    pub fn config(&self) -> PathBuf {
        self.directory.join("breaker.toml")
    }

    pub fn audit(&self) -> PathBuf {
        self.directory.join("log/audit.jsonl")
    }

    /// Does something on the host.
    pub fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.wire.firm.run(f)
    }

    /// Does something with what is loaded.
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

    /// Runs a verb to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.inside(|| self.command(args).output().expect("running breaker"))
    }

    /// Runs a verb that ends well.
    pub fn done(&self, args: &[&str]) {
        let ran = self.cli(args);
        assert_eq!(ran.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Loads the policy.
    pub fn load(&self) {
        self.done(&["load", "--config", &self.config().display().to_string()]);
    }

    /// Starts an agent and waits for its line.
    pub fn agent(&self) -> Agent {
        self.agent_with(|_| {})
    }

    /// The same, with something done to the command before.
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

    /// Runs an agent that does not get to serve.
    pub fn refused_agent(&self) -> Output {
        self.cli(&["agent", "--config", &self.config().display().to_string()])
    }

    /// Connects to the venue.
    pub fn connect(&self, port: u16) -> TcpStream {
        let stream = self.inside(|| TcpStream::connect(TwoHosts::venue_socket(port))).expect("connecting");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// Connects to the agent.
    pub fn peer(&self) -> TcpStream {
        let to: SocketAddr = METRICS.parse().expect("an address");
        let stream = self.inside(|| TcpStream::connect(to)).expect("connecting to the agent");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        stream
    }

    /// Asks the agent something, and returns head and body of its answer.
    pub fn ask(&self, request: &str) -> (String, String) {
        let mut stream = self.peer();
        stream.write_all(request.as_bytes()).expect("asking");
        let mut answer = Vec::new();
        // An end by reset is an end as well, where not all of a request was read.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
        (head.to_owned(), body.to_owned())
    }

    /// Status code and body of a page.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body)
    }

    /// A figure of the metrics.
    pub fn figure(&self, sample: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Lines of the audit log that are there now.
    pub fn lines(&self) -> Vec<Line> {
        let lines = fs::read_to_string(self.audit()).unwrap_or_default();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no event: {line}")))
            .collect()
    }

    /// Lines of a kind.
    pub fn told(&self, kind: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.kind == kind).collect()
    }

    /// Waits until there are so many lines of a kind.
    pub fn wait_for(&self, kind: &str, count: usize) -> Vec<Line> {
        eventually(|| Some(self.told(kind)).filter(|told| told.len() >= count))
            .unwrap_or_else(|| panic!("waited in vain for {count} of {kind}: {:#?}", self.lines()))
    }

    /// The log is whole.
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
    /// What it said when it was ready.
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

    /// Waits for its end. Returns what it has said on standard error.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = eventually(|| self.child.try_wait().expect("waiting"));
        let status = status.expect("the agent ends");
        let mut text = String::new();
        self.child.stderr.take().expect("its errors").read_to_string(&mut text).expect("its errors");
        (status, text)
    }

    /// Asks it to end, and sees that it ends well.
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, text) = self.wait();
        assert_eq!(status.code(), Some(0), "{text}");
        text
    }

    /// kill -9.
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

/// What a question comes to within ten seconds.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > until {
            return answer;
        }
        sleep(Duration::from_millis(10));
    }
}

/// A new order.
pub fn order(number: u32) -> Vec<u8> {
    let body =
        format!("35=D\x0149=FIRM\x0156=XNYS\x0134={number}\x0111=R{number}\x0155=ACME\x0154=1\x0138=100\x01");
    let head = format!("8=FIX.4.4\x019={}\x01{body}", body.len());
    let sum = head.bytes().map(u32::from).sum::<u32>() % 256;
    format!("{head}10={sum:03}\x01").into_bytes()
}

/// What promtool says of a text, and whether it is content with it; `None` where it is not installed.
pub fn promtool(text: &str) -> Option<(bool, String)> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("SKIP: promtool is not installed (package prometheus)");
        return None;
    };
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("writing to promtool");
    let ran = child.wait_with_output().expect("promtool");
    Some((ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned()))
}

/// Reads all of a venue's connections and throws it away.
pub fn swallow(host: &Host, port: u16) {
    let listener =
        host.wire.venue.run(|| std::net::TcpListener::bind(TwoHosts::venue_socket(port))).expect("listening");
    host.wire.venue.spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
}

/// Where a file of the pin root is.
pub fn pin(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}
