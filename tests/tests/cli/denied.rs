//! Missing rights: exit 6 with what is missing, and never "not loaded" for what merely cannot be seen.

use std::process::Command;

use breaker_tests::privileged;
use breaker_tests::rig::{PINS, Rig, binary};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::host::{Host, POLICY, Said, chain};

/// Types a verb as a user without any right.
fn as_nobody(rig: &Rig, words: &str) -> Said {
    with(rig, "-all", words)
}

/// Types a verb as a user with these capabilities and no other. setpriv keeps its rights until it runs the binary, which may so be in
/// a directory that is closed to others.
fn with(rig: &Rig, capabilities: &str, words: &str) -> Said {
    let ran = rig.inside(|| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(format!("--inh-caps={capabilities}"))
            .arg(format!("--ambient-caps={capabilities}"))
            .arg(binary())
            .envs(PINS)
            .args(words.split(' '))
            .output()
    });
    Said::of(ran.expect("running setpriv"))
}

/// Lets anyone read the configuration.
fn readable(rig: &Rig) -> String {
    let config = rig.config();
    rig.shell(&format!(
        "chmod 755 {} && chmod 644 {}",
        config.parent().expect("a parent").display(),
        config.display()
    ));
    config.display().to_string()
}

#[test]
fn loading_without_rights_ends_with_6_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let config = readable(&rig);
    let lacks = "loading: this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON: run as root, or grant what is missing";
    as_nobody(&rig, &format!("load --config {config}")).expect_exit(6).because(lacks);
    rig.is_clean();
    // Nor may just anyone mount.
    rig.inside(|| unmount("/sys/fs/bpf", UnmountFlags::empty())).expect("unmounting");
    let found =
        "mounting the BPF file system at /sys/fs/bpf: Operation not permitted (os error 1): run as root";
    as_nobody(&rig, &format!("load --config {config}")).expect_exit(6).because(found);
    // The file is checked all the same.
    let said = as_nobody(&rig, &format!("check --config {config}")).expect_exit(6).because(lacks);
    assert!(said.out.contains("is valid"), "{said:?}");
    let said = with(&rig, "+bpf,+net_admin", &format!("check --config {config}")).expect_exit(6);
    assert!(said.err.contains("lacks CAP_PERFMON:"), "{said:?}");
    // One that is missing is enough, and it is that one that is named, not the kernel.
    rig.inside(|| mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)).expect("mounting");
    rig.shell(&format!(
        "chmod 1777 /sys/fs/bpf && chown -R nobody {}",
        rig.config().parent().expect("a parent").display()
    ));
    for (held, lacked) in [
        ("+bpf,+net_admin", "lacks CAP_PERFMON:"),
        ("+net_admin,+perfmon", "lacks CAP_BPF:"),
        ("+bpf,+perfmon", "lacks CAP_NET_ADMIN:"),
    ] {
        for verb in ["load", "agent"] {
            with(&rig, held, &format!("{verb} --config {config}")).expect_exit(6).because(lacked);
        }
    }
    assert!(!rig.audit().exists(), "nothing was done, and nothing is told");
}

#[test]
fn what_cannot_be_seen_is_not_taken_for_not_loaded() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(POLICY);
    let verbs = [
        "status",
        "unload",
        "events",
        "trip host --reason x",
        "reset host --reason x",
        "arm host --reason x",
    ];
    let all_denied = || {
        for words in verbs {
            let said =
                as_nobody(&rig, words).expect_exit(6).because("ermission denied").because("run as root");
            assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1), "{said:?}");
        }
    };
    all_denied();
    // systemd mounts the BPF file system so that only root can look into it.
    rig.shell("chmod 700 /sys/fs/bpf");
    all_denied();
    // A directory that can be seen, and pins that cannot be opened.
    rig.shell("chmod 755 /sys/fs/bpf /sys/fs/bpf/breaker");
    all_denied();
    rig.types("status").expect_exit(0);
}

#[test]
fn the_owner_with_the_three_capabilities_needs_no_root() {
    if !privileged() {
        return;
    }
    let rig = Rig::unloaded(POLICY);
    let config = readable(&rig);
    rig.shell(&format!("chown -R nobody {}", rig.config().parent().expect("a parent").display()));
    let enough = "+bpf,+net_admin,+perfmon";
    let said = with(&rig, enough, &format!("load --config {config}")).expect_exit(0);
    assert!(said.out.contains("attached, first in its chain"), "{said:?}");
    with(&rig, enough, "status").expect_exit(0);
    with(&rig, enough, "trip session/x1 --reason x").expect_exit(0);
    with(&rig, enough, "status").expect_exit(10);
    with(&rig, enough, "reset session/x1 --reason x").expect_exit(0);
    // Who may not ask what is attached is not told that nothing is.
    with(&rig, "+bpf,+perfmon", "status")
        .expect_exit(6)
        .because("asking what is attached to eth1: Operation not permitted");
    let said = with(&rig, enough, "events").expect_exit(0);
    assert!(said.out.contains("by nobody via cli"), "{said:?}");
    with(&rig, enough, "unload").expect_exit(0);
    rig.is_clean();
    assert_eq!(chain(&rig, "eth1"), 0);
}
