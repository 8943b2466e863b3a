//! Temporary accounts and groups for tests with real users. Each is removed when its value is dropped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::argument;
use crate::command::{CliOutput, binary};
use crate::network::Network;
use crate::testbed::Testbed;

/// An account.
pub struct User {
    /// Its name, unique on this machine.
    pub name: String,
    /// Its uid.
    pub uid: u32,
}

/// A group.
pub struct Group {
    /// Its name, unique on this machine.
    pub name: String,
}

fn unique(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bt-{kind}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Group {
    /// Creates a group.
    #[track_caller]
    pub fn new() -> Self {
        let name = unique("g");
        run("groupadd", &[&name]);
        Self { name }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("groupdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}

impl User {
    /// Creates an account in these groups.
    #[track_caller]
    pub fn new(groups: &[&Group]) -> Self {
        let name = unique("u");
        let groups: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
        let mut args = vec!["-M", "-N", "-s", "/usr/sbin/nologin"];
        let groups = groups.join(",");
        if !groups.is_empty() {
            args.extend(["-G", groups.as_str()]);
        }
        args.push(&name);
        run("useradd", &args);
        let uid = run("id", &["-u", &name]).trim().parse().expect("a uid");
        Self { name, uid }
    }

    /// Returns a command that runs as this account, with its groups and without capabilities.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg("--regid=65534");
        // `--init-groups` reads the groups of the account.
        command.args(["--init-groups", "--inh-caps=-all", "--ambient-caps=-all"]).arg(program);
        command
    }

    /// Runs breaker on the host as this account, with the testbed's control socket.
    pub fn cli<N: Network>(&self, testbed: &Testbed<N>, args: &[&str]) -> CliOutput {
        let control = testbed.control();
        let run = || {
            let mut command = self.command(&binary());
            command.envs(crate::command::PIN_ENVIRONMENT).env("NO_COLOR", "1");
            command.args(["--control", argument(&control)]).args(args).output()
        };
        CliOutput::new(testbed.on_host(run).expect("running breaker"))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}
