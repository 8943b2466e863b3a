//! The environment of a drill: a trading host with the real binary, a venue, and a FIX session between them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cli_error::{CliError, Code};
use crate::kernel::Breaker;
use crate::kernel::PinRoot;
use crate::testbed::fix::{Acceptor, AcceptorSettings, Initiator, InitiatorSettings};
use crate::testbed::{self, Moment, TwoHosts};

/// Port of the venue.
const PORT: u16 = 9001;
/// Scope of the session at that port.
pub const SCOPE: &str = "session/xnys-1";
/// Another session, behind the keys of the first one.
pub const OTHER_SESSION: &str = "\n[[session]]\nname = \"xnas-1\"\nremote = \"10.9.0.2:9002\"\n";
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
    agent: Option<Child>,
    directory: PathBuf,
}

/// A trip by a person, as the drill measured it.
#[derive(Clone, Copy, Debug)]
pub struct Tripped {
    /// When the verb was started.
    pub started: Moment,
    /// When the switch was set in the kernel.
    pub switched: Moment,
    /// Orders that had crossed when the verb returned.
    pub crossed: u64,
}

/// Pin root in the trading host's own BPF file system.
const ROOT: &str = "/sys/fs/bpf/breaker";

/// The key `limits` with a limit on orders.
pub fn order_limit(max: u64, per: &str) -> String {
    format!("limits = [{{ class = \"order\", max = {max}, per = \"{per}\" }}]")
}

impl Environment {
    /// Creates the namespaces, starts the agent with a policy, and starts the venue. The policy has the
    /// session of [`SCOPE`]; `host` and `session` are more keys of both.
    pub fn new(host: &str, session: &str) -> Result<Self> {
        let hosts = TwoHosts::new().map_err(permission_error)?;
        let directory = std::env::temp_dir().join(format!("breaker-drill-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let at = SocketAddr::new(TwoHosts::VENUE, PORT);
        let text = format!(
            "policy = \"drill\"\n[agent]\nstate = {directory:?}\naudit = \"{0}/audit.jsonl\"\n\
             control = \"{0}/control.sock\"\n[host]\ninterfaces = [\"eth1\"]\n{host}\n\
             [[session]]\nname = \"xnys-1\"\nremote = \"{at}\"\n{session}",
            directory.display()
        );
        fs::write(directory.join("breaker.toml"), text).context("writing the drill's policy")?;
        let venue = hosts
            .venue
            .run(|| Acceptor::listen(at, AcceptorSettings::default()))
            .map_err(permission_error)?;
        let agent = spawn_agent(&hosts, &directory)?;
        let engine = Initiator::new(InitiatorSettings::new(at));
        let agent = Some(agent);
        let mut environment = Self { hosts, venue: Arc::new(venue), engine, agent, directory };
        environment.wait_for_agent()?;
        Ok(environment)
    }

    fn wait_for_agent(&mut self) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !matches!(self.with_breaker(|breaker| breaker.heartbeat_age_ns()), Ok(Some(_))) {
            if let Some(agent) = &mut self.agent
                && let Some(status) = agent.try_wait()?
            {
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
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        agent.kill().context("killing the agent")?;
        agent.wait().context("waiting for the agent's end")?;
        Ok(())
    }

    /// Starts an agent again, which adopts what is loaded.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(spawn_agent(&self.hosts, &self.directory)?);
        self.wait_for_agent()
    }

    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.join("breaker.toml")
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

    /// Runs a verb that must succeed. Returns its output.
    pub fn verb(&self, args: &[&str]) -> Result<String> {
        let output = self.run_verb(args)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        ensure!(output.status.success(), "`breaker {}` ended with {}: {said}", args.join(" "), output.status);
        Ok(said)
    }

    /// Trips a scope, as a person would. `session` is the number of the session whose orders are counted.
    pub fn trip(&self, scope: &str, session: usize) -> Result<Tripped> {
        let started = Moment::now();
        self.verb(&["trip", scope, "--reason", "drill"])?;
        let crossed = self.crossed(session)?;
        let switched = self.with_breaker(|breaker| Ok(breaker.switch(breaker.find(scope)?)?.raised_ns))?;
        Ok(Tripped { started, switched: Moment::from_nanos(switched), crossed })
    }

    /// Resets a scope, as a person would.
    pub fn reset(&self, scope: &str) -> Result<()> {
        self.verb(&["reset", scope, "--reason", "drill"]).map(drop)
    }

    /// Number of orders of a session that have crossed, as the kernel program counts them.
    pub fn crossed(&self, session: usize) -> Result<u64> {
        self.with_breaker(|breaker| {
            let counters = breaker.counters()?;
            Ok(counters.get(session).context("the session has no counters")?.passed[0])
        })
    }

    /// The causes of a scope's trip.
    pub fn causes(&self, scope: &str) -> Result<u64> {
        self.with_breaker(|breaker| Ok(breaker.switch(breaker.find(scope)?)?.causes))
    }

    /// Adds an engine and a venue of a second session, which trade on another port.
    pub fn second_session(&self, port: u16) -> Result<(Acceptor, Initiator)> {
        let at = SocketAddr::new(TwoHosts::VENUE, port);
        let venue = self.hosts.venue.run(|| Acceptor::listen(at, AcceptorSettings::default()))?;
        let engine = Initiator::new(InitiatorSettings::new(at));
        self.hosts.firm.run(|| engine.connect())?;
        engine.logon()?;
        Ok((venue, engine))
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
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
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
