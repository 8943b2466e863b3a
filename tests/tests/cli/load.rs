//! Loading and unloading: as a whole or not at all, after processes that died, and beside other loads.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::command::{self, CliOutput};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::PinRoot;
use breaker_user::testbed::veth;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::POLICY;

#[test]
fn an_unload_leaves_no_trace_and_can_be_followed_by_a_load() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    for _ in 0..3 {
        testbed.load_cli();
        assert_eq!(testbed.tcx_programs("eth1"), 1);
        let output = testbed.cli("unload").expect_exit(0);
        assert_eq!(output.stdout, "unloaded: nothing is enforced on eth1 any more\n");
        testbed.assert_clean();
        testbed.cli("status").expect_exit(3);
    }
}

#[test]
fn check_loads_nothing_and_describes_the_load() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config();
    let output = testbed.cli(&format!("check --config {}", config.display())).expect_exit(0);
    assert!(
        output.stdout.contains("is valid; sessions: 2, groups: 1, limits: 4; kernel memory: at most "),
        "{output:?}"
    );
    assert!(output.stdout.contains("this host can enforce it: by tcx on eth1\n"), "{output:?}");
    let found = testbed.cli(&format!("check --json --config {}", config.display())).expect_exit(0).json();
    assert_eq!((&found["hook"], &found["interfaces"][0]), (&"tcx".into(), &"eth1".into()));
    testbed.assert_clean();
    testbed.cli("status").expect_exit(3);
}

#[test]
fn a_load_removes_the_pins_of_a_load_that_died() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config();
    // A load takes about 100 ms in a debug build. It is killed at several moments.
    let mut died = 0;
    for delay in 0..24 {
        let mut load = testbed.on_host(|| start(&["load", "--config", config.to_str().expect("UTF-8")]));
        sleep(Duration::from_millis(delay * 4));
        load.kill().expect("killing it");
        load.wait().expect("waiting for it");
        if testbed.cli("status").exit_code == Some(3) {
            died += 1;
            testbed.load_cli();
        }
        testbed.cli("status").expect_exit(0);
        assert_eq!(testbed.tcx_programs("eth1"), 1);
        testbed.cli("unload").expect_exit(0);
        testbed.assert_clean();
    }
    assert!(died > 3, "the loads were over too soon: {died}");
}

#[test]
fn pins_left_beside_the_root_are_removed_by_the_next_load() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    // As after an unload that died before its last step; with a loose pin, as another version might leave it.
    testbed.shell("mkdir /sys/fs/bpf/breaker_next && mv /sys/fs/bpf/breaker /sys/fs/bpf/breaker_next/pins");
    testbed.on_host(|| {
        let object = aya::EbpfLoader::new()
            .load(&breaker_user::kernel::object::for_running_kernel().bytes)
            .expect("the object");
        object.map("PORTS").expect("a map").pin("/sys/fs/bpf/breaker_next/loose").expect("pinning");
    });
    testbed.cli("status").expect_exit(3);
    assert_eq!(testbed.tcx_programs("eth1"), 1, "it still enforces");
    testbed.load_cli();
    assert_eq!(testbed.tcx_programs("eth1"), 1, "the old one is detached");
    testbed.cli("status").expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn one_of_eight_concurrent_loads_succeeds() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = testbed.config();
    let args = ["load", "--config", config.to_str().expect("UTF-8")];
    for _ in 0..3 {
        let loads: Vec<_> = testbed.on_host(|| (0..8).map(|_| start(&args)).collect());
        let output: Vec<_> =
            loads.into_iter().map(|load| CliOutput::new(load.wait_with_output().expect("waiting"))).collect();
        assert_eq!(output.iter().filter(|output| output.exit_code == Some(0)).count(), 1, "{output:#?}");
        assert_eq!(output.iter().filter(|output| output.exit_code == Some(4)).count(), 7, "{output:#?}");
        assert_eq!(testbed.tcx_programs("eth1"), 1);
        testbed.cli("status").expect_exit(0);
        // One of eight unloads succeeds. The others find nothing loaded, or an unload in progress.
        let unloads: Vec<_> = testbed.on_host(|| (0..8).map(|_| start(&["unload"])).collect());
        let output: Vec<_> =
            unloads.into_iter().map(|it| CliOutput::new(it.wait_with_output().expect("waiting"))).collect();
        assert_eq!(output.iter().filter(|output| output.exit_code == Some(0)).count(), 1, "{output:#?}");
        assert!(output.iter().all(|output| matches!(output.exit_code, Some(0 | 3 | 4))), "{output:#?}");
        testbed.assert_clean();
    }
}

#[test]
fn two_pin_roots_live_side_by_side() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    veth(&testbed.network.firm, "eth2", &testbed.network.venue, "eth2").expect("a second cable");
    let audit = testbed.audit().with_file_name("second.jsonl");
    let state = testbed.state();
    let text = format!("[host]\ninterfaces = [\"eth2\"]\n[agent]\naudit = {audit:?}\nstate = {state:?}\n");
    let config = testbed.write_config("second.toml", &text);
    let second = PinRoot::new("/sys/fs/bpf/second");
    let at = |words: &str| testbed.cli(&format!("{words} --pin-root {}", second.path().display()));
    at(&format!("load --config {}", config.display())).expect_exit(0);
    assert_eq!((testbed.tcx_programs("eth1"), testbed.tcx_programs("eth2")), (1, 1));
    testbed.trip("session/x1");
    testbed.cli("status").expect_exit(10);
    at("status").expect_exit(0);
    at("trip session/x1 --reason x").expect_exit(2);
    at("trip host --reason x").expect_exit(0);
    testbed.switch("reset", "session/x1").expect_exit(0);
    at("status").expect_exit(10);
    testbed.cli("status").expect_exit(0);
    testbed.cli("unload").expect_exit(0);
    assert_eq!((testbed.tcx_programs("eth1"), testbed.tcx_programs("eth2")), (0, 1));
    at("status").expect_exit(10);
    let output = at("events --json").expect_exit(0);
    assert_eq!(output.stdout.lines().count(), 2, "{output:?}");
    at("unload --force").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn a_host_without_a_bpf_file_system_gets_one() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    testbed.on_host(|| unmount("/sys/fs/bpf", UnmountFlags::empty())).expect("unmounting");
    testbed.cli("status").expect_exit(3).expect_stderr("no BPF file system is mounted there");
    testbed.load_cli();
    testbed.cli("status").expect_exit(0);
    assert_eq!(testbed.shell("stat -f -c %T /sys/fs/bpf").trim(), "bpf_fs");
    testbed.cli("unload").expect_exit(0);
    testbed.assert_clean();
}

#[test]
fn pins_hidden_by_a_second_mount_are_reported_as_not_loaded_and_come_back() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    testbed
        .on_host(|| mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None))
        .expect("mounting over it");
    testbed.cli("status").expect_exit(3);
    assert_eq!(testbed.tcx_programs("eth1"), 1, "it still enforces");
    testbed.on_host(|| unmount("/sys/fs/bpf", UnmountFlags::empty())).expect("unmounting");
    testbed.cli("status").expect_exit(0);
}

fn start(args: &[&str]) -> std::process::Child {
    let mut command = command::command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("starting breaker")
}
