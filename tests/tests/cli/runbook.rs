//! docs/operations.md: every command of the runbook runs, in order, and its output has the documented shape.
//!
//! With `BREAKER_RENEW_RUNBOOK=1` the test writes the real output into the page instead.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use breaker_common::class::TABLE;
use breaker_common::message::Class;
use breaker_tests::agent::Agent;
use breaker_tests::command::{PIN_ENVIRONMENT, binary};
use breaker_tests::frame::order;
use breaker_tests::receiver::Receiver;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

/// The page.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
/// Environment variable: if set, the test writes the page.
const RENEW: &str = "BREAKER_RENEW_RUNBOOK";
/// Stands for any number of lines.
const ANY: &str = "…";

/// A part of the page, in order.
enum Part {
    /// The configuration file.
    Configuration(String),
    /// An act of the test: `<!-- test: ACT -->`.
    Act(String),
    /// A command and its documented output.
    Command(String, Vec<String>),
}

/// Reads the parts of the page that the test runs.
fn parts(page: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        match line {
            "```toml" => {
                let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
                parts.push(Part::Configuration(text.join("\n") + "\n"));
            }
            "```console" => {
                for line in lines.by_ref().take_while(|line| *line != "```") {
                    match (line.strip_prefix("# "), parts.last_mut()) {
                        (Some(command), _) => parts.push(Part::Command(command.to_owned(), Vec::new())),
                        (None, Some(Part::Command(_, output))) => output.push(line.to_owned()),
                        _ => panic!("output without a command: {line:?}"),
                    }
                }
            }
            line => {
                let act = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
                parts.extend(act.map(|act| Part::Act(act.to_owned())));
            }
        }
    }
    parts
}

/// A trading host on which the runbook runs.
struct Host {
    testbed: Testbed,
    configuration: String,
    receiver: Receiver,
    engine: Option<TcpStream>,
    agent: Option<Agent>,
    sent: usize,
}

impl Host {
    fn new() -> Self {
        let testbed = Testbed::unloaded("");
        std::fs::create_dir(testbed.state().join("root")).expect("making a directory");
        let receiver = testbed.listen(9001);
        Self { testbed, configuration: String::new(), receiver, engine: None, agent: None, sent: 0 }
    }

    /// The paths of the page and those of the testbed.
    fn paths(&self) -> Vec<(String, String)> {
        let directory = self.testbed.state().display().to_string();
        [
            ("/etc/breaker/breaker.toml", self.testbed.config()),
            ("/var/log/breaker/audit.jsonl", self.testbed.audit()),
            ("/run/breaker/control.sock", self.testbed.control()),
            ("target/release/breaker", binary()),
            ("/root", self.testbed.state().join("root")),
            ("/var/lib/breaker", PathBuf::from(&directory)),
        ]
        .into_iter()
        .map(|(page, own)| (page.to_owned(), own.display().to_string()))
        .collect()
    }

    fn own(&self, text: &str) -> String {
        self.paths().iter().fold(text.to_owned(), |text, (page, own)| text.replace(page, own))
    }

    fn documented(&self, text: &str) -> String {
        self.paths().iter().fold(text.to_owned(), |text, (page, own)| text.replace(own, page))
    }

    fn write_configuration(&self) {
        std::fs::write(self.testbed.config(), self.own(&self.configuration)).expect("writing it");
    }

    fn act(&mut self, act: &str) {
        let words: Vec<_> = act.split(' ').collect();
        match (act, &words[..]) {
            ("write the configuration", _) => self.write_configuration(),
            ("start the agent", _) => self.agent = Some(Agent::start(&self.testbed)),
            ("stop the agent", _) => self.agent.take().expect("an agent").stop(),
            ("connect", _) => self.engine = Some(self.testbed.connect(9001)),
            ("remove armed = false", _) => {
                self.configuration = self.configuration.replace("armed = false\n", "");
                self.write_configuration();
            }
            (_, ["order", count]) => {
                let count: usize = count.parse().expect("a number");
                let engine = self.engine.as_mut().expect("an engine");
                for _ in 0..count {
                    self.sent += 1;
                    engine.write_all(&order(self.sent as u32)).expect("sending");
                }
                let sent = self.sent;
                self.receiver.wait("the orders", |all| all[0].complete("D") == sent);
            }
            (_, ["replace", rest @ ..]) => {
                let rest = rest.join(" ");
                let (old, new) = rest.split_once(" with ").expect("two texts");
                assert!(self.configuration.contains(old), "{act}");
                self.configuration = self.configuration.replace(old, new);
                self.write_configuration();
            }
            _ => panic!("unknown act: {act}"),
        }
    }

