//! The packages: installed, used, upgraded under load, protected from removal, and removed, on a host of
//! their own; and the lists of dependencies inside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use breaker_tests::cli::{argument, scope, session};
use breaker_tests::command::CliOutput;
use breaker_tests::confined::Confinement;
use breaker_tests::packaged_host::PackagedHost;
use breaker_tests::require_root;
use breaker_tests::traffic::of_host;
use serde_json::Value;
use tempfile::TempDir;

/// A live session and a session that is tripped. Every segment of the tripped session is dropped, SYN
/// included.
const CONFIG: &str = r#"
[host]
interfaces = ["eth1"]
limits = [{ class = "order", max = 9000000, per = "total" }]
[[session]]
name = "live"
remote = "10.9.0.2:9001"
[[session]]
name = "dead"
remote = "10.9.0.2:9002"
on_trip = "drop"
while_tripped = "isolate"
"#;

/// The path of the configuration that the units name.
const CONFIG_PATH: &str = "/etc/breaker/breaker.toml";

/// The kinds of packages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Deb,
    Rpm,
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Builds the packages of a revision into a directory, and returns the package of a format.
fn build(directory: &TempDir, revision: u32, format: Format) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(["xtask", "package", "--profile", "dev", "--output"]);
    command.arg(directory.path()).args(["--revision", &revision.to_string()]);
    let output = CliOutput::new(command.output().expect("running cargo")).expect_exit(0);
    let ending = if format == Format::Deb { ".deb" } else { ".rpm" };
    let path = output.stdout.lines().find(|line| line.ends_with(ending));
    path.unwrap_or_else(|| panic!("no {ending} in {output:?}")).into()
}

/// A host and its package manager.
struct Machine {
    host: PackagedHost,
    format: Format,
}

impl Machine {
    /// Installs a package, or upgrades it.
    fn install(&self, package: &Path) -> CliOutput {
        let package = argument(package);
        match self.format {
            Format::Deb => self.host.run("dpkg", &["--install", package]),
            // The database of rpm does not know the packages of this machine.
            Format::Rpm => self.host.run("rpm", &["--force-debian", "--nodeps", "--upgrade", package]),
        }
    }

    fn remove(&self) -> CliOutput {
        match self.format {
            Format::Deb => self.host.run("dpkg", &["--purge", "breaker"]),
            Format::Rpm => self.host.run("rpm", &["--force-debian", "--erase", "breaker"]),
        }
    }

    fn breaker(&self, args: &[&str], code: i32) -> CliOutput {
        self.host.run("/usr/bin/breaker", args).expect_exit(code)
    }

    fn status(&self, code: i32) -> Value {
        self.breaker(&["status", "--json"], code).json()
    }

    /// Runs breaker with the rights of an installed unit.
    fn run_as_unit(&self, unit: &str, args: &[&str]) -> CliOutput {
        let uid = self.host.run("id", &["-u", "breaker"]).expect_exit(0).stdout;
        let unit = self.host.path(&format!("/usr/lib/systemd/system/{unit}"));
        let confinement = self.host.run_inside(|| Confinement::of_unit(&unit));
        let mut command = self.host.command("/usr/bin/breaker", args);
        confinement.apply(&mut command, uid.trim().parse().expect("a uid"));
        self.host.output(command)
    }

    /// Writes a configuration, and loads it as the units do.
    fn load(&self) {
        let path = self.host.path(CONFIG_PATH);
        self.host.run_inside(|| std::fs::write(path, CONFIG)).expect("writing the configuration");
        let mount = ["-t", "bpf", "-o", "nosuid,nodev,noexec,mode=0700", "bpf", "/run/breaker/bpf"];
        self.host.run("mount", &mount).expect_exit(0);
        let unit = self.host.read("/usr/lib/systemd/system/breaker-load.service");
        let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
        let before: Vec<_> = value("ExecStartPre=+").split(' ').collect();
        self.host.run(before[0], &before[1..]).expect_exit(0);
        let start: Vec<_> = value("ExecStart=/usr/bin/breaker ").split(' ').collect();
        self.run_as_unit("breaker-load.service", &start).expect_exit(0);
    }
}

