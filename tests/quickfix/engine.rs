//! A QuickFIX engine as a child process, with the events that it reports. The program is `engine.cpp` beside
//! this file.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use breaker_user::testbed::{Namespace, TwoHosts};
use tempfile::TempDir;

/// Timeout of any event, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds between heartbeats. QuickFIX ends a silent connection after 2.4 times that.
const HEARTBEAT: u32 = 2;

/// Event that stands for the end of the engine.
const ENDED: &str = "ended";

/// A NewOrderSingle, as the engine that wrote or read it reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// ClOrdID(11).
    pub id: String,
    /// PossDupFlag(43)=Y.
    pub poss_dup: bool,
}

/// The running engine. The process is killed when the value is dropped.
pub struct Engine {
    name: &'static str,
    child: Child,
    commands: ChildStdin,
    events: Arc<Lines>,
    _directory: TempDir,
}

/// A position in the events of an engine: only later events count.
#[derive(Clone, Copy)]
pub struct Mark(usize);

impl Mark {
    /// The position before all events.
    pub const START: Self = Self(0);
}

#[derive(Default)]
struct Lines {
    all: Mutex<Vec<String>>,
    added: Condvar,
}

impl Engine {
    /// The venue: an acceptor on port 9001.
    pub fn venue(namespace: &Namespace) -> Self {
        let own = "ConnectionType=acceptor\nSocketAcceptPort=9001\nSocketReuseAddress=Y\n\
                   SenderCompID=VENUE\nTargetCompID=FIRM";
        Self::start(namespace, "venue", "acceptor", own)
    }

    /// The trading firm: an initiator that reconnects a second after its connection has ended. `settings` are
    /// lines of QuickFIX's configuration.
    pub fn firm(namespace: &Namespace, settings: &str) -> Self {
        let address = TwoHosts::VENUE;
        let own = format!(
            "ConnectionType=initiator\nSocketConnectHost={address}\nSocketConnectPort=9001\nReconnectInterval=1\n\
             SenderCompID=FIRM\nTargetCompID=VENUE\n{settings}"
        );
        Self::start(namespace, "firm", "initiator", &own)
    }

