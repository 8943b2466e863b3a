//! An agent on a testbed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::command;
use crate::network::Network;
use crate::testbed::Testbed;

/// A running agent. It is killed when the value is dropped.
pub struct Agent {
    child: Child,
    /// The first line of its output, which says that it is ready.
    pub ready: String,
}

impl Agent {
    /// Starts an agent with the configuration of the testbed, and waits until it is ready.
    pub fn start<N: Network>(testbed: &Testbed<N>) -> Self {
        Self::with_config(testbed, &testbed.config())
    }

    /// Starts an agent with another configuration, and waits until it is ready.
    #[track_caller]
    pub fn with_config<N: Network>(testbed: &Testbed<N>, config: &Path) -> Self {
        let mut command = command();
        command.args(["agent", "--config"]).arg(config).env_remove("NOTIFY_SOCKET");
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = testbed.on_host(|| command.spawn().expect("starting an agent"));
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut ready).expect("its first line");
        assert!(!ready.is_empty(), "the agent has ended");
        Self { child, ready }
    }

    /// Process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("sending a signal");
    }

    /// Stops the agent by SIGTERM; it must end with success.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().expect("waiting for its end").success(), "{}", self.ready);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // After `stop` the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer of the agent on the host to a request for its metrics, with the HTTP header.
pub fn metrics<N: Network>(testbed: &Testbed<N>) -> String {
    get(testbed, "/metrics")
}

/// The answer of the agent on the host to a request for a path, with the HTTP header.
pub fn get<N: Network>(testbed: &Testbed<N>, path: &str) -> String {
    let mut stream = testbed.on_host(|| TcpStream::connect("127.0.0.1:9469")).expect("connecting");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asking");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The first state that the agent on the host sends to a viewer of its page.
pub fn state<N: Network>(testbed: &Testbed<N>) -> Value {
    let mut stream = testbed.on_host(|| TcpStream::connect("127.0.0.1:9469")).expect("connecting");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").expect("asking");
    let mut answer = String::new();
    for line in BufReader::new(stream).lines() {
        answer = line.expect("a line");
        if let Some(json) = answer.strip_prefix("data: ") {
            return serde_json::from_str(json).expect("JSON");
        }
    }
    panic!("the stream ended without a state: {answer}");
}
