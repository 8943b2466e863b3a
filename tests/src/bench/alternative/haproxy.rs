//! HAProxy in TCP mode on the trading host.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use breaker_user::testbed::{Namespace, TwoHosts};
use tempfile::TempDir;

use super::kind::{PORT, Unavailable};
use crate::bench::shell::run_here;

/// A shell that ends HAProxy when its own input closes, so also when the bench is killed.
const SUPERVISED: &str = "haproxy -db -f \"$0\" & read -r _; kill $!; wait";

/// A running HAProxy. It ends when the value is dropped.
pub struct Haproxy {
    process: Child,
    directory: TempDir,
}

impl Haproxy {
    /// Starts HAProxy and waits until it answers on its socket.
    pub fn start(firm: &Namespace) -> Result<Self, Unavailable> {
        let directory = TempDir::new().expect("a directory");
        let config = directory.path().join("haproxy.cfg");
        std::fs::write(&config, text(&directory)).expect("writing its configuration");
        run_here("haproxy -v", "")?;
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISED]).arg(config).env("PATH", path);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = firm.run(|| command.spawn()).map_err(|error| format!("haproxy: {error}"))?;
        let started = Self { process, directory };
        let until = Instant::now() + Duration::from_secs(5);
        while started.command("show info").is_err() {
            assert!(Instant::now() < until, "haproxy does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(started)
    }

    /// Accepts no connections, and ends the existing ones.
    pub fn stop(&self) -> Result<(), Unavailable> {
        self.command("disable frontend firm")?;
        self.command("shutdown sessions server venue/x1")
    }

    /// Accepts connections again.
    pub fn resume(&self) -> Result<(), Unavailable> {
        self.command("enable frontend firm")
    }

    fn command(&self, words: &str) -> Result<(), Unavailable> {
        let ask = || {
            let mut stream = UnixStream::connect(socket(&self.directory))?;
            stream.write_all(format!("{words}\n").as_bytes())?;
            stream.read_to_end(&mut Vec::new())
        };
        ask().map(drop).map_err(|error| format!("haproxy: {error}"))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("admin")
}

fn text(directory: &TempDir) -> String {
    let (socket, venue) = (socket(directory), TwoHosts::venue_socket(PORT));
    format!(
        "global\n stats socket {} mode 600 level admin\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         frontend firm\n bind 127.0.0.1:{PORT}\n default_backend venue\n\
         backend venue\n server x1 {venue}\n",
        socket.display()
    )
}