    fn start(namespace: &Namespace, name: &'static str, role: &str, own: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let settings = directory.path().join("engine.cfg");
        // QuickFIX reads socket settings from [DEFAULT] only.
        let text = format!(
            "[DEFAULT]\nHeartBtInt={HEARTBEAT}\nStartTime=00:00:00\nEndTime=00:00:00\nUseDataDictionary=N\n{own}\n\
             [SESSION]\nBeginString=FIX.4.4\n"
        );
        std::fs::write(&settings, text).expect("writing the settings");
        let mut command = Command::new(program());
        command.arg(role).arg(settings).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = namespace.run(|| command.spawn()).expect("starting the engine");
        let commands = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its standard output"));
        let events = Arc::new(Lines::default());
        let lines = events.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                lines.all.lock().expect("a lock").push(line);
                lines.added.notify_all();
            }
            lines.all.lock().expect("a lock").push(ENDED.to_owned());
            lines.added.notify_all();
        });
        let engine = Self { name, child, commands, events, _directory: directory };
        engine.wait(Mark::START, "its start", |events| events.iter().any(|line| line == "started"));
        engine
    }

    /// Gives a command, and waits until it is taken.
    pub fn command(&mut self, command: &str) {
        let mark = self.mark();
        writeln!(self.commands, "{command}").expect("commanding the engine");
        self.wait(mark, command, |events| events.iter().any(|line| line == "done"));
    }

    /// Sends orders from R-FIRST on, as fast as possible.
    pub fn order(&mut self, first: u32, count: u32) {
        self.command(&format!("order R {first} {count}"));
    }

    /// The current position.
    pub fn mark(&self) -> Mark {
        Mark(self.events.all.lock().expect("a lock").len())
    }

    /// Waits for an event. Returns the position behind it.
    pub fn wait_for(&self, event: &str, since: Mark) -> Mark {
        let position = |events: &[String]| events.iter().position(|line| line == event);
        self.wait(since, event, |events| position(events).is_some());
        let all = self.events.all.lock().expect("a lock");
        Mark(since.0 + position(&all[since.0..]).expect("what was waited for") + 1)
    }

    /// Waits until the engine is logged on and, if it has asked for missed messages, until the gap was
    /// skipped. If the other end keeps no messages, the sequence is then complete: QuickFIX skips up to its
    /// latest message, new orders included.
    pub fn wait_for_logon(&self, since: Mark) -> Mark {
        let up = self.wait_for("logon", since);
        let asked =
            self.events.all.lock().expect("a lock")[since.0..up.0].iter().any(|line| line == "out 2 - N");
        if asked { self.wait_for("in 4 - Y", since) } else { up }
    }

    /// Waits until the engine has taken `count` different orders from its session layer.
    pub fn wait_for_orders(&self, count: usize, since: Mark) {
        let ids = |events: &[String]| {
            orders(events, "taken").into_iter().map(|order| order.id).collect::<HashSet<_>>()
        };
        self.wait(since, &format!("{count} orders"), |events| ids(events).len() >= count);
    }

    /// Orders received, in order of arrival.
    pub fn orders_in(&self, since: Mark) -> Vec<Order> {
        orders(&self.events.all.lock().expect("a lock")[since.0..], "in")
    }

    /// Orders taken from the session layer.
    pub fn orders_taken(&self, since: Mark) -> Vec<Order> {
        orders(&self.events.all.lock().expect("a lock")[since.0..], "taken")
    }

    /// Orders written to a connection.
    pub fn orders_out(&self, since: Mark) -> Vec<Order> {
        orders(&self.events.all.lock().expect("a lock")[since.0..], "out")
    }

    /// Stops the process, or continues it.
    pub fn freeze(&self, frozen: bool) {
        let id = rustix::process::Pid::from_child(&self.child);
        let signal = if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(id, signal).expect("signalling the engine");
    }

    /// Logs out, and waits for the end.
    pub fn quit(mut self) {
        self.command("quit");
        assert!(self.child.wait().expect("waiting for the engine").success());
    }

    /// Waits until a condition holds for the events since a position.
    fn wait(&self, since: Mark, what: &str, condition: impl Fn(&[String]) -> bool) {
        let all = self.events.all.lock().expect("a lock");
        let in_vain = |all: &[String]| all.last().is_some_and(|line| line == ENDED);
        let going_on = |all: &mut Vec<String>| !condition(&all[since.0..]) && !in_vain(all);
        let (all, _) = self.events.added.wait_timeout_while(all, PATIENCE, going_on).expect("a lock");
        let (holds, tail) = (condition(&all[since.0..]), all[all.len().saturating_sub(40)..].join("\n"));
        drop(all);
        assert!(holds, "timeout of the {}: {what}; its last events:\n{tail}", self.name);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn orders(events: &[String], direction: &str) -> Vec<Order> {
    let start = format!("{direction} D ");
    let rest = events.iter().filter_map(|line| line.strip_prefix(&start)?.split_once(' '));
    rest.map(|(id, poss_dup)| Order { id: id.to_owned(), poss_dup: poss_dup == "Y" }).collect()
}

/// Compiles the engine, unless the program is newer than its source.
fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(compile).clone()
}

fn compile() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickfix/engine.cpp");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quickfix-engine");
    let header = Path::new("/usr/include/quickfix/Session.h");
    assert!(header.exists(), "there is no {}: install the package libquickfix-dev", header.display());
    let written = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    if written(&program) > written(&source) {
        return program;
    }
    // Written as a whole: another test may be starting the program.
    let new = program.with_extension(std::process::id().to_string());
    let mut compiler = Command::new("g++");
    // The headers' exception specifications are not valid in C++17.
    compiler.args(["-std=c++14", "-O1", "-Wall", "-Wextra", "-Wno-deprecated"]);
    compiler.arg(&source).arg("-o").arg(&new).args(["-lquickfix", "-lpthread"]);
    let ran =
        compiler.output().unwrap_or_else(|error| panic!("running g++: {error}: install the package g++"));
    assert!(ran.status.success(), "compiling engine.cpp:\n{}", String::from_utf8_lossy(&ran.stderr));
    std::fs::rename(&new, &program).expect("moving the engine into place");
    program
}
