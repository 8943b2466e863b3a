//! The systemd units: their exposure, and a load from start to end with exactly their rights.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::agent::{metrics, state};
use breaker_tests::cli::argument;
use breaker_tests::command::{CliOutput, binary};
use breaker_tests::confined::Confinement;
use breaker_tests::testbed::Testbed;
use breaker_tests::users::User;
use breaker_tests::{require_root, root};
use breaker_user::kernel::detach_link::detach_link;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

/// Largest exposure level of a unit, in tenths, as `systemd-analyze security` computes it.
const MAX_EXPOSURE: u32 = 20;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd")
}

/// Returns true if systemd-analyze is installed, and otherwise marks the test as skipped.
fn has_systemd() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        root::skip("needs systemd-analyze");
    }
    found
}

#[test]
fn every_service_is_below_the_largest_exposure() {
    if !has_systemd() {
        return;
    }
    let files = std::fs::read_dir(units()).expect("the units");
    let mut services = 0;
    for path in files.map(|file| file.expect("a file").path()) {
        if path.extension().is_none_or(|kind| kind != "service") {
            continue;
        }
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", &format!("--threshold={MAX_EXPOSURE}")])
            .arg(&path)
            .output()
            .expect("running systemd-analyze");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{path:?}: {}", text.lines().last().unwrap_or_default());
        assert!(text.contains("Overall exposure level"), "{path:?}: {output:?}");
        services += 1;
    }
    assert_eq!(services, 3);
}

/// A host as the packages set it up: the account of breaker owns a BPF file system and the directories.
struct Host {
    testbed: Testbed,
    user: User,
    operator: User,
    program: PathBuf,
}

