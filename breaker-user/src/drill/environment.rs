//! The environment of a drill: a trading host with the real binary, a venue, and a FIX session between them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cli_error::{CliError, Code};
use crate::kernel::Breaker;
use crate::kernel::PinRoot;
use crate::testbed::fix::{Acceptor, AcceptorSettings, Initiator, InitiatorSettings};
use crate::testbed::{self, TwoHosts};

/// Port of the venue.
const PORT: u16 = 9001;
/// Longest wait for events that take milliseconds.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A running trading host and venue.
pub struct Environment {
    /// The two namespaces.
    pub hosts: TwoHosts,
    /// The venue's FIX acceptor.
    pub venue: Arc<Acceptor>,
    /// The trading engine.
    pub engine: Initiator,
    agent: Child,
    directory: PathBuf,
}

/// Pin root in the trading host's own BPF file system.
const ROOT: &str = "/sys/fs/bpf/breaker";

impl Environment {
    /// Creates the namespaces, starts the agent with a policy, and starts the venue.
    pub fn new(policy: &str) -> Result<Self> {
        let hosts = TwoHosts::new().map_err(permission_error)?;
        let directory = std::env::temp_dir().join(format!("breaker-drill-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let text = format!(
            "policy = \"drill\"\n[agent]\nstate = {directory:?}\naudit = \"{0}/audit.jsonl\"\n\
             control = \"{0}/control.sock\"\n{policy}",
            directory.display()
        );
        fs::write(directory.join("breaker.toml"), text).context("writing the drill's policy")?;
        let at = SocketAddr::new(TwoHosts::VENUE, PORT);
        let venue = hosts
            .venue
            .run(|| Acceptor::listen(at, AcceptorSettings::default()))
            .map_err(permission_error)?;
        let agent = spawn_agent(&hosts, &directory)?;
        let engine = Initiator::new(InitiatorSettings::new(at));
        let mut environment = Self { hosts, venue: Arc::new(venue), engine, agent, directory };
        environment.wait_for_agent()?;
        Ok(environment)
    }

    fn wait_for_agent(&mut self) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !matches!(self.with_breaker(|breaker| breaker.heartbeat_age_ns()), Ok(Some(_))) {
            if let Some(status) = self.agent.try_wait()? {
                bail!("starting the agent: it ended with {status}: see its messages above");
            }
            if Instant::now() > deadline {
                bail!("starting the agent: no heartbeat within {TIMEOUT:?}: see its messages above");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills the agent with SIGKILL, like a crash.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.kill().context("killing the agent")?;
        self.agent.wait().context("waiting for the agent's end")?;
        Ok(())
    }

    /// Reads or changes the maps of the trading host.
    pub fn with_breaker<R: Send>(&self, f: impl FnOnce(&Breaker) -> Result<R> + Send) -> Result<R> {
        self.hosts.firm.run(|| f(&Breaker::open(&PinRoot::new(ROOT))?))
    }

    /// Runs a verb on the trading host, as a person would.
    pub fn run_verb(&self, args: &[&str]) -> Result<Output> {
        let exe = std::env::current_exe().context("finding this program")?;
        let output = self.hosts.firm.run(|| breaker(exe).args(args).output()).context("running breaker")?;
        Ok(output)
    }

    /// Connects the engine and logs on.
    pub fn log_on(&self) -> Result<()> {
        self.hosts.firm.run(|| self.engine.connect())?;
        Ok(self.engine.logon()?)
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // The kernel removes the namespaces with their pins and hooks, but neither the agent nor the
        // directory.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A command of this program on the trading host, whose pins end with the drill.
fn breaker(exe: PathBuf) -> Command {
    let mut command = Command::new(exe);
    command.env("BREAKER_PIN_ROOT", ROOT).env("BREAKER_PRIVATE_PINS", "1");
    command
}

fn spawn_agent(hosts: &TwoHosts, directory: &std::path::Path) -> Result<Child> {
    let exe = std::env::current_exe().context("finding this program")?;
    let config = directory.join("breaker.toml");
    let start = || breaker(exe).arg("agent").arg("--config").arg(config).stdout(Stdio::null()).spawn();
    hosts.firm.run(start).context("starting the agent")
}

/// Gives a missing permission its exit code.
fn permission_error(error: testbed::Error) -> anyhow::Error {
    if error.found.kind() == std::io::ErrorKind::PermissionDenied {
        return CliError::new(Code::Permission, error.to_string()).into();
    }
    error.into()
}