/// An installation changes nothing but files: it loads nothing, and its configuration is valid and disarmed.
fn assert_installed(machine: &Machine, installed: &CliOutput) {
    let host = &machine.host;
    let shown = format!("{}{}", installed.stdout, installed.stderr);
    assert!(shown.contains("breaker: nothing is loaded: edit /etc/breaker/breaker.toml"), "{shown}");
    machine.breaker(&["status"], 3);
    machine.breaker(&["check"], 0);
    assert!(host.read(CONFIG_PATH).contains("\narmed = false\n"));
    let owner = host.run("stat", &["-c", "%U:%G %a", "/var/lib/breaker", "/var/log/breaker"]);
    assert_eq!(owner.expect_exit(0).stdout, "breaker:breaker 750\nbreaker:breaker 750\n");
    for page in [&["1", "breaker"][..], &["1", "breaker-audit-verify"], &["5", "breaker.toml"]] {
        host.run("man", &[&["--where"], page].concat()).expect_exit(0);
    }
    let completions = "source /usr/share/bash-completion/completions/breaker && complete -p breaker";
    host.run("bash", &["--norc", "-c", completions]).expect_exit(0);
    let units = host.run("sh", &["-c", "ls /usr/lib/systemd/system/*breaker*"]).expect_exit(0).stdout;
    assert_eq!(units.lines().count(), 5, "{units}");
    let verified =
        host.run("systemd-analyze", &[&["verify"], &units.lines().collect::<Vec<_>>()[..]].concat());
    assert!(!verified.stderr.contains("breaker"), "{verified:?}");
}

/// A removal is refused with these words, and the breaker stays in force.
#[track_caller]
fn assert_removal_refused(machine: &Machine, words: &str, status: i32) {
    let output = machine.remove();
    assert_ne!(output.exit_code, Some(0), "{output:?}");
    output.expect_exit(1).expect_stderr("refused, nothing is changed").expect_stderr(words);
    assert_eq!(machine.status(status)["enforced"]["ok"], true);
}

