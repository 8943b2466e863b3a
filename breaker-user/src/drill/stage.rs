//! The stage: a trading host and a venue, the real binary on the host, a FIX session between them.

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

/// The port that the venue listens on.
const PORT: u16 = 9001;
/// How long to wait for what takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Stage {
    /// The two namespaces.
    pub wire: TwoHosts,
    /// The venue's end.
    pub venue: Arc<Acceptor>,
    /// The trading engine.
    pub engine: Initiator,
    agent: Child,
    directory: PathBuf,
}

/// Where everything is pinned, in the trading host's own BPF file system.
const ROOT: &str = "/sys/fs/bpf/breaker";

impl Stage {
    /// Sets everything up: namespaces, a policy loaded by the agent, the venue listening.
    pub fn set(policy: &str) -> Result<Self> {
        let wire = TwoHosts::new().map_err(denied)?;
        let directory = std::env::temp_dir().join(format!("breaker-drill-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let text = format!(
            "policy = \"drill\"\n[agent]\nstate = {directory:?}\naudit = \"{0}/audit.jsonl\"\ncontrol = \"{0}/control.sock\"\n{policy}",
            directory.display()
        );
        fs::write(directory.join("breaker.toml"), text).context("writing the drill's policy")?;
        let at = SocketAddr::new(TwoHosts::VENUE, PORT);
        let venue = wire.venue.run(|| Acceptor::listen(at, AcceptorSettings::default())).map_err(denied)?;
        let agent = spawn_agent(&wire, &directory)?;
        let engine = Initiator::new(InitiatorSettings::new(at));
        let mut stage = Self { wire, venue: Arc::new(venue), engine, agent, directory };
        stage.wait_for_agent()?;
        Ok(stage)
    }

    fn wait_for_agent(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !matches!(self.with(|breaker| breaker.heartbeat_age_ns()), Ok(Some(_))) {
            if let Some(status) = self.agent.try_wait()? {
                bail!("starting the agent: it ended with {status}: see what it said above");
            }
            if Instant::now() > until {
                bail!("starting the agent: it did not beat within {PATIENCE:?}");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills the agent as a crash would: SIGKILL, nothing of it runs any more.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.kill().context("killing the agent")?;
        self.agent.wait().context("waiting for the agent's end")?;
        Ok(())
    }

    /// Reads or changes what is loaded on the trading host.
    pub fn with<R: Send>(&self, f: impl FnOnce(&Breaker) -> Result<R> + Send) -> Result<R> {
        self.wire.firm.run(|| f(&Breaker::open(&PinRoot::new(ROOT))?))
    }

    /// Runs a verb on the trading host, as a person types it there.
    pub fn verb(&self, args: &[&str]) -> Result<Output> {
        let exe = std::env::current_exe().context("finding this program")?;
        let output = self.wire.firm.run(|| breaker(exe).args(args).output()).context("running breaker")?;
        Ok(output)
    }

    /// Connects the engine and logs on.
    pub fn log_on(&self) -> Result<()> {
        self.wire.firm.run(|| self.engine.connect())?;
        Ok(self.engine.logon()?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The namespaces, their pins and hooks go by themselves; these two do not.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// This program on the trading host, whose pins end with the drill.
fn breaker(exe: PathBuf) -> Command {
    let mut command = Command::new(exe);
    command.env("BREAKER_PIN_ROOT", ROOT).env("BREAKER_PRIVATE_PINS", "1");
    command
}

fn spawn_agent(wire: &TwoHosts, directory: &std::path::Path) -> Result<Child> {
    let exe = std::env::current_exe().context("finding this program")?;
    let config = directory.join("breaker.toml");
    let start = || breaker(exe).arg("agent").arg("--config").arg(config).stdout(Stdio::null()).spawn();
    wire.firm.run(start).context("starting the agent")
}

/// A laboratory that cannot be had for want of rights has that exit code.
fn denied(error: testbed::Error) -> anyhow::Error {
    if error.found.kind() == std::io::ErrorKind::PermissionDenied {
        return CliError::new(Code::Permission, error.to_string()).into();
    }
    error.into()
}