impl Host {
    fn new() -> Self {
        let (user, operator) = (User::new(&[]), User::new(&[]));
        let testbed = Testbed::unloaded(&format!(
            "[people]\noperators = [\"{}\"]\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n",
            operator.name
        ));
        let host = Self { program: testbed.state().join("breaker"), testbed, user, operator };
        let (pins, state) = (host.pins(), host.testbed.state());
        std::fs::create_dir(&pins).expect("a mount point");
        // The account has no access to the build directory.
        std::fs::copy(binary(), &host.program).expect("copying the program");
        let owner = Some(host.user.uid);
        host.testbed.on_host(|| {
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&state, open).expect("opening the directory");
            mount("bpf", &pins, "bpf", MountFlags::NOSUID, Some(c"mode=0700")).expect("mounting");
            for path in [&pins, &state, &host.testbed.config(), &host.program] {
                std::os::unix::fs::chown(path, owner, owner).expect("giving it to the account");
            }
        });
        host
    }

    fn pins(&self) -> PathBuf {
        self.testbed.state().join("bpf")
    }

    /// Returns a breaker command with the rights of a unit.
    fn command(&self, unit: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs([("BREAKER_PRIVATE_PINS", "1"), ("NO_COLOR", "1")]);
        command.args(["--pin-root", argument(&self.pins().join("host"))]).args(args);
        Confinement::of_unit(&units().join(unit)).apply(&mut command, self.user.uid);
        command
    }

    fn run(&self, unit: &str, args: &[&str]) -> CliOutput {
        let mut command = self.command(unit, args);
        CliOutput::new(self.testbed.on_host(|| command.output()).expect("running breaker"))
    }

    fn log_has(&self, kind: &str) -> bool {
        let text = std::fs::read_to_string(self.testbed.audit()).unwrap_or_default();
        text.contains(&format!("\"kind\":\"{kind}\""))
    }

    #[track_caller]
    fn wait_for_event(&self, kind: &str) {
        let until = Instant::now() + Duration::from_secs(10) * breaker_tests::slowness();
        while !self.log_has(kind) {
            assert!(Instant::now() < until, "no event {kind}");
            sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_rights_of_the_units_suffice_from_load_to_unload() {
    require_root!();
    if !has_systemd() {
        return;
    }
    let host = Host::new();
    let config = host.testbed.config();
    let config = argument(&config);
    let load = "breaker-load.service";
    let output = host.run(load, &["load", "--config", config]).expect_exit(0);
    assert!(output.stdout.contains("attached, first in its chain"), "{output:?}");

    let mut command = host.command("breaker-agent.service", &["agent", "--config", config]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = host.testbed.on_host(|| command.spawn().expect("starting an agent"));
    let mut ready = String::new();
    let stdout = agent.stdout.take().expect("its standard output");
    BufReader::new(stdout).read_line(&mut ready).expect("its first line");
    assert!(ready.contains("adopted"), "{ready}");
    assert!(metrics(&host.testbed).contains("breaker_enforced 1"));
    assert_eq!(state(&host.testbed)["status"]["enforced"]["ok"], true);
    let text = std::fs::read_to_string(config).expect("the configuration");
    std::fs::write(config, format!("{text}limits = [{{ class = \"order\", max = 9, per = \"1s\" }}]\n"))
        .expect("changing it");
    kill_process(Pid::from_child(&agent), Signal::HUP).expect("reloading");
    host.wait_for_event("policy_changed");

    // An operator without rights sends the request, and the agent trips with its own rights.
    let mut command = host.operator.command(&host.program);
    command
        .args(["--control", argument(&host.testbed.control()), "--pin-root"])
        .arg(host.pins().join("host"));
    command.args(["trip", "session/x1", "--reason", "x"]);
    let ran = host.testbed.on_host(|| command.output()).expect("running breaker");
    CliOutput::new(ran).expect_exit(0);
    assert!(host.log_has("tripped"));
    for (unit, verb, code) in [
        ("breaker-control.service", "trip", 0),
        ("breaker-control.service", "reset", 0),
        ("breaker-control.service", "arm", 0),
        ("breaker-load.service", "disarm", 0),
    ] {
        host.run(unit, &[verb, "session/x1", "--reason", "x"]).expect_exit(code);
    }
    host.run(load, &["status"]).expect_exit(11);
    kill_process(Pid::from_child(&agent), Signal::TERM).expect("stopping it");
    let ended = agent.wait_with_output().expect("waiting for its end");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    host.run(load, &["unload"]).expect_exit(0);
    host.run(load, &["events", "--audit", argument(&host.testbed.audit())]).expect_exit(0);
    host.testbed.assert_clean();
    assert_eq!(host.testbed.tcx_programs("eth1"), 0);
}

#[test]
fn the_services_can_open_the_pins_that_root_has_replaced() {
    require_root!();
    if !has_systemd() {
        return;
    }
    let host = Host::new();
    let (config, root) = (host.testbed.config(), host.pins().join("host"));
    host.run("breaker-load.service", &["load", "--config", argument(&config)]).expect_exit(0);
    host.testbed.cli_args(&["--pin-root", argument(&root), "upgrade"]).expect_exit(0);
    host.testbed.on_host(|| detach_link(&root.join("link_0"))).expect("detaching");
    host.testbed.cli_args(&["--pin-root", argument(&root), "attach"]).expect_exit(0);
    host.run("breaker-control.service", &["arm", "session/x1", "--reason", "x"]).expect_exit(0);
    host.run("breaker-load.service", &["unload"]).expect_exit(0);
    host.testbed.assert_clean();
}

#[test]
fn a_confined_process_has_exactly_the_rights_of_its_unit() {
    require_root!();
    if !has_systemd() {
        return;
    }
    let user = User::new(&[]);
    let confinement = Confinement::of_unit(&units().join("breaker-agent.service"));
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        confinement.apply(&mut command, user.uid);
        CliOutput::new(command.output().expect(program))
    };
    let status = run("cat", &["/proc/self/status"]).expect_exit(0).stdout;
    // CAP_NET_ADMIN is 12, CAP_PERFMON 38 and CAP_BPF 39.
    let rights = format!("{:016x}", (1u64 << 12) | (1 << 38) | (1 << 39));
    let ids = [user.uid; 4].map(|id| id.to_string()).join("\t");
    for (key, value) in [
        ("Uid", ids.as_str()),
        ("Groups", ""),
        ("CapEff", &rights),
        ("CapBnd", &rights),
        ("CapAmb", &rights),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        assert_eq!(line.map(str::trim), Some(value), "{key}");
    }
    // Every user may lower a priority; only the filter denies it.
    run("nice", &["-n", "5", "true"]).expect_stderr("not permitted");
}