/// The way of a package from its installation to its removal.
fn assert_life_of_a_package(format: Format) {
    let directory = TempDir::new().expect("a directory");
    let [first, second] = [1, 2].map(|revision| build(&directory, revision, format));
    let machine = Machine { host: PackagedHost::new(), format };
    let installed = machine.install(&first).expect_exit(0);
    assert_installed(&machine, &installed);
    machine.load();
    assert_removal_refused(&machine, "a policy is loaded and enforced", 0);
    machine.breaker(&["trip", "session/dead", "--reason", "test"], 0);
    machine.breaker(&["reset", "session/dead", "--reason", "test"], 0);
    machine.breaker(&["trip", "session/dead", "--reason", "test"], 0);
    let before = machine.status(10);

    let seen = of_host(&machine.host.network).run(|| drop(machine.install(&second).expect_exit(0)));
    println!("upgrade of the package: {seen:?}");
    assert_eq!(seen.orders[0], seen.orders[1], "orders that arrived");
    assert!(seen.frames[0] > 1_000 && seen.frames[1] == 0, "frames that passed: {seen:?}");
    let after = machine.status(10);
    let orders = &session(&after, "live")["messages"]["order"];
    assert_eq!((&orders["passed"], &orders["withheld"]), (&seen.orders[0].into(), &0.into()));
    for key in ["tripped", "causes", "epoch", "armed"] {
        assert_eq!(scope(&before, "session/dead")[key], scope(&after, "session/dead")[key], "{key}");
    }
    assert_eq!(after["enforced"]["ok"], true);
    assert_eq!(machine.host.read(CONFIG_PATH), CONFIG, "the configuration of the host");
    let log = machine.host.read("/var/log/breaker/audit.jsonl");
    assert_eq!(log.matches(r#""kind":"upgraded""#).count(), 1, "{log}");
    // Root has written the state file and the log, and the account of the services still can.
    let arm = ["arm", "session/live", "--reason", "test"];
    machine.run_as_unit("breaker-control.service", &arm).expect_exit(0);

    assert_removal_refused(&machine, "a scope is tripped", 10);
    machine.breaker(&["reset", "session/dead", "--reason", "test", "--force"], 0);
    machine.breaker(&["unload"], 0);
    machine.remove().expect_exit(0);
    let users = machine.host.read("/etc/passwd");
    let written = machine.host.written("breaker");
    match format {
        Format::Deb => {
            assert!(!users.contains("breaker"), "{users}");
            assert_eq!(written, [""; 0], "after the purge");
        }
        // An rpm keeps what the host wrote: there is no purge.
        Format::Rpm => {
            let kept = ["/etc/breaker", "/var/lib/breaker", "/var/log/breaker"];
            let others = written.iter().filter(|path| !kept.iter().any(|kept| path.starts_with(kept)));
            assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
            assert!(machine.host.read("/var/log/breaker/audit.jsonl").contains("unloaded"));
        }
    }
}

#[test]
fn a_deb_is_installed_used_upgraded_under_load_and_purged() {
    require_root!();
    assert_life_of_a_package(Format::Deb);
}

#[test]
fn an_rpm_is_installed_used_upgraded_under_load_and_removed() {
    require_root!();
    assert_life_of_a_package(Format::Rpm);
}

/// A name and a version.
type Crate = (String, String);

/// Returns the crates of Cargo.lock with their SHA-256; the crates of the workspace have none.
fn locked() -> BTreeMap<Crate, Option<String>> {
    let text = std::fs::read_to_string(workspace().join("Cargo.lock")).expect("Cargo.lock");
    let blocks = text.split("[[package]]").skip(1);
    let found = blocks.map(|block| {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        ((value("name").expect("a name"), value("version").expect("a version")), value("checksum"))
    });
    found.collect()
}

/// Returns the crates in a list of CycloneDX. Each must be in Cargo.lock with the same hash.
fn listed(path: &Path) -> BTreeSet<Crate> {
    let text = std::fs::read_to_string(path).expect("a list");
    assert!(!text.contains(argument(workspace())), "a path of the machine that built it: {path:?}");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&list["bomFormat"], &list["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let locked = locked();
    let components = list["components"].as_array().expect("components");
    let word = |component: &Value, key: &str| component[key].as_str().expect(key).to_owned();
    let mut references: BTreeSet<_> = components.iter().map(|one| word(one, "bom-ref")).collect();
    references.insert(word(&list["metadata"]["component"], "bom-ref"));
    for dependency in list["dependencies"].as_array().expect("dependencies") {
        let on = dependency["dependsOn"].as_array().into_iter().flatten();
        for reference in on.chain([&dependency["ref"]]) {
            assert!(references.contains(reference.as_str().expect("a reference")), "{reference}");
        }
    }
    let crates = components.iter().map(|component| {
        let found = (word(component, "name"), word(component, "version"));
        let checksum = locked.get(&found).unwrap_or_else(|| panic!("{found:?} is not in Cargo.lock"));
        assert_eq!(component["hashes"][0]["content"].as_str(), checksum.as_deref(), "{found:?}");
        assert!(word(component, "purl").starts_with(&format!("pkg:cargo/{}@{}", found.0, found.1)));
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        found
    });
    crates.collect()
}

#[test]
fn the_package_lists_exactly_the_crates_in_its_binary() {
    let directory = TempDir::new().expect("a directory");
    let package = build(&directory, 1, Format::Deb);
    let tree = directory.path().join("tree");
    let unpacked = Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree).output();
    CliOutput::new(unpacked.expect("dpkg-deb")).expect_exit(0);
    let lists = tree.join("usr/share/doc/breaker/sbom");
    let of_binary = listed(&lists.join("breaker.cdx.json"));
    let info = auditable_info::audit_info_from_file(&tree.join("usr/bin/breaker"), Default::default());
    let recorded = info.expect("the record of the dependencies").packages;
    let recorded = recorded.into_iter().filter(|package| !package.root);
    let recorded: BTreeSet<Crate> =
        recorded.map(|package| (package.name, package.version.to_string())).collect();
    assert!(recorded.len() > 50, "{recorded:?}");
    assert_eq!(of_binary, recorded);
    let of_program = listed(&lists.join("kernel-program.cdx.json"));
    assert!(of_program.iter().any(|(name, _)| name == "aya-ebpf"), "{of_program:?}");
}
