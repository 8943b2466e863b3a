//! Loading and unloading: whole or not at all, whatever died before, side by side with others.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::privileged;
use breaker_tests::rig::{self, Rig};
use breaker_user::testbed::veth;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::host::{Host, POLICY, Said, chain, root};

#[test]
fn an_unload_leaves_no_trace_and_can_be_followed_by_a_load() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    for _ in 0..3 {
        rig.load();
        assert_eq!(chain(&rig, "eth1"), 1);
        let said = rig.types("unload").expect_exit(0);
        assert_eq!(said.out, "unloaded: nothing is enforced on eth1 any more\n");
        rig.is_clean();
        rig.types("status").expect_exit(3);
    }
}

#[test]
fn check_loads_nothing_and_tells_what_would_be_loaded() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let config = rig.config();
    let said = rig.types(&format!("check --config {}", config.display())).expect_exit(0);
    assert!(
        said.out.contains("is valid; sessions: 2, groups: 1, limits: 4; kernel memory: at most "),
        "{said:?}"
    );
    assert!(said.out.contains("this host can enforce it: by tcx on eth1\n"), "{said:?}");
    let found = rig.types(&format!("check --json --config {}", config.display())).expect_exit(0).json();
    assert_eq!((&found["hook"], &found["interfaces"][0]), (&"tcx".into(), &"eth1".into()));
    rig.is_clean();
    rig.types("status").expect_exit(3);
}

#[test]
fn what_a_load_that_died_left_is_removed_by_the_next() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let config = rig.config();
    // A load takes some 100 ms in a debug build: killed at any moment of it.
    let mut died = 0;
    for delay in 0..24 {
        let mut load = rig.inside(|| start(&["load", "--config", config.to_str().expect("UTF-8")]));
        sleep(Duration::from_millis(delay * 4));
        load.kill().expect("killing it");
        load.wait().expect("waiting for it");
        if rig.types("status").code == Some(3) {
            died += 1;
            rig.load();
        }
        rig.types("status").expect_exit(0);
        assert_eq!(chain(&rig, "eth1"), 1);
        rig.types("unload").expect_exit(0);
        rig.is_clean();
    }
    assert!(died > 3, "the loads were over too soon: {died}");
}

#[test]
fn pins_left_beside_the_root_are_removed_by_the_next_load() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    // As if an unload had died when everything was out of the way but removed; and pins loose, as another version might leave them.
    rig.shell("mkdir /sys/fs/bpf/breaker_next && mv /sys/fs/bpf/breaker /sys/fs/bpf/breaker_next/pins");
    rig.inside(|| {
        let object = aya::EbpfLoader::new().load(&breaker_user::kernel::load::object()).expect("the object");
        object.map("PORTS").expect("a map").pin("/sys/fs/bpf/breaker_next/loose").expect("pinning");
    });
    rig.types("status").expect_exit(3);
    assert_eq!(chain(&rig, "eth1"), 1, "it enforces still");
    rig.load();
    assert_eq!(chain(&rig, "eth1"), 1, "the old one is gone");
    rig.types("status").expect_exit(0);
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn of_eight_loads_at_once_exactly_one_wins() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let config = rig.config();
    let args = ["load", "--config", config.to_str().expect("UTF-8")];
    for _ in 0..3 {
        let loads: Vec<_> = rig.inside(|| (0..8).map(|_| start(&args)).collect());
        let said: Vec<_> =
            loads.into_iter().map(|load| Said::of(load.wait_with_output().expect("waiting"))).collect();
        assert_eq!(said.iter().filter(|said| said.code == Some(0)).count(), 1, "{said:#?}");
        assert_eq!(said.iter().filter(|said| said.code == Some(4)).count(), 7, "{said:#?}");
        assert_eq!(chain(&rig, "eth1"), 1);
        rig.types("status").expect_exit(0);
        // And of eight unloads one: to the others there is nothing left, or it is being done.
        let unloads: Vec<_> = rig.inside(|| (0..8).map(|_| start(&["unload"])).collect());
        let said: Vec<_> =
            unloads.into_iter().map(|it| Said::of(it.wait_with_output().expect("waiting"))).collect();
        assert_eq!(said.iter().filter(|said| said.code == Some(0)).count(), 1, "{said:#?}");
        assert!(said.iter().all(|said| matches!(said.code, Some(0 | 3 | 4))), "{said:#?}");
        rig.is_clean();
    }
}

#[test]
fn two_pin_roots_live_side_by_side() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    veth(&rig.wire.firm, "eth2", &rig.wire.venue, "eth2").expect("a second cable");
    let audit = rig.audit().with_file_name("second.jsonl");
    let text = format!("[host]\ninterfaces = [\"eth2\"]\n[agent]\naudit = {audit:?}\n");
    let config = rig.configure("second.toml", &text);
    let second = root("second");
    let at = |words: &str| rig.types(&format!("{words} --pin-root {}", second.path().display()));
    at(&format!("load --config {}", config.display())).expect_exit(0);
    assert_eq!((chain(&rig, "eth1"), chain(&rig, "eth2")), (1, 1));
    rig.trip("session/x1");
    rig.types("status").expect_exit(10);
    at("status").expect_exit(0);
    at("trip session/x1 --reason x").expect_exit(2);
    at("trip host --reason x").expect_exit(0);
    rig.switch("reset", "session/x1").expect_exit(0);
    at("status").expect_exit(10);
    rig.types("status").expect_exit(0);
    rig.types("unload").expect_exit(0);
    assert_eq!((chain(&rig, "eth1"), chain(&rig, "eth2")), (0, 1));
    at("status").expect_exit(10);
    let said = at("events --json").expect_exit(0);
    assert_eq!(said.out.lines().count(), 2, "{said:?}");
    at("unload --force").expect_exit(0);
    rig.is_clean();
}

#[test]
fn a_host_without_a_bpf_file_system_gets_one() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    rig.inside(|| unmount("/sys/fs/bpf", UnmountFlags::empty())).expect("unmounting");
    rig.types("status").expect_exit(3).because("no BPF file system is mounted there");
    rig.load();
    rig.types("status").expect_exit(0);
    assert_eq!(rig.shell("stat -f -c %T /sys/fs/bpf").trim(), "bpf_fs");
    rig.types("unload").expect_exit(0);
    rig.is_clean();
}

#[test]
fn pins_hidden_by_a_second_mount_are_reported_as_not_loaded_and_come_back() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    rig.inside(|| mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)).expect("mounting over it");
    rig.types("status").expect_exit(3);
    assert_eq!(chain(&rig, "eth1"), 1, "it enforces still");
    rig.inside(|| unmount("/sys/fs/bpf", UnmountFlags::empty())).expect("unmounting");
    rig.types("status").expect_exit(0);
}

fn start(args: &[&str]) -> std::process::Child {
    let mut command = rig::command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("starting breaker")
}
