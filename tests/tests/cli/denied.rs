//! Missing rights: exit 6 with the missing right, and never "not loaded" for pins that cannot be read.

use std::process::Command;

use breaker_tests::command::{CliOutput, PIN_ENVIRONMENT, binary};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::POLICY;

/// Runs a verb as a user without any right.
fn as_nobody(testbed: &Testbed, words: &str) -> CliOutput {
    with(testbed, "-all", words)
}

/// Runs a verb as a user with these capabilities only. setpriv keeps its rights until it executes the binary,
/// so the binary may be in a directory that is closed to others.
fn with(testbed: &Testbed, capabilities: &str, words: &str) -> CliOutput {
    let ran = testbed.on_host(|| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(format!("--inh-caps={capabilities}"))
            .arg(format!("--ambient-caps={capabilities}"))
            .arg(binary())
            .envs(PIN_ENVIRONMENT)
            .args(words.split(' '))
            .output()
    });
    CliOutput::new(ran.expect("running setpriv"))
}

/// Makes the configuration readable for everyone.
fn readable(testbed: &Testbed) -> String {
    let config = testbed.config();
    testbed.shell(&format!(
        "chmod 755 {} && chmod 644 {}",
        config.parent().expect("a parent").display(),
        config.display()
    ));
    config.display().to_string()
}

#[test]
fn loading_without_rights_ends_with_6_and_leaves_nothing() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = readable(&testbed);
    let lacks = "loading: this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON: run as root, or grant \
                 what is missing";
    as_nobody(&testbed, &format!("load --config {config}")).expect_exit(6).expect_stderr(lacks);
    testbed.assert_clean();
    // Without rights, the BPF file system cannot be mounted either.
    testbed.on_host(|| unmount("/sys/fs/bpf", UnmountFlags::empty())).expect("unmounting");
    let found =
        "mounting the BPF file system at /sys/fs/bpf: Operation not permitted (os error 1): run as root";
    as_nobody(&testbed, &format!("load --config {config}")).expect_exit(6).expect_stderr(found);
    // The file is checked all the same.
    let output = as_nobody(&testbed, &format!("check --config {config}")).expect_exit(6).expect_stderr(lacks);
    assert!(output.stdout.contains("is valid"), "{output:?}");
    let output = with(&testbed, "+bpf,+net_admin", &format!("check --config {config}")).expect_exit(6);
    assert!(output.stderr.contains("lacks CAP_PERFMON:"), "{output:?}");
    // One missing capability is enough. The error names the capability, and not the kernel.
    testbed.on_host(|| mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)).expect("mounting");
    testbed.shell(&format!(
        "chmod 1777 /sys/fs/bpf && chown -R nobody {}",
        testbed.config().parent().expect("a parent").display()
    ));
    for (held, lacked) in [
        ("+bpf,+net_admin", "lacks CAP_PERFMON:"),
        ("+net_admin,+perfmon", "lacks CAP_BPF:"),
        ("+bpf,+perfmon", "lacks CAP_NET_ADMIN:"),
    ] {
        for verb in ["load", "agent"] {
            with(&testbed, held, &format!("{verb} --config {config}")).expect_exit(6).expect_stderr(lacked);
        }
    }
    assert!(!testbed.audit().exists(), "nothing was done, and nothing is logged");
}

#[test]
fn pins_that_cannot_be_read_are_not_reported_as_not_loaded() {
    require_root!();
    let testbed = Testbed::load(POLICY);
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
            let output = as_nobody(&testbed, words)
                .expect_exit(6)
                .expect_stderr("ermission denied")
                .expect_stderr("run as root");
            assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "{output:?}");
        }
    };
    all_denied();
    // systemd mounts the BPF file system so that only root can read it.
    testbed.shell("chmod 700 /sys/fs/bpf");
    all_denied();
    // A readable directory with pins that cannot be opened.
    testbed.shell("chmod 755 /sys/fs/bpf /sys/fs/bpf/breaker");
    all_denied();
    testbed.cli("status").expect_exit(0);
}

#[test]
fn the_owner_with_the_three_capabilities_needs_no_root() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let config = readable(&testbed);
    testbed.shell(&format!("chown -R nobody {}", testbed.config().parent().expect("a parent").display()));
    let enough = "+bpf,+net_admin,+perfmon";
    let output = with(&testbed, enough, &format!("load --config {config}")).expect_exit(0);
    assert!(output.stdout.contains("attached, first in its chain"), "{output:?}");
    with(&testbed, enough, "status").expect_exit(0);
    with(&testbed, enough, "trip session/x1 --reason x").expect_exit(0);
    with(&testbed, enough, "status").expect_exit(10);
    with(&testbed, enough, "reset session/x1 --reason x").expect_exit(0);
    // Without the right to query the hook, the hook is not reported as empty.
    with(&testbed, "+bpf,+perfmon", "status")
        .expect_exit(6)
        .expect_stderr("querying the programs of eth1: Operation not permitted");
    let output = with(&testbed, enough, "events").expect_exit(0);
    assert!(output.stdout.contains("by nobody via cli"), "{output:?}");
    with(&testbed, enough, "unload").expect_exit(0);
    testbed.assert_clean();
    assert_eq!(testbed.tcx_programs("eth1"), 0);
}