    /// Runs a command in the directory of the repository. Returns its output with the paths of the page.
    fn run(&self, line: &str) -> Vec<String> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let directory = binary().parent().expect("a directory").to_owned();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").expect("a PATH"));
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", &format!("{{ {}\n}} 2>&1", self.own(line))]);
        command.current_dir(repository).env("PATH", path).env("NO_COLOR", "1").envs(PIN_ENVIRONMENT);
        command.env("DESTDIR", self.testbed.state().join("installed"));
        let output = self.testbed.on_host(|| command.output()).expect("running bash");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let shown = self.documented(&text);
        // A pipe to head or tail ends with the exit code of breaker, which the page states in the text.
        let is_expected = output.status.success() || line.contains("| head") || line.contains("| grep");
        assert!(is_expected, "`{line}` ended with {}: {shown}", output.status);
        shown.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

/// The shape of a line: without hashes, numbers and the width of columns.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if word == 0 {
            shape.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (text, behind) = rest.split_at(word);
        let is_hash = text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            shape.push('H');
        } else {
            let mut is_number = false;
            for c in text.chars() {
                if !(c.is_ascii_digit() && is_number) {
                    shape.push(if c.is_ascii_digit() { 'N' } else { c });
                }
                is_number = c.is_ascii_digit();
            }
        }
        rest = behind;
    }
    shape.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns true if the output has the documented shape.
fn matches(documented: &[String], output: &[String]) -> bool {
    match documented.split_first() {
        None => output.is_empty(),
        Some((line, rest)) if line == ANY => (0..=output.len()).any(|skip| matches(rest, &output[skip..])),
        Some((line, rest)) => output
            .split_first()
            .is_some_and(|(found, more)| shape(line) == shape(found) && matches(rest, more)),
    }
}

#[test]
fn every_command_of_the_runbook_has_the_documented_output() {
    require_root!();
    let page = std::fs::read_to_string(PAGE).expect("the page");
    let renew = std::env::var_os(RENEW).is_some();
    let (mut host, mut commands, mut renewed) = (Host::new(), 0, page.clone());
    let mut cursor = 0;
    for part in parts(&page) {
        match part {
            Part::Configuration(text) => host.configuration = text,
            Part::Act(act) => host.act(&act),
            Part::Command(command, documented) => {
                commands += 1;
                let output = host.run(&command);
                if renew {
                    let mut old = format!("# {command}\n");
                    documented.iter().for_each(|line| writeln!(old, "{line}").expect("a String"));
                    let mut new = format!("# {command}\n");
                    output.iter().for_each(|line| writeln!(new, "{line}").expect("a String"));
                    cursor += renewed[cursor..].find(&old).expect("the command");
                    renewed.replace_range(cursor..cursor + old.len(), &new);
                    cursor += new.len();
                } else {
                    assert!(
                        matches(&documented, &output),
                        "`{command}` printed another shape than {PAGE} shows:\n{}\ndocumented:\n{}",
                        output.join("\n"),
                        documented.join("\n")
                    );
                }
            }
        }
    }
    assert!(commands >= 25, "the page has {commands} commands");
    if renew {
        std::fs::write(PAGE, renewed).expect("writing the page");
    }
    host.testbed.assert_clean();
}

/// The page on FIX has the classes of the kernel program.
#[test]
fn the_page_on_fix_lists_every_type_with_its_class() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fix.md");
    let page = std::fs::read_to_string(page).expect("the page");
    for class in Class::ALL {
        let start = format!("| {} | ", class.name());
        let row = page.lines().find_map(|line| line.strip_prefix(&start)).expect("a row of the class");
        let cell = row.split([',', '|']).next().expect("a cell");
        let listed: Vec<_> = cell.split_whitespace().collect();
        let of_class = TABLE.iter().filter(|(_, of)| *of == class).map(|(name, _)| *name);
        assert_eq!(listed, of_class.collect::<Vec<_>>(), "{}", class.name());
    }
}

#[test]
fn a_shape_ignores_numbers_hashes_and_widths_and_nothing_else() {
    for (one, other, same) in [
        ("epoch 1; ended: 20", "epoch 2; ended: 3", true),
        ("sha256 0123456789abcdef", "sha256 fedcba9876543210", true),
        (" a     12  b", " a  7  b", true),
        ("session/xnys-1: TRIPPED (manual)", "session/xnys-1: TRIPPED (rate)", false),
        ("exit 0", "exit none", false),
    ] {
        assert_eq!(shape(one) == shape(other), same, "{one:?} {other:?}");
    }
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&lines("a … c"), &lines("a b b c")) && matches(&lines("a …"), &lines("a")));
    assert!(!matches(&lines("a … c"), &lines("a b b")) && !matches(&lines("a"), &lines("a b")));
}
