//! A trading host on which breaker is typed.

use std::path::PathBuf;
use std::process::{Command, Output};

use breaker_tests::rig::{self, Rig};
use breaker_user::kernel::PinRoot;
use serde_json::Value;

/// Two sessions in a group, each scope with a limit that takes a while to fill.
pub const POLICY: &str = r#"
limits = [{ class = "order", max = 5000, per = "1s" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 2000, per = "1s" }]
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
limits = [{ class = "order", max = 5, per = "2s" }, { class = "cancel", max = 1000, per = "2s" }]
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
groups = ["desk"]
"#;

/// What a verb said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts the exit code. The messages are what a person reads: one line that begins with the program's name.
    #[track_caller]
    pub fn expect_exit(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that an error says this.
    #[track_caller]
    pub fn because(self, found: &str) -> Self {
        assert!(self.err.contains(found), "{found:?} is not in {self:#?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs breaker where the tests run; for what needs no host.
pub fn breaker(args: &[&str]) -> Said {
    Said::of(rig::command().args(args).output().expect("running breaker"))
}

/// Verbs on a host.
pub trait Host {
    /// Types a verb, with its words separated by spaces.
    fn types(&self, words: &str) -> Said;
    /// Loads the configuration, and asserts that it is loaded.
    fn load(&self);
    /// Types a verb that takes a reason.
    fn switch(&self, verb: &str, scope: &str) -> Said;
    /// Writes another configuration beside the usual one: all of it.
    fn configure(&self, name: &str, text: &str) -> PathBuf;
    /// Asserts that nothing of breaker is left: no pin, no program, no filter, no qdisc.
    fn is_clean(&self);
    /// A command's output on the host.
    fn shell(&self, command: &str) -> String;
}

impl Host for Rig {
    fn types(&self, words: &str) -> Said {
        Said::of(self.cli(&words.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>()))
    }

    fn load(&self) {
        self.types(&format!("load --config {}", self.config().display())).expect_exit(0);
    }

    fn switch(&self, verb: &str, scope: &str) -> Said {
        self.types(&format!("{verb} {scope} --reason test"))
    }

    fn configure(&self, name: &str, text: &str) -> PathBuf {
        let path = self.config().with_file_name(name);
        std::fs::write(&path, text).expect("writing a configuration");
        path
    }

    fn is_clean(&self) {
        // The debug files are the kernel's own.
        let pins = self.shell("ls -A /sys/fs/bpf");
        let pins: Vec<_> = pins.lines().filter(|name| !name.ends_with(".debug")).collect();
        assert!(pins.is_empty(), "{pins:?}");
        assert_eq!(chain(self, "eth1"), 0, "programs of tcx");
        assert_eq!(self.shell("tc filter show dev eth1 egress"), "");
        assert!(!self.shell("tc qdisc show dev eth1").contains("clsact"));
    }

    fn shell(&self, command: &str) -> String {
        let ran = self.inside(|| {
            Command::new("sh").args(["-c", command]).envs(rig::PINS).output().expect("running sh")
        });
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("UTF-8")
    }
}

/// How many programs tcx runs at the egress of an interface; none where there is no such interface.
pub fn chain(rig: &Rig, interface: &str) -> usize {
    use aya::programs::{SchedClassifier, TcAttachType};
    rig.inside(|| SchedClassifier::query_tcx(interface, TcAttachType::Egress))
        .map_or(0, |(_, programs)| programs.len())
}

/// The state of a scope in what `status --json` says.
pub fn scope<'a>(status: &'a Value, name: &str) -> &'a Value {
    let scopes = status["scopes"].as_array().expect("scopes");
    scopes
        .iter()
        .find(|scope| scope["scope"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {scopes:?}"))
}

/// Another pin root on the same host.
pub fn root(name: &str) -> PinRoot {
    PinRoot::new(format!("/sys/fs/bpf/{name}"))
}
